"""Job files and single fields set over them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from skyline.errors import InvalidSpecError
from skyline.specs import load, override, parse


def test_yaml_numbers_and_dates_are_read_as_json_would() -> None:
    assert parse("verify: {lr: 1e-3, weight_decay: 3.0e-4}\nlabels: {day: 2026-01-31}", "job") == {
        "verify": {"lr": 0.001, "weight_decay": 0.0003},
        "labels": {"day": "2026-01-31"},
    }


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO('{"name": "piped"}'))
    assert load("-") == {"name": "piped"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [1", r"line 1, column \d+"),
        ("- a\n- b", "holds a list"),
        ("", "it is empty; a mapping such as 'space: ...' is needed"),
        ("space: {name: darts}\nseed: 1\nspace: {}", "line 3, column 1: 'space' stands twice"),
        ('{"seed": 1, "seed": 2}', "'seed' stands twice"),
        ("!!python/object/apply:os.system ['true']", "could not determine a constructor"),
    ],
)
def test_a_bad_file_is_named_with_its_fault(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(content)
    with pytest.raises(InvalidSpecError, match=f"job.yaml is no valid job: .*{message}"):
        load(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpecError, match="missing.yaml is no valid job: it cannot be read: No such file"):
        load(tmp_path / "missing.yaml")


def test_binary_is_no_job(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidSpecError, match="not UTF-8"):
        load(tmp_path / "job.yaml")


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("budget.evaluations=20", {"objectives": ["error"], "budget": {"evaluations": 20}}),
        ("objectives.0=accuracy", {"objectives": ["accuracy"]}),
        ("objectives=[error, params]", {"objectives": ["error", "params"]}),
        ("name=a=b", {"objectives": ["error"], "name": "a=b"}),
        ("target.stem=null", {"objectives": ["error"], "target": {"stem": None}}),
    ],
)
def test_override_sets_one_field(setting: str, expected: dict[str, Any]) -> None:
    spec = {"objectives": ["error"]}
    assert override(spec, [setting]) == expected
    assert spec == {"objectives": ["error"]}


@pytest.mark.parametrize(
    "setting", ["budget", "=1", "a..b=1", "objectives.7=error", "objectives.x=1", "name.a.b=1", "a=[1"]
)
def test_override_refuses_what_it_cannot_place(setting: str) -> None:
    with pytest.raises(InvalidSpecError, match="--set"):
        override({"objectives": ["error"], "name": "digits"}, [setting])
