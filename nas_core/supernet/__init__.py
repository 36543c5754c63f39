"""One network that holds every op of a space, driven by gates and a selection."""

from nas_core.supernet.network import Active, Gates, Layout, Selection, Supernet

__all__ = ["Active", "Gates", "Layout", "Selection", "Supernet"]
