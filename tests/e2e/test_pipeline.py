"""The pipeline of ``examples/pipeline`` as a team runs it: in Python, and by the commands of its CI workflow."""

from __future__ import annotations

import ast
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from api.embedded import Embedded
from skyline.client import Client
from tests.e2e import clients

EXAMPLE = clients.ROOT / "examples" / "pipeline"
WORKFLOW = EXAMPLE / "ci-workflow.yml"
JOB: dict[str, Any] = yaml.safe_load(WORKFLOW.read_text())["jobs"]["search"]
SECONDS = 180.0
DONE, FAILED, USAGE, NO_SERVER, UNMET = range(5)


# --- the files --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(find_spec("check_jsonschema") is None, reason="extra 'deploy' is not installed")
def test_the_workflow_meets_its_schema() -> None:
    argv = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(WORKFLOW)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_expression_stands_in_a_script() -> None:
    """What a branch or a variable is called must not become part of a program."""
    assert all("${{" not in step.get("run", "") for step in JOB["steps"])


def test_the_trial_needs_neither_skyline_nor_torch() -> None:
    tree = ast.parse((EXAMPLE / "predict.py").read_text())
    roots = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    roots |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in roots} - set(sys.stdlib_module_names) == {"numpy", "onnxruntime"}


# --- a service, and a machine that asks it ----------------------------------------------------------------------------


@dataclass
class Machine:
    """A CI's machine: the repository's example, a Python with the client, the address and the key of a service."""

    folder: Path
    url: str
    secret: str
    programs: Path
    package: Path
    added: dict[str, str] = field(default_factory=dict)
    """What steps wrote into GITHUB_ENV."""

    @property
    def example(self) -> Path:
        return self.folder / "examples" / "pipeline"

    def environment(self) -> dict[str, str]:
        return clients.environment(self.programs, SKYLINE_URL=self.url, SKYLINE_API_KEY=self.secret)

    def pipeline(self, *arguments: str) -> subprocess.Popen[str]:
        argv = [str(self.programs / "python"), "pipeline.py", *arguments]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(argv, cwd=self.example, env=self.environment(), text=True, **pipes)

    def step(self, name: str, **changes: str) -> subprocess.CompletedProcess[str]:
        """Runs a step of the workflow as its runner would."""
        (step,) = (step for step in JOB["steps"] if step.get("name") == name)
        noted = self.folder / "github-env"
        noted.touch()
        env = {key: self.filled(value) for key, value in {**JOB["env"], **step.get("env", {})}.items()}
        env = {**self.environment(), **env, "GITHUB_SHA": "5" * 40, "GITHUB_ENV": str(noted), **self.added, **changes}
        shell = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]  # that of `shell: bash`
        where = self.folder / JOB["defaults"]["run"]["working-directory"]
        done = subprocess.run(shell, cwd=where, env=env, capture_output=True, text=True, timeout=SECONDS, check=False)
        self.added |= dict(line.split("=", 1) for line in noted.read_text().splitlines())
        return done

    def filled(self, text: str) -> str:
        """A value with the repository's settings in it."""
        known: Mapping[str, str] = {
            "secrets.SKYLINE_URL": self.url,
            "secrets.SKYLINE_API_KEY": self.secret,
            "vars.SKYLINE_PACKAGE": str(self.package),
        }
        return re.sub(r"\$\{\{ *([\w.]+) *\}\}", lambda found: known[found[1]], text)


@pytest.fixture(scope="module")
def service() -> Iterator[tuple[str, str]]:
    """Address of a service that asks for keys, and one with scope submit."""
    folder = Path(tempfile.mkdtemp(prefix="skyline-"))
    argv = [sys.executable, "-m", "skyline", "keys", "create", "ci", "--scope", "submit", "--json"]
    made = subprocess.run([*argv, "--data-dir", str(folder)], capture_output=True, text=True, check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SKYLINE_KEYS", "required")
        patch.setenv("TMPDIR", str(folder))  # it measures nothing, and does not pause while another service does
        with Embedded(folder, port=0, workers=1, threads=1) as embedded:
            yield embedded.url, json.loads(made.stdout)["key"]
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def machine(service: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """With the client installed by the workflow's own step."""
    folder = tmp_path_factory.mktemp("machine")
    shutil.copytree(EXAMPLE, folder / "examples" / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    programs = clients.python(folder, EXAMPLE / "requirements.txt")
    made = Machine(folder, *service, programs, clients.wheel(folder))
    installed = made.step("Install the client")
    assert installed.returncode == DONE, installed.stdout + installed.stderr
    assert (programs / "skyline").is_file()
    assert not (folder / "ready" / "torch").exists(), "requirements.txt is for machines that only ask"
    return made


def jobs_of(machine: Machine) -> list[str]:
    with Client(machine.url, machine.secret) as client:
        return [str(job.id) for job in client.jobs()]


# --- in Python --------------------------------------------------------------------------------------------------------


@pytest.mark.e2e
def test_the_pipeline_runs_from_submit_to_a_prediction(machine: Machine) -> None:
    before = len(jobs_of(machine))
    killed = machine.pipeline("--commit", "one")
    assert killed.stdout is not None
    first = killed.stdout.readline()
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    (job,) = re.findall(r"^job (\S+) is queued$", first)

    again = machine.pipeline("--commit", "one")
    said, complaint = again.communicate(timeout=SECONDS)
    assert again.returncode == DONE, said + complaint
    assert said.startswith(f"job {job} is "), "killed and started again: the same job"
    assert re.search(r"\d of \d networks hold error<=30%,params<=40000; the best by least error: ", said)
    seen = re.search(r"^model\.onnx sees (\[.*\]); the labels are (\[.*\]): (\d) of 8$", said, re.MULTILINE)
    assert seen is not None, said
    predicted, labels = (json.loads(seen[number]) for number in (1, 2))
    assert labels == [0, 1, 2, 3, 4, 5, 6, 7] and len(predicted) == 8
    assert sum(one == other for one, other in zip(predicted, labels, strict=True)) == int(seen[3]) >= 4
    model = (machine.example / "model.onnx").read_bytes()

    unmet = machine.pipeline("--commit", "one", "--require", "error<=30%,params<=100", "--output", "none.onnx")
    said, complaint = unmet.communicate(timeout=SECONDS)
    assert unmet.returncode == UNMET, said + complaint
    assert said.startswith(f"job {job} is succeeded\n"), "another requirement: the same job"
    assert re.search(r"^  params<=100: the nearest has \d+\.0, \d+\.0 off$", complaint, re.MULTILINE)
    assert not (machine.example / "none.onnx").exists()

    last = machine.pipeline("--commit", "one", "--output", "again.onnx")
    said, complaint = last.communicate(timeout=SECONDS)
    assert last.returncode == DONE, said + complaint
    assert said.startswith(f"job {job} is succeeded\n")
    assert (machine.example / "again.onnx").read_bytes() == model
    assert len(jobs_of(machine)) == before + 1


@pytest.mark.e2e
def test_the_pipeline_ends_with_what_went_wrong(machine: Machine) -> None:
    (machine.example / "bad.yaml").write_text((EXAMPLE / "job.yaml").read_text().replace("random", "rnadom"))
    refused = machine.pipeline("--job", "bad.yaml")
    _, complaint = refused.communicate(timeout=SECONDS)
    assert refused.returncode == USAGE and "unknown algorithm 'rnadom'" in complaint
    alone = Machine(machine.folder, "http://127.0.0.1:9", machine.secret, machine.programs, machine.package)
    away = alone.pipeline()
    _, complaint = away.communicate(timeout=SECONDS)
    assert away.returncode == NO_SERVER and "no Skyline service answers" in complaint

    spec = yaml.safe_load((EXAMPLE / "job.yaml").read_text()) | {"resources": {"device": "cuda"}}
    (machine.example / "gpu.json").write_text(json.dumps(spec))
    waiting = machine.pipeline("--job", "gpu.json")
    assert waiting.stdout is not None
    job = waiting.stdout.readline().split()[1]
    with Client(machine.url, machine.secret) as client:
        client.cancel(job)
    _, complaint = waiting.communicate(timeout=SECONDS)
    assert waiting.returncode == FAILED
    assert f"job {job} ended as cancelled: " in complaint and f"skyline retry {job}" in complaint


# --- by the workflow --------------------------------------------------------------------------------------------------


@pytest.mark.e2e
def test_the_workflow_runs_from_submit_to_a_prediction(machine: Machine) -> None:
    named = [step["name"] for step in JOB["steps"] if "run" in step]
    assert named == ["Install the client", "Check the job", "Submit", "Wait", "Gate", "Pull", "Try"]
    said = {}
    for name in named[1:]:
        done = machine.step(name)
        assert done.returncode == DONE, f"{name}: {done.stdout}{done.stderr}"
        said[name] = done.stdout
    assert "the job is valid; nothing was posted" in said["Check the job"]
    job = machine.added["JOB"]
    assert f"job {job[:8]} succeeded" in said["Wait"]
    assert "the best of them, by least error: " in said["Gate"]
    assert machine.added["BEST"].startswith(said["Gate"].split()[-1])
    assert re.search(r"^predicted \[\d(, \d){7}\]$", said["Try"], re.MULTILINE)

    count = len(jobs_of(machine))
    assert machine.step("Submit").returncode == DONE
    assert (machine.added["JOB"], len(jobs_of(machine))) == (job, count), "started again: the same job"
    unmet = machine.step("Gate", REQUIRE="params<=100")
    assert unmet.returncode == UNMET
    assert re.search(r"params<=100: it has [\d,]+, which misses by [\d,]+, [\d,]+ % of the bound$", unmet.stdout)

    (upload,) = (step["with"]["path"] for step in JOB["steps"] if "upload-artifact" in step.get("uses", ""))
    for path in upload.split():
        assert (machine.folder / path).stat().st_size > 0
