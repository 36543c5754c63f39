"""Which device a process sees: numbers, UUIDs, what the environment leaves."""

from __future__ import annotations

import subprocess
import sys

import pytest

from nas_core.devices import cuda_number, pinned
from nas_core.errors import DeviceError


@pytest.mark.parametrize(("name", "number"), [("cpu", None), ("cuda", 0), ("cuda:0", 0), ("cuda:12", 12)])
def test_names(name: str, number: int | None) -> None:
    assert cuda_number(name) == number


@pytest.mark.parametrize("name", ["", "gpu", "cuda:", "cuda:-1", "cuda:x", "cpu:0", "CUDA:0"])
def test_names_of_nothing(name: str) -> None:
    with pytest.raises(DeviceError, match="unknown device .*; known: cpu, cuda, cuda:<number>"):
        cuda_number(name)


@pytest.mark.parametrize(
    ("name", "visible", "seen"),
    [
        ("cuda:0", "3", "3"),
        ("cuda:1", "3, 5,7", "5"),
        ("cuda", "GPU-aa,GPU-bb", "GPU-aa"),
        ("cuda:1", "GPU-aa,GPU-bb", "GPU-bb"),
        ("cuda:0", "MIG-cc/1/0", "MIG-cc/1/0"),
        ("cuda:1", "0,1,-1,2", "1"),
    ],
)
def test_the_number_counts_within_what_the_environment_leaves(name: str, visible: str, seen: str) -> None:
    assert pinned(name, {"CUDA_VISIBLE_DEVICES": visible}) == {"CUDA_VISIBLE_DEVICES": seen}


def test_without_that_it_is_the_number_of_nvidia_smi() -> None:
    assert pinned("cuda:2", {}) == {"CUDA_VISIBLE_DEVICES": "2", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert pinned("cuda:2", {"CUDA_DEVICE_ORDER": "FASTEST_FIRST"})["CUDA_DEVICE_ORDER"] == "FASTEST_FIRST"


@pytest.mark.parametrize(
    ("name", "visible", "left"), [("cuda:2", "0,1", 2), ("cuda:0", "", 0), ("cuda:2", "0,1,-1,2", 2), ("cuda", "-1", 0)]
)
def test_what_the_environment_hides_is_not_here(name: str, visible: str, left: int) -> None:
    with pytest.raises(DeviceError, match=f"'{name}' is not here: CUDA_VISIBLE_DEVICES='{visible}' leaves {left} CUDA"):
        pinned(name, {"CUDA_VISIBLE_DEVICES": visible})


def test_a_process_on_the_cpu_sees_no_gpu() -> None:
    assert pinned("cpu", {"CUDA_VISIBLE_DEVICES": "0"}) == {"CUDA_VISIBLE_DEVICES": "-1"}


def test_it_decides_without_torch() -> None:
    program = "import sys, nas_core.devices as d; d.pinned('cuda:1', {}); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
