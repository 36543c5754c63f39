"""Chains of depthwise and pointwise convolutions by kernels of our own, on a CPU with a C compiler.

``chains.c`` is compiled when it is first wanted, by ``cc`` (or the environment's ``CC``), into the user's cache. It
runs on the threads that torch has. Where there is no compiler, or a map is of another kind, ``chains`` or ``fits`` say
so, and the caller takes torch's own kernels. Maps are (N, C, H, W) in channels-last order.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

aten = torch.ops.aten
log = logging.getLogger(__name__)
SOURCE = Path(__file__).with_name("chains.c")
FLAGS = ("-O3", "-march=native", "-std=gnu11", "-fPIC", "-shared")
LARGEST = 8
"""Rows of a kernel."""
SUFFIXES = {torch.float32: "float", torch.float64: "double"}
FIELDS = (
    *("x", "mean", "inverse", "depth", "point", "y"),
    *("g", "g_of", "g_mean", "g_inverse", "g_shift", "g_scale", "dx", "shift", "scale", "d_depth", "d_point"),
)
"""Pointers of one op, in the order of ``chains.c``."""
NUMBERS = (
    *("ops", "n", "h", "w", "c", "oh", "ow", "oc"),
    *("k", "stride", "padding", "dilation", "threads", "learn", "add"),
)
"""What a stage is described by, in that order, too."""


@dataclass(frozen=True, slots=True)
class Step:
    """A depthwise convolution; a pointwise one follows."""

    stride: int
    padding: int
    dilation: int

    @classmethod
    def of(cls, layer: nn.Conv2d) -> Step:
        """Of a square one."""
        return cls(layer.stride[0], int(layer.padding[0]), layer.dilation[0])


def dense(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def moments(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:  # (N, C, H, W) -> (C,), (C,)
    """Mean and inverse standard deviation, as batch norm takes them."""
    mean, variance = aten.batch_norm_update_stats(x, None, None, 0.0)
    return mean, (variance + eps).rsqrt()


class _Stage(ctypes.Structure):
    """The same of ``chains.c``."""

    _fields_ = [(name, ctypes.c_int32) for name in NUMBERS]


# --- building -------------------------------------------------------------------------------------------------------


@cache
def chains() -> ctypes.CDLL | None:
    """The compiled kernels; None where they cannot be had, which is logged once."""
    try:
        place = _place()
        try:
            return _loaded(place if place.exists() else _built(place))
        except (OSError, AttributeError):  # what lies there is broken: once more
            return _loaded(_built(place))
    except (OSError, AttributeError, RuntimeError, ValueError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or error
        log.warning("convolutions take torch's own kernels, which are slower: chains.c was not compiled: %s", said)
        return None


def _loaded(place: Path) -> ctypes.CDLL:
    """Raises OSError or AttributeError where that is no library of ours."""
    found = ctypes.CDLL(str(place))
    for suffix in SUFFIXES.values():
        for name in ("forward", "backward"):
            getattr(found, f"chains_{name}_{suffix}")
    return found


def _compiler() -> list[str]:
    return shlex.split(os.environ.get("CC", "cc"))


def _place() -> Path:
    """Of the library for this source, compiler and processor. Raises RuntimeError where nobody's home is known."""
    version = subprocess.run([*_compiler(), "--version"], capture_output=True, text=True, check=True, timeout=60).stdout
    made_of = SOURCE.read_text(), version, *_compiler(), *FLAGS, platform.machine(), _processor()
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "skyline"
    return folder / f"chains-{hashlib.sha256(repr(made_of).encode()).hexdigest()[:16]}.so"


def _built(place: Path) -> Path:
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent) as made:  # another process may be at it, too
        new = Path(made) / place.name
        words = [*_compiler(), *FLAGS, "-o", str(new), str(SOURCE)]
        subprocess.run(words, capture_output=True, text=True, check=True, timeout=300)
        new.replace(place)
    return place


def _processor() -> str:
    """What a library for another processor of the same kind may not have."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        return platform.processor()


@cache
def _openmp() -> Any:
    """Of torch's threads: how they are set to work, which one is, how many they are; None where it has others."""
    try:
        gomp = ctypes.CDLL("libgomp.so.1")
        functions = gomp.GOMP_parallel, gomp.omp_get_thread_num, gomp.omp_get_num_threads
    except (OSError, AttributeError):
        return None
    return (ctypes.c_void_p * 3)(*(ctypes.cast(function, ctypes.c_void_p).value for function in functions))


def fits(x: Tensor, weights: Sequence[Tensor]) -> bool:
    """Whether the kernels take these maps and the weights of pairs, one after another, here and now."""
    return (
        x.device.type == "cpu"
        and x.dtype in SUFFIXES
        and all(weight.dtype == x.dtype for weight in weights)
        and all(weight.shape[-2] == weight.shape[-1] <= LARGEST for weight in weights[::2])
        and all(weight.shape[-2:] == (1, 1) for weight in weights[1::2])
        and weights[0].shape[1] == 1
        and len(weights[0]) == x.shape[1] == weights[1].shape[1]
        and not torch.compiler.is_exporting()
        and not torch.is_autocast_enabled("cpu")
        and chains() is not None
    )


# --- calling --------------------------------------------------------------------------------------------------------


def _call(name: str, stage: _Stage, ops: Sequence[dict[str, Tensor | None]], dtype: torch.dtype) -> None:
    compiled, threads = chains(), _openmp()
    assert compiled is not None
    stage.ops, stage.threads = len(ops), torch.get_num_threads() if threads else 1
    places = [0 if (x := op.get(field)) is None else x.data_ptr() for op in ops for field in FIELDS]
    pointers = (ctypes.c_void_p * len(places))(*places)
    run = getattr(compiled, f"chains_{name}_{SUFFIXES[dtype]}")
    if run(ctypes.byref(stage), pointers, threads):
        raise MemoryError(f"no memory for a convolution of maps ({stage.n}, {stage.c}, {stage.h}, {stage.w})")


def _stage(x: Tensor, depth: Tensor, point: Tensor, step: Step) -> _Stage:
    n, c, h, w = x.shape
    k = depth.shape[-1]
    oh, ow = ((size + 2 * step.padding - step.dilation * (k - 1) - 1) // step.stride + 1 for size in (h, w))
    return _Stage(0, n, h, w, c, oh, ow, len(point), k, step.stride, step.padding, step.dilation)


def _like(like: Tensor, n: int, c: int, h: int, w: int) -> Tensor:
    return torch.empty((n, c, h, w), dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


class CompiledChains(torch.autograd.Function):
    """Depthwise and pointwise convolutions, batch norm and ReLU between two such pairs, of several ops on one map."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, steps: tuple[Step, ...], eps: float, *weights: Tensor
    ) -> tuple[Tensor, ...]:  # (N, C, H, W), ..., by op (C, 1, k, k), (C', C, 1, 1), ... -> (N, C', H', W') by op
        count, x = 2 * len(steps), dense(x)
        weights = tuple(weight.contiguous() for weight in weights)
        maps = [x] * (len(weights) // count)
        norms: list[dict[str, Tensor | None]] = [{} for _ in maps]
        normed: list[Tensor] = []
        for index, step in enumerate(steps):
            if index:
                found = [moments(y, eps) for y in maps]
                norms = [{"mean": mean, "inverse": inverse} for mean, inverse in found]
                normed += [each for y, both in zip(maps, found, strict=True) for each in (y, *both)]
            depths, points = weights[2 * index :: count], weights[2 * index + 1 :: count]
            stage = _stage(maps[0], depths[0], points[0], step)
            outputs = [_like(x, stage.n, stage.oc, stage.oh, stage.ow) for _ in maps]
            ops = [
                {"x": inner, "depth": depth, "point": point, "y": y, **norm}
                for inner, depth, point, y, norm in zip(maps, depths, points, outputs, norms, strict=True)
            ]
            _call("forward", stage, ops, x.dtype)
            maps = outputs
        ctx.save_for_backward(*weights, x, *normed)
        ctx.steps, ctx.count = steps, len(weights)
        return tuple(maps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # once: hooks on them may not be asked again
        steps, weights, (x, *normed) = ctx.steps, saved[: ctx.count], saved[ctx.count :]
        count, learn, wanted = 2 * len(steps), any(ctx.needs_input_grad[3:]), ctx.needs_input_grad[0]
        ops: list[dict[str, Tensor | None]] = [{"g": dense(g)} for g in gradients]
        found: list[Tensor | None] = [None] * ctx.count
        shared = torch.empty_like(x) if wanted else None
        for index in reversed(range(len(steps))):
            depths, points = weights[2 * index :: count], weights[2 * index + 1 :: count]
            for place, op in enumerate(ops):
                op |= {"depth": depths[place], "point": points[place]}
                op |= {"x": x, "mean": None, "inverse": None, "dx": shared}
                if index:
                    y, mean, inverse = normed[3 * place :][:3]
                    op |= {"x": y, "mean": mean, "inverse": inverse, "dx": torch.empty_like(y)}
                    op |= {"shift": torch.empty_like(mean), "scale": torch.empty_like(mean)}
                if learn:
                    op |= {"d_depth": torch.empty_like(depths[place]), "d_point": torch.empty_like(points[place])}
                    found[count * place + 2 * index] = op["d_depth"]
                    found[count * place + 2 * index + 1] = op["d_point"]
            stage = _stage(normed[0] if index else x, depths[0], points[0], steps[index])
            stage.learn, stage.add = int(learn), int(not index)
            _call("backward", stage, ops, x.dtype)
            ops = [
                {"g": op["dx"], "g_of": op["x"], "g_mean": op["mean"], "g_inverse": op["inverse"]}
                | {"g_shift": op.get("shift"), "g_scale": op.get("scale")}
                for op in ops
            ]
        return shared, None, None, *found


def chained(x: Tensor, steps: Sequence[Step], eps: float, weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """What ``CompiledChains`` gives, by op."""
    found: tuple[Tensor, ...] = CompiledChains.apply(x, tuple(steps), eps, *weights)  # type: ignore[no-untyped-call]
    return found


def _usual(layer: nn.Conv2d) -> bool:
    """Whether a depthwise convolution is one that ``Step`` can tell."""
    numbers = not isinstance(layer.padding, str) and layer.padding_mode == "zeros"
    same = all(one == other for one, other in (layer.stride, layer.dilation, layer.kernel_size))
    reach = layer.dilation[0] * (layer.kernel_size[0] - 1)
    return numbers and same and layer.padding[0] == layer.padding[1] and int(layer.padding[0]) <= reach


def pair(x: Tensor, layer: nn.Conv2d, depth: Tensor, point: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C', H', W')
    """A depthwise convolution as ``layer`` is one, with the weights ``depth``, and a pointwise one with ``point``."""
    if torch.is_grad_enabled() and _usual(layer) and fits(x, (depth, point)):
        return chained(x, [Step.of(layer)], 0.0, (depth, point))[0]
    return F.conv2d(F.conv2d(x, depth, None, layer.stride, layer.padding, layer.dilation, layer.groups), point)
