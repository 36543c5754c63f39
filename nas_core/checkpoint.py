"""Checkpoints on disk: tensors and JSON values, written beside and renamed, read without running anything."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from nas_core.errors import CheckpointError


def save(state: Mapping[str, Any], path: Path) -> None:
    """Writes ``state`` so that a crash leaves the old file or the new one, never half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".new")
    with beside.open("wb") as file:
        torch.save(dict(state), file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


def copied(state: Any) -> Any:
    """The same with tensors of its own, which training does not change any more; they stay on their device."""
    if isinstance(state, torch.Tensor):
        return state.detach().clone()
    if isinstance(state, Mapping):
        return {key: copied(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(copied(value) for value in state)
    return state


def load(path: Path) -> dict[str, Any]:
    """Raises CheckpointError when the file is missing, damaged or holds anything but tensors and plain values."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"no checkpoint at {path}") from None
    except (pickle.UnpicklingError, RuntimeError, zipfile.BadZipFile, EOFError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"the checkpoint {path} cannot be read ({type(error).__name__}); start without it"
        ) from error
    return state
