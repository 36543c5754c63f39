"""The files that make a server, checked without an engine; tests/e2e/test_server.py runs their commands."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from store.settings import Settings
from tests.deploy import composefile
from tests.deploy.composefile import COMPOSE, PASSWORDS, ROOT, MissingVariableError, Stage, seconds
from worker import preflight, quiet
from worker.identity import Identity
from worker.supervise import GRACE_SECONDS

DOCKERFILE = ROOT / "deploy" / "Dockerfile"
STAGES = composefile.stages(DOCKERFILE)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SERVICES: dict[str, Any] = composefile.load(**PASSWORDS)["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"].startswith("skyline-")}
WORKERS = {name: service for name, service in OURS.items() if name.startswith("worker")}
IMAGES = ("api", "worker-cpu", "worker-cuda")
SETTINGS = {
    (cls.model_config.get("env_prefix", "") + field).upper()
    for cls in (Settings, Identity)
    for field in cls.model_fields
}
BIN = Path(sys.executable).parent


# --- checkers of others -----------------------------------------------------------------------------------------------


@pytest.mark.skipif(find_spec("check_jsonschema") is None, reason="extra 'deploy' is not installed")
def test_the_compose_file_meets_its_schema() -> None:
    argv = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("hadolint", path=str(BIN)) is None, reason="hadolint has no wheel for this machine")
def test_the_linter_of_dockerfiles_finds_nothing() -> None:
    done = subprocess.run([BIN / "hadolint", "--no-color", DOCKERFILE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# --- variables and secrets --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(PASSWORDS))
def test_without_a_password_it_refuses_and_says_where_to_set_it(name: str) -> None:
    for others in ({key: value for key, value in PASSWORDS.items() if key != name}, {**PASSWORDS, name: ""}):
        with pytest.raises(MissingVariableError, match=rf"{name}: .*\.env\.example"):
            composefile.load(**others)


def test_no_secret_is_written_down() -> None:
    raw = yaml.safe_load(COMPOSE.read_text())["services"]
    secret = re.compile("PASSWORD|AUTH|SECRET|TOKEN|KEY(?!S$)")  # SKYLINE_KEYS says whether keys are asked for
    for service in raw.values():
        for name, value in service.get("environment", {}).items():
            assert not secret.search(name) or value.startswith("${BROKER_PASSWORD:?") or name == "POSTGRES_PASSWORD"
    assert raw["postgres"]["environment"]["POSTGRES_PASSWORD"].startswith("${POSTGRES_PASSWORD:?")
    after = raw["broker"]["command"].index("--requirepass") + 1
    assert raw["broker"]["command"][after].startswith("${BROKER_PASSWORD:?")
    assert not [line for stage in STAGES.values() for line in stage.of("ENV") + stage.of("ARG") if secret.search(line)]
    assert {".env", "artefacts.env"} <= set((ROOT / ".gitignore").read_text().splitlines())


def test_the_example_names_every_variable() -> None:
    example = (ROOT / ".env.example").read_text()
    named = set(re.findall(r"^(?:# )?([A-Z_]+)=", example, re.MULTILINE))
    asked = composefile.variables_of(COMPOSE.read_text())
    assert named <= asked
    assert {name for name in asked - named if not name.startswith("SKYLINE_")} == set()
    assert re.findall(r"^[A-Z_]+=(.+)$", example, re.MULTILINE) == [], "it sets nothing"


def test_every_setting_that_is_passed_exists() -> None:
    for name, service in OURS.items():
        passed = {key for key in service["environment"] if key.startswith("SKYLINE_")}
        assert passed <= SETTINGS, f"{name}: {passed - SETTINGS}"
    baked = re.findall(r"\bSKYLINE_\w+", "\n".join(line for stage in STAGES.values() for line in stage.of("ENV")))
    assert set(baked) <= SETTINGS


def test_every_tuning_setting_can_be_passed() -> None:
    folders = {"DATA_DIR", "DATA_ROOT", "ARTEFACT_DIR", "CHECKPOINT_DIR", "LOG_DIR", "DATABASE_URL", "BROKER_URL"}
    tuning = {f"SKYLINE_{field.upper()}" for field in Settings.model_fields if field.upper() not in folders}
    for name, service in OURS.items():
        assert tuning <= set(service["environment"]), f"{name} lacks {tuning - set(service['environment'])}"
    chosen = composefile.load(**PASSWORDS, SKYLINE_LEASE_SECONDS="77")["services"]["worker"]["environment"]
    assert chosen["SKYLINE_LEASE_SECONDS"] == "77"


@pytest.mark.parametrize("name", sorted(OURS))
def test_the_settings_are_those_that_the_environment_gives(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in OURS[name]["environment"].items():
        monkeypatch.setenv(key, str(value))
    found = Settings()
    assert found.database_url.startswith(f"postgresql://skyline:{PASSWORDS['POSTGRES_PASSWORD']}@postgres:5432/skyline")
    assert found.broker_url == f"redis://:{PASSWORDS['BROKER_PASSWORD']}@broker:6379/0"
    assert found.lease_seconds == Settings.model_fields["lease_seconds"].default, "empty means the default"
    wanted = {"worker-gpu": "cuda:0"}.get(name, "cpu")
    assert Identity().device == wanted and Identity().name.endswith(wanted.replace(":", ""))


# --- commands ---------------------------------------------------------------------------------------------------------


def commands() -> dict[str, list[str]]:
    """Every command line of ours, by where it stands."""
    found = {f"{name}'s command": service["command"] for name, service in OURS.items()}
    found |= {f"{name}'s health check": service["healthcheck"]["test"][1:] for name, service in WORKERS.items()}
    return found | {f"CMD of {image}": json.loads(STAGES[image].of("CMD")[0]) for image in IMAGES}


@pytest.mark.slow
def test_every_command_is_understood_by_its_program() -> None:
    for argv in {tuple(argv) for argv in commands().values()}:
        program = [sys.executable if argv[0] == "python" else str(BIN / argv[0]), *argv[1:], "--help"]
        done = subprocess.run(program, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{argv}: {done.stderr}"
        options = [word for word in argv[1:] if word.startswith("--")]
        assert all(option in done.stdout for option in options), f"{argv}: {done.stdout}"


def test_commands_take_signals_themselves() -> None:
    for where, argv in commands().items():
        assert isinstance(argv, list) and argv[0] in ("python", "uvicorn", "skyline"), f"{where}: no shell in between"
    assert not any(stage.of("ENTRYPOINT") for stage in STAGES.values())


# --- what lies where --------------------------------------------------------------------------------------------------


def test_everything_that_is_copied_exists_and_is_let_through() -> None:
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = set()
    for stage in STAGES.values():
        for line in stage.of("COPY"):
            *sources, _ = line.split()
            if not line.startswith("--from="):
                copied |= set(sources)
            else:
                assert sources[0].removeprefix("--from=") in STAGES
    assert copied == let_through
    assert all((ROOT / path).exists() for path in copied)
    packages = {pattern.rstrip("*") for pattern in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]}
    assert packages <= copied


def test_every_target_is_a_stage() -> None:
    built = {service["build"]["target"]: service["image"] for service in OURS.values() if "build" in service}
    assert built == {image: f"skyline-{image}" for image in IMAGES}, "each image is built by one service"
    assert {service["image"] for service in OURS.values()} == set(built.values())
    for service in OURS.values():
        assert service["pull_policy"] == ("build" if "build" in service else "never"), (
            "no stranger's image of that name"
        )
        assert (ROOT / service.get("build", {}).get("dockerfile", "deploy/Dockerfile")).samefile(DOCKERFILE)
        for argument in service.get("build", {}).get("args", {}):
            build = STAGES[f"build-{service['build']['target']}"]
            assert build.of("ARG") == [f"{argument}={service['build']['args'][argument]}"], "one default, written twice"


def test_python_is_the_version_that_is_checked() -> None:
    (version,) = [line.split("=")[1] for line in STAGES[""].of("ARG") if line.startswith("PYTHON_VERSION=")]
    assert version == PROJECT["project"]["requires-python"].removeprefix(">=")
    assert version == PROJECT["tool"]["mypy"]["python_version"]
    assert "py" + version.replace(".", "") == PROJECT["tool"]["ruff"]["target-version"]
    assert STAGES["base"].parent == "python:${PYTHON_VERSION}-slim-bookworm"


def test_volumes_hold_what_is_shared_and_belong_to_the_user() -> None:
    (user,) = STAGES["runtime"].of("USER")
    uid = user.split(":")[0]
    made = " ".join(STAGES["runtime"].of("RUN"))
    assert f"--uid {uid}" in made
    below = Settings(data_dir=Path("/var/lib/skyline"))
    folders = {str(path) for path in (below.artefact_dir, below.checkpoint_dir, below.log_dir, below.data_root)}
    locks = f"/tmp/skyline-{uid}"
    for name, service in WORKERS.items():
        mounted = {volume.split(":")[1] for volume in service["volumes"]}
        assert mounted == folders | {locks}, name
    assert OURS["api"]["volumes"] == ["artefacts:/var/lib/skyline/artefacts"]
    for path in folders | {locks}:
        assert f" {path}" in made, f"the image has no {path}, so its volume would belong to root"
    named = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert named == set(composefile.load(**PASSWORDS)["volumes"])


def test_the_locks_of_a_host_lie_in_the_volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(os, "getuid", lambda: 10001)
    quiet.Room().close()
    assert [path.name for path in tmp_path.iterdir()] == ["skyline-10001"]


# --- who waits for whom, who may what ---------------------------------------------------------------------------------


def test_nobody_starts_before_the_tables_are_there() -> None:
    assert SERVICES["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert SERVICES["migrate"]["restart"] == "no"
    for name in ("api", *WORKERS):
        assert OURS[name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
        assert OURS[name]["depends_on"]["broker"] == {"condition": "service_healthy"}
    for name, service in SERVICES.items():
        if name != "migrate":
            assert service["restart"] == "unless-stopped" and "healthcheck" in service, name


def test_a_worker_has_time_to_put_its_task_back() -> None:
    drain = Settings().heartbeat_seconds + GRACE_SECONDS
    assert 2 * drain < 30
    for service in WORKERS.values():
        assert seconds(service["stop_grace_period"]) > 30
        assert seconds(service["healthcheck"]["start_period"]) > preflight.PATIENCE_SECONDS


def test_only_this_machine_reaches_it() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"api": ["127.0.0.1:8765:8765"]}


@pytest.mark.parametrize("name", sorted(OURS))
def test_our_containers_may_write_nowhere_else(name: str) -> None:
    service = OURS[name]
    assert service["read_only"] and service["cap_drop"] == ["ALL"] and service["init"]
    assert (
        service["security_opt"] == ["no-new-privileges:true"] and "user" not in service and "privileged" not in service
    )


def test_a_gpu_worker_is_asked_for_and_has_one_gpu() -> None:
    assert [name for name, service in SERVICES.items() if service.get("profiles")] == ["worker-gpu"]
    (device,) = SERVICES["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "device_ids": ["0"], "capabilities": ["gpu"]}
    other = composefile.load(**PASSWORDS, GPU="GPU-1b2c")["services"]["worker-gpu"]
    assert other["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"] == ["GPU-1b2c"]


# --- the image without PyTorch ----------------------------------------------------------------------------------------


EXTRAS = PROJECT["project"]["optional-dependencies"]


def left_out(stage: Stage) -> list[str]:
    (found,) = re.findall(r"requirements\.py --without ([\w ]+)>", " ".join(stage.of("RUN")))
    return str(found).split()


def test_the_layer_of_dependencies_has_all_but_what_is_left_out() -> None:
    argv = [sys.executable, ROOT / "deploy" / "requirements.py", "--without"]
    done = subprocess.run([*argv, *left_out(STAGES["build"])], cwd=ROOT, capture_output=True, text=True, check=True)
    wanted = PROJECT["project"]["dependencies"]
    assert done.stdout.splitlines() == [line for line in wanted if not line.startswith("torch>")]
    refused = subprocess.run([*argv, "torchh"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert refused.returncode == 2 and "does not ask for torchh" in refused.stderr


@pytest.mark.parametrize(("stage", "extras"), [("build-worker-cpu", ["onnx"]), ("build-worker-cuda", ["onnx", "gpu"])])
def test_workers_can_write_every_format(stage: str, extras: list[str]) -> None:
    (found,) = re.findall(r"requirements\.py --extras ([\w ]+)>", " ".join(STAGES[stage].of("RUN")))
    assert found.split() == extras
    argv = [sys.executable, ROOT / "deploy" / "requirements.py", "--extras"]
    done = subprocess.run([*argv, *extras], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [line for name in extras for line in EXTRAS[name]]
    refused = subprocess.run([*argv, "onnyx"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert refused.returncode == 2 and "no extra onnyx; it has" in refused.stderr


@pytest.mark.slow
def test_the_api_runs_without_what_is_left_out() -> None:
    missing = left_out(STAGES["build"])
    code = f"import sys; sys.modules.update(dict.fromkeys({missing})); import api.app, store.migrate, skyline.cli"
    subprocess.run([sys.executable, "-c", code], check=True)
