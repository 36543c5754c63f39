"""Reads the batches of the python version of CIFAR, which are pickles: by their opcodes and into stand-ins alone.

A pickle can name any callable. Here every name but three of NumPy's is refused, and those three stand for objects of
our own that only keep what they are given: neither NumPy's code nor anybody else's runs while a file is read.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import struct
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas_core.errors import DatasetError

CONTAINERS = ("EMPTY_DICT", "SETITEM", "SETITEMS", "EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_TUPLE")
TUPLES = ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3")
PLAIN = ("NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2")
TEXT = ("BINSTRING", "SHORT_BINSTRING", "BINUNICODE", "SHORT_BINUNICODE", "BINBYTES", "SHORT_BINBYTES")
PUTS, GETS = ("MEMOIZE", "BINPUT", "LONG_BINPUT"), ("BINGET", "LONG_BINGET")
FRAME = ("PROTO", "FRAME", "STOP", "MARK")
OBJECTS = ("GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD")
PERMITTED = frozenset([*CONTAINERS, *TUPLES, *PLAIN, *TEXT, *PUTS, *GETS, *FRAME, *OBJECTS])
"""Opcodes of containers, numbers, text and arrays."""
MOST_TUPLES = 32
"""An array needs seven."""
MOST_OPCODES = 2_000_000
"""The largest real batch has some 350,000; each can make an object."""
FETCHABLE = frozenset([*TEXT, "EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "GLOBAL", "STACK_GLOBAL", "REDUCE"])
"""What leaves something on the stack that may be used again. A tuple may not: one that holds another twice, which holds
another twice, takes exponential time to hash."""
NAMES = {
    ("numpy.core.multiarray", "_reconstruct"): "array",
    ("numpy._core.multiarray", "_reconstruct"): "array",
    ("numpy", "ndarray"): "class",
    ("numpy", "dtype"): "dtype",
}


class _Made:
    """An array or a dtype, as the arguments and the state it was made of."""

    def __init__(self, what: str, arguments: tuple[Any, ...]) -> None:
        self.what, self.arguments = what, arguments
        self.state: Any = ()

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Name:
    """What a permitted name stands for."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __call__(self, *arguments: Any) -> _Made:
        return _Made(self.what, arguments)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError(f"sets the state of a name: {self.what}")


class _Restricted(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        what = NAMES.get((module, name))
        if what is None:
            raise pickle.UnpicklingError(f"names {module[:60]}.{name[:60]}, which is never called")
        return _Name(what)


def read_batch(data: bytes, where: str) -> dict[str, Any]:
    """The dictionary of a batch by text keys; arrays are stand-ins for ``pixels``. Raises DatasetError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of bad escapes in text opcodes, which are refused
            _check(data)
        read = _Restricted(io.BytesIO(data), encoding="bytes").load()
    # what the scan and the unpickler raise for bytes that are no pickle
    except (
        pickle.UnpicklingError,
        ValueError,
        struct.error,
        EOFError,
        IndexError,
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        raise DatasetError(f"{where}: is no batch of CIFAR's python version: {str(error)[:200]}") from error
    if not isinstance(read, dict):
        raise DatasetError(f"{where}: holds a {type(read).__name__}; a dictionary is wanted")
    return {
        key.decode("latin1") if isinstance(key, bytes) else key: value
        for key, value in read.items()
        if isinstance(key, (bytes, str))
    }


def _check(data: bytes) -> None:
    """Raises ValueError for an opcode that no batch needs."""
    tuples, before = 0, ""
    memo: dict[Any, bool] = {}
    for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        name = opcode.name
        tuples += name in TUPLES
        if name not in PERMITTED or tuples > MOST_TUPLES:
            raise ValueError(f"opcode {name} is not read here")
        if count >= MOST_OPCODES:
            raise ValueError(f"has more than {MOST_OPCODES} opcodes")
        if name == "LONG_BINPUT" and int(argument or 0) > count:  # would make a table of as many entries
            raise ValueError(f"a memo of {argument} entries after {count} opcodes")
        if name in PUTS:
            memo[len(memo) if argument is None else argument] = before in FETCHABLE
        elif name in GETS and not memo.get(argument, False):
            raise ValueError("uses again what is no text, list or dictionary")
        before = name


def pixels(value: Any, where: str) -> NDArray[np.uint8]:
    """(N, 3072) of a stand-in. Raises DatasetError when it is none of such an array."""
    state: Any = value.state if isinstance(value, _Made) and value.what == "array" else ()
    if isinstance(state, tuple) and len(state) == 5:
        _, shape, dtype, fortran, data = state
        codes = dtype.arguments[:1] if isinstance(dtype, _Made) and dtype.what == "dtype" else ()
        sizes_ok = (
            isinstance(shape, tuple) and len(shape) == 2 and all(type(size) is int and size > 0 for size in shape)
        )
        plain = codes in (("u1",), (b"u1",)) and not fortran and isinstance(data, bytes)
        if sizes_ok and plain and math.prod(shape) == len(data):
            return np.frombuffer(data, np.uint8).reshape(shape)
    raise DatasetError(f"{where}: 'data' is no array of unsigned bytes; (N, 3072) is wanted")
