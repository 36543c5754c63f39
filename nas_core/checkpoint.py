"""Checkpoints on disk: tensors and JSON values, written beside and renamed, read without running anything.

PyTorch's reader believes the sizes that a file announces, in its older forms at least; here a file is refused whose
parts are packed, or larger than itself.
"""

from __future__ import annotations

import os
import pickle
import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from nas_core.errors import CheckpointError

DAMAGES = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    struct.error,
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    ImportError,
    MemoryError,
)
"""What PyTorch raises for files that it did not write: it lets through whatever its unpickler meets."""


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
    if not os.path.isfile(path):
        raise CheckpointError(f"no checkpoint at {path}")
    try:
        _check_parts(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickles as they are not written here
            state = torch.load(path, map_location="cpu", weights_only=True)
    except DAMAGES as error:
        raise CheckpointError(
            f"the checkpoint {path} cannot be read ({type(error).__name__}); start without it"
        ) from error
    if not isinstance(state, dict):
        raise CheckpointError(f"the checkpoint {path} holds a {type(state).__name__}, not a state; start without it")
    return state


def _check_parts(path: Path) -> None:
    """Raises ValueError or zipfile.BadZipFile for an archive that ``save`` never makes."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    packed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
    if packed or sum(member.file_size for member in members) > path.stat().st_size:
        raise ValueError("its parts are packed, or larger than the file")
