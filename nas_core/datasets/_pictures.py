"""One image file to one square of pixels, with Pillow. Files come from outside: nothing about them is believed."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nas_core.errors import DatasetError

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
"""What Pillow may take a file for, whatever its name: it knows formats that start other programs."""
GREY = frozenset({"1", "L", "LA", "La", "I;16", "I;16B", "I;16L", "I;16N"})
"""Modes without colours."""
MOST_PIXELS = 2**26
"""Of an image, unpacked; 8192 x 8192."""
MOST_FILE_BYTES = 2**28


def square(path: Path, size: int) -> NDArray[np.uint8]:
    """(size, size, 3): the middle of the image, as large a square as it has, turned upright and scaled.

    Of several frames the first; transparency is ignored. Raises DatasetError, naming the file.
    """
    return np.asarray(_read(path, size)[0])


def look(path: Path, size: int) -> tuple[int, bool]:
    """The smaller of height and width in pixels, and whether it is grey; all of it is read as by ``square``."""
    _, side, mode = _read(path, size)
    return side, mode in GREY


def _read(path: Path, size: int) -> tuple[Image.Image, int, str]:
    """The square, and the file's own smaller side and mode."""
    from PIL import Image

    try:
        with path.open("rb") as file:
            length = os.fstat(file.fileno()).st_size
            if length > MOST_FILE_BYTES:
                raise DatasetError(f"{path}: has {length} bytes; images of at most {MOST_FILE_BYTES} are read")
            with Image.open(file, formats=FORMATS) as image:
                width, height = image.size
                if width * height > MOST_PIXELS:
                    raise _too_large(path, f"{width} x {height}")
                mode = image.mode
                return _scaled(image, size, path), min(width, height), mode
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(path, "far more") from error
    except MemoryError as error:
        raise DatasetError(f"{path}: does not fit into memory") from error
    # What Pillow's readers are known to raise for damaged files; OSError: also truncated, unknown or gone.
    except (
        OSError,
        ValueError,
        SyntaxError,
        TypeError,
        LookupError,
        AttributeError,
        OverflowError,
        ZeroDivisionError,
        NotImplementedError,
        RuntimeError,
        EOFError,
        struct.error,
        zlib.error,
    ) as error:
        raise DatasetError(f"{path}: is no image that can be read: {error}") from error


def _too_large(path: Path, what: str) -> DatasetError:
    return DatasetError(f"{path}: has {what} pixels; images of at most {MOST_PIXELS} are read. Make it smaller")


def _scaled(image: Image.Image, size: int, path: Path) -> Image.Image:
    from PIL import Image, ImageOps

    image.draft(None, (2 * size, 2 * size))  # a JPEG is decoded no larger than that needs
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16"):
        upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
    elif upright.mode in ("I", "F"):
        raise DatasetError(f"{path}: has pixels of 32 bits; 8 or 16 bits a channel are read")
    elif upright.mode not in ("L", "RGB"):
        with_alpha = upright.mode == "P" and "transparency" in upright.info
        upright = (upright.convert("RGBA") if with_alpha else upright).convert("RGB")
    width, height = upright.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    return upright.resize((size, size), Image.Resampling.BILINEAR, box=box).convert("RGB")
