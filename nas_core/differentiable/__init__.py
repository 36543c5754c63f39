"""Differentiable search: one loop, and relaxations that say what the gates are, what learns and what is derived."""

from nas_core.differentiable.engine import Engine
from nas_core.differentiable.relaxation import Relaxation
from nas_core.differentiable.steps import Collapse, Steps

__all__ = ["Collapse", "Engine", "Relaxation", "Steps"]
