"""Reads idx files of unsigned bytes, as MNIST and its relatives come in; gzipped or not."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nas_core.errors import DatasetError

UNSIGNED_BYTE = 0x08
MOST_BYTES = 2**28
"""Of one file, unpacked; the largest real one has 47 MB."""
PIECE = 2**20


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """The array of an idx file with so many dimensions. Raises DatasetError when the file holds something else."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            head = file.read(4 + 4 * dimensions)
            wanted = bytes([0, 0, UNSIGNED_BYTE, dimensions])
            if len(head) < 4 + 4 * dimensions or head[:4] != wanted:
                raise DatasetError(
                    f"{path}: starts with {head[:4].hex()}, an idx file of this kind with {wanted.hex()}"
                )
            shape = struct.unpack(f">{dimensions}I", head[4:])
            size = math.prod(shape)
            if size > MOST_BYTES:
                raise DatasetError(f"{path}: announces {size} bytes; at most {MOST_BYTES} are read")
            data, held = np.empty(size, np.uint8), 0
            while part := file.readinto(data.data[held : held + PIECE]):
                held += part
            more = bool(file.read(1))
    except (OSError, EOFError, zlib.error, MemoryError) as error:
        raise DatasetError(f"{path}: cannot be read: {error}; delete it and get it again") from error
    if held < size or more:
        kept = "more" if more else f"{held}"
        raise DatasetError(f"{path}: announces {size} bytes, but holds {kept}; delete it and get it again")
    return data.reshape(shape)
