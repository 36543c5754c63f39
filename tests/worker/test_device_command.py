"""``skyline device profile`` on this machine, in the smallest form that measures anything."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import socket
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from typer.testing import CliRunner

from api.profiles import measuring_command
from nas_core.parts import Widths, parts_on
from nas_core.profiles import DeviceProfile
from nas_core.profiling import listed
from nas_core.settings import parse
from nas_core.spaces import spaces
from skyline.schemas import JobSpec
from worker import device_command
from worker.device_command import device
from worker.profile_child import asked

SMALL = ["profile", "--space", "nasbench201", "--cells", "5", "--channels", "2,3", "--input", "1x8x8", "--name", "here"]


@pytest.mark.slow
def test_a_profile_is_measured_and_written(tmp_path: Path) -> None:
    out = tmp_path / "here.json"
    words = [*SMALL, "--power-w", "9.5", "--networks", "6,8", "--seconds", "0.02", "--out", str(out), "--json"]
    done = CliRunner().invoke(device, words)
    assert done.exit_code == 0, done.output
    profile = DeviceProfile.from_json(out.read_text(encoding="utf-8"))
    assert json.loads(done.stdout) == profile.to_json()
    assert (profile.name, profile.power_w, profile.protocol.batch) == ("here", 9.5, 1)
    assert {row.inputs for row in profile.parts if row.op == "conv_3x3"} == {2, 3, 4, 6, 8, 12}
    (seen,) = profile.latency_validation
    assert (seen.n, seen.channels, profile.latency and profile.latency.n) == (8, 2, 6)
    assert "skyline devices add" in done.stderr


@pytest.mark.parametrize(
    "settings",
    [
        {"cells": 5, "nodes": 2},
        {"cells": 4, "channels": 6, "stem": "imagenet", "connection": True},
        {"cells": 3, "channels": 4, "fan_in": "free", "normal_ops": ["skip_connect", "sep_conv_3x3"]},
        {"cells": 3, "channels": 4, "nodes": 2, "fan_in": "free", "levels": "cell", "filters": True, "stem": "cifar"},
    ],
)
def test_the_command_that_a_refusal_names_measures_what_is_lacking(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = parse(spaces["darts"], settings, "space")
    skeletons = [space.skeleton((3, 64, 64), 7, channels=channels) for channels in (8, 16)]
    document = {
        "space": {"name": "darts", **settings},
        "dataset": {"name": "digits"},
        "objectives": ["error", "params"],
    }
    command = measuring_command(JobSpec.model_validate({**document, "algorithm": {"name": "random"}}), skeletons)
    requests: list[dict[str, Any]] = []

    def measured(request: dict[str, Any]) -> dict[str, Any]:
        requests.append(request)
        raise typer.Exit(1)

    monkeypatch.setattr(device_command, "_measured", measured)
    program, group, *words = shlex.split(command.strip("'"))
    CliRunner().invoke(device, [*words, "--out", str(tmp_path / "profile.json")])
    there = set(listed(*asked(requests[0])))
    assert (program, group) == ("skyline", "device")
    for skeleton in skeletons:
        for widths in get_args(Widths):
            assert parts_on(space, skeleton, widths) <= there


@pytest.mark.slow
def test_a_profile_that_cannot_be_uploaded_is_kept() -> None:
    with socket.socket() as nobody:  # bound, never listening
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        small = ["profile", "--space", "nasbench201", "--cells", "5", "--channels", "2", "--input", "1x8x8"]
        done = CliRunner().invoke(device, [*small, "--networks", "2,2", "--seconds", "0.01", "--url", url])
    assert done.exit_code != 0
    kept = re.search(r"skyline devices add (\S+\.json)", done.stderr)
    assert kept is not None, done.output
    assert DeviceProfile.from_json(Path(kept[1]).read_text(encoding="utf-8")).parts
    shutil.rmtree(Path(kept[1]).parent)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["profile", "--space", "cubes"], "unknown space 'cubes'; known: darts, nasbench201"),
        (["profile", "--space", "nasbench201", "--cells", "6"], "three equal stages and two reduction blocks"),
        (["profile", "--space", "nasbench201", "--connection"], "connection: Unexpected keyword argument"),
        (["profile", "--input", "32x32"], "channels, height and width such as 3x32x32"),
        (["profile", "--channels", "wide"], "channels such as 16 or 16,24"),
        (["profile", "--channels", "0"], "channels such as 16 or 16,24"),
        (["profile", "--out", "/no/such/folder/q.json"], "there is no folder /no/such/folder"),
        (["profile", "--out", "/"], "/ is a folder"),
        (["profile", "--name", "a b"], "a name of 1 to 100 letters"),
        (["profile", "--device", "tpu"], "unknown device 'tpu'"),
        (["profile", "--networks", "3"], "numbers such as 24,40"),
        (["profile", "--networks", "0,40"], "numbers such as 24,40"),
        (["profile", "--filters", "--connection"], "no connections to choose"),
        (["profile", "--filters", "--channels", "8,16"], "--set channels=16 says up to how many channels"),
        (["profile", "--set", "nodes"], "'nodes' is no setting"),
        (["profile", "--set", "nodes=none"], "space 'darts': nodes"),
    ],
)
def test_what_cannot_be_measured_is_exit_2(words: list[str], message: str, capfd: pytest.CaptureFixture[str]) -> None:
    done = CliRunner().invoke(device, words)
    assert done.exit_code == 2
    said = done.stderr + capfd.readouterr().err  # the process that measures has a standard error of its own
    assert message in " ".join(said.replace("│", " ").split())
