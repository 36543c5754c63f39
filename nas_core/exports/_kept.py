"""Files of a network that its search brings: stored when it is found, and never made from its weights. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kept:
    """A format that is there or not."""

    what: str
    """In words, for a message."""
    media_type: str
    suffix: str
    """Of its files' names, with the dot."""


_BYTES = "application/octet-stream"
KEPT: Mapping[str, Kept] = {
    "masks": Kept("weight masks", _BYTES, ".masks.safetensors"),
    "inherited": Kept("weights of its search", _BYTES, ".inherited.safetensors"),
}
"""By format. ``masks``: a tensor of booleans by the name of each kernel that has one; ``inherited``: the weights that a
verification may begin with, by name."""
