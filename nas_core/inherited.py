"""Weights that a candidate brings from its search: bytes of them, and a training that begins with them.

They are tensors of the stand-alone network (``nas_core.network.Network``) by name, without auxiliary head.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from nas_core.errors import InvalidGenotypeError

AUXILIARY = "auxiliary."
OF_IMAGES = ("classifier.linear.weight", "classifier.linear.bias", "stem.first.0.weight")
"""What may have another shape, because images have other classes or channels: it begins as a fresh network does."""


def to_bytes(weights: Mapping[str, Tensor]) -> bytes:
    """A safetensors file."""
    from safetensors.torch import save

    tensors = {
        name: tensor.detach().cpu().contiguous() for name, tensor in weights.items() if not name.startswith(AUXILIARY)
    }
    content: bytes = save(tensors)
    return content


def from_bytes(content: bytes) -> dict[str, Tensor]:
    """Raises InvalidGenotypeError for what is no safetensors file."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        found: dict[str, Tensor] = load(content)
    except (SafetensorError, ValueError, KeyError, RuntimeError, OverflowError) as error:
        raise InvalidGenotypeError(f"this is no file of inherited weights: {str(error)[:200]}") from error
    return found


@torch.no_grad()
def begin(network: nn.Module, weights: Mapping[str, Tensor]) -> list[str]:
    """Gives a network the weights; the names of those of OF_IMAGES that do not fit these images, and stay as they are.

    Raises InvalidGenotypeError where any other is missing, unknown or of another shape; then nothing has changed.
    """
    own = {name: tensor for name, tensor in network.state_dict().items() if not name.startswith(AUXILIARY)}
    given = {name: tensor for name, tensor in weights.items() if not name.startswith(AUXILIARY)}
    if odd := sorted(set(own) ^ set(given)):
        which = "are missing among" if odd[0] in own else "are no part of this network, but stand in"
        raise InvalidGenotypeError(f"{', '.join(odd[:3])} {which} the inherited weights; train from scratch")
    others = [name for name in own if own[name].shape != given[name].shape]
    if wrong := [name for name in others if name not in OF_IMAGES]:
        raise InvalidGenotypeError(
            f"the inherited '{wrong[0]}' has shape {tuple(given[wrong[0]].shape)}, but this network's has "
            f"{tuple(own[wrong[0]].shape)}; inherited weights stay with their widths: train from scratch"
        )
    network.load_state_dict({name: given[name] for name in own if name not in others}, strict=False)
    return others
