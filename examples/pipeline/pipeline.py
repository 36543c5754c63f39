"""A pipeline around a search, in plain Python: submit, wait, gate, pull, try.

    python pipeline.py --require 'error<=30%,params<=40000'

The request is named after the job and the commit (Idempotency-Key), so a second run, after a crash or by a CI that
starts again, goes on with the same job. Exit codes are those of the command `skyline`: 0 done, 1 the job failed,
2 a request or a file that will not do, 3 no service, 4 no network holds the requirements.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from predict import predict

import skyline
from skyline.gates import Gate
from skyline.specs import load

HERE = Path(__file__).parent
DONE, FAILED, USAGE, NO_SERVER, UNMET = range(5)


def main() -> int:
    asked = arguments()
    try:
        with skyline.Client() as client:  # SKYLINE_URL, SKYLINE_API_KEY
            return run(client, asked)
    except skyline.ClientError as error:
        print(f"error: {error}", file=sys.stderr)
        down = isinstance(error, skyline.ApiError) and error.status >= 500
        return NO_SERVER if down or isinstance(error, skyline.ConnectionFailed) else USAGE


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Search a network, gate it, pull it, try it.")
    parser.add_argument("--job", default=HERE / "job.yaml", type=Path, help="the job, YAML or JSON")
    parser.add_argument("--require", default="error<=30%,params<=40000", help="what the network must hold")
    parser.add_argument("--commit", default=os.environ.get("GITHUB_SHA", ""), help="what the job is run for")
    parser.add_argument("--output", default=Path("model.onnx"), type=Path, help="where the model goes")
    return parser.parse_args()


def run(client: skyline.Client, asked: argparse.Namespace) -> int:
    spec = load(asked.job)
    job = client.submit(spec, idempotency_key=name_of(spec, asked.commit))
    say(f"job {job.id} is {job.status}")
    for event in client.watch(job.id):  # goes on where it was when the service restarts
        if event.type == "phase":
            say(event.data.get("phase", ""))
    job = client.job(job.id)
    if job.status != "succeeded":
        print(f"job {job.id} ended as {job.status}: {job.reason}", file=sys.stderr)
        print(f"once that is mended: skyline retry {job.id}, then run this again", file=sys.stderr)
        return FAILED

    gate = client.gate(job.id, asked.require)
    if gate.best is None:
        complain(gate)
        return UNMET
    say(f"{len(gate.passing)} of {gate.members} networks hold {asked.require}; the best by {gate.rule}: {gate.best}")

    model = client.pull(gate.best, "onnx", asked.output)  # waits while the file is made
    predicted, labels = predict(model, HERE / "batch.json")
    right = sum(one == other for one, other in zip(predicted, labels, strict=True))
    say(f"{model} sees {predicted}; the labels are {labels}: {right} of {len(labels)}")
    return DONE


def name_of(spec: Mapping[str, Any], commit: str) -> str:
    """The same for the same job and commit, another for any other."""
    text = json.dumps([spec, commit], sort_keys=True)
    return f"pipeline-{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def complain(gate: Gate) -> None:
    print("no network holds all requirements", file=sys.stderr)
    for miss in gate.misses:
        print(f"  {miss.requirement.text}: the nearest has {miss.value}, {miss.by} off", file=sys.stderr)


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
