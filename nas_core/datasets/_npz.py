"""Reads arrays out of npz files that come from outside: nothing is unpickled, nothing is believed unchecked.

NumPy's own reader allocates whatever a header announces; here an array is refused by its header when it is larger than
MOST_BYTES, and when the archive does not hold as many bytes as the header announces.
"""

from __future__ import annotations

import ast
import lzma
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from nas_core.errors import DatasetError

MOST_BYTES = 8 * 2**30
"""Of one array, unpacked."""
MOST_PACKED = 200
"""How many times its packed size an array may have, where it is larger than UNSUSPECTED_BYTES. Images pack tenfold."""
UNSUSPECTED_BYTES = 2**26
MOST_HEADER_BYTES = 10_000
PIECE = 2**20
PLAIN_DTYPE = re.compile(r"[<>|=]?[biuf][1-8]")
"""Bools, integers and floats of up to 8 bytes."""


@dataclass(frozen=True, slots=True)
class Header:
    """What an array says of itself."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool
    start: int
    """Bytes before the data."""

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


class Npz:
    """An open npz file. Everything that is wrong with it is a DatasetError."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self.path, self._archive, self._size = path, archive, path.stat().st_size
        self.names = frozenset(
            name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy") and "/" not in name
        )

    def header(self, name: str) -> Header:
        """Reads the first bytes of an array only."""
        with self._archive.open(f"{name}.npy") as stream:
            header = self._header(name, stream)
        member = self._archive.getinfo(f"{name}.npy")
        held, packed = member.file_size, min(member.compress_size, self._size)
        if header.bytes > MOST_BYTES:
            raise DatasetError(f"{self.path}: '{name}' announces {header.bytes} bytes; at most {MOST_BYTES} are read")
        if header.bytes > max(UNSUSPECTED_BYTES, MOST_PACKED * packed):
            raise DatasetError(
                f"{self.path}: '{name}' announces {header.bytes} bytes in {packed} packed ones; arrays that unpack to "
                f"more than {MOST_PACKED} times their size are not read. Save it unpacked: np.savez"
            )
        if held != header.start + header.bytes:
            raise DatasetError(f"{self.path}: '{name}' announces {header.bytes} bytes, but holds {held - header.start}")
        return header

    def array(self, name: str) -> NDArray[Any]:
        """The whole array, in the byte order of this machine."""
        header = self.header(name)
        with self._archive.open(f"{name}.npy") as stream:
            stream.read(header.start)
            data = np.empty(header.bytes, np.uint8)
            done = 0
            while piece := stream.read(min(PIECE, header.bytes - done)):
                data[done : done + len(piece)] = np.frombuffer(piece, np.uint8)
                done += len(piece)
            if done < header.bytes or stream.read(1):  # the second reads to the end, where the checksum is compared
                raise DatasetError(f"{self.path}: '{name}' does not hold the {header.bytes} bytes it announces")
        flat = data.view(header.dtype)
        array = flat.reshape(header.shape[::-1]).T if header.fortran else flat.reshape(header.shape)
        return np.ascontiguousarray(array, dtype=header.dtype.newbyteorder("="))

    def _header(self, name: str, stream: IO[bytes]) -> Header:
        magic = stream.read(8)
        if magic[:6] != b"\x93NUMPY" or magic[6:] not in (b"\x01\x00", b"\x02\x00"):
            raise DatasetError(f"{self.path}: '{name}' is no array that can be read (it starts with {magic.hex()})")
        width, form = (2, "<H") if magic[6] == 1 else (4, "<I")
        (length,) = struct.unpack(form, stream.read(width))
        text = stream.read(length) if length <= MOST_HEADER_BYTES else b""
        try:
            said = ast.literal_eval(text.decode("latin1").strip())
            descr, shape, fortran = said["descr"], said["shape"], said["fortran_order"]
        except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError) as error:
            raise DatasetError(f"{self.path}: the header of '{name}' cannot be read") from error
        if not isinstance(descr, str) or not PLAIN_DTYPE.fullmatch(descr):
            raise DatasetError(
                f"{self.path}: '{name}' has dtype {str(descr)[:40]}; plain numbers are wanted, objects are never read"
            )
        sizes_ok = isinstance(shape, tuple) and len(shape) <= 8 and all(type(n) is int and n >= 0 for n in shape)
        if not sizes_ok or not isinstance(fortran, bool):
            raise DatasetError(f"{self.path}: the header of '{name}' gives the shape {str(shape)[:80]}")
        try:
            dtype = np.dtype(descr)
        except TypeError as error:
            raise DatasetError(f"{self.path}: '{name}' has the unknown dtype {descr}") from error
        return Header(dtype, shape, fortran, len(magic) + width + length)


@contextmanager
def open_npz(path: Path) -> Iterator[Npz]:
    """Raises DatasetError, here and inside the block, when the file is damaged or no npz file."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield Npz(path, archive)
    # What zipfile and its decompressors raise; RuntimeError: encrypted, NotImplementedError: an unknown method.
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError, ValueError) as error:
        raise DatasetError(f"{path}: no readable npz file: {error}") from error
    except struct.error as error:
        raise DatasetError(f"{path}: an array ends within its header") from error
    except MemoryError as error:
        raise DatasetError(f"{path}: does not fit into memory") from error
