"""A job on the space nasbench201 through the real service, from an arch string to a file and another size."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.embedded import Embedded
from nas_core.architecture import Architecture
from nas_core.costs import count
from nas_core.spaces.nasbench201 import to_arch
from skyline import ApiError, Client

pytestmark = pytest.mark.e2e

SECONDS = 150.0
ARCH = "|nor_conv_3x3~0|+|none~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_1x1~1|nor_conv_3x3~2|"
DEAD = "|none~0|+|none~0|nor_conv_3x3~1|+|none~0|none~1|nor_conv_3x3~2|"


@pytest.fixture(scope="module")
def client(shared_service: Embedded) -> Iterator[Client]:
    with Client(shared_service.url) as made:
        yield made


def spec(**changes: Any) -> dict[str, Any]:
    return {
        "space": {"name": "nasbench201", "cells": 5, "channels": 2},
        "dataset": {"name": "digits", "fraction": 0.5},
        "objectives": ["error", "params"],
        "algorithm": {"name": "nsga2", "population": 4, "evaluate": {"supernet_epochs": 1, "batch": 32}},
        "seed_genotypes": [{"arch": ARCH}],
        "budget": {"evaluations": 6},
        "verify": {"top": 6, "epochs": 1, "batch": 32, "lr": 0.1},
        **changes,
    }


@pytest.mark.parametrize(
    ("changes", "path", "words"),
    [
        ({"seed_genotypes": [{"arch": DEAD}]}, "/seed_genotypes/0", "does not connect its input with its output"),
        ({"seed_genotypes": [{"arch": "|x~0|"}]}, "/seed_genotypes/0", "is no cell of NAS-Bench-201"),
        ({"space": {"name": "nasbench201", "cells": 6}}, "/space", "three equal stages and two reduction blocks"),
        ({"target": {"cells": 6}}, "/target", "three equal stages and two reduction blocks"),
        ({"constraints": {"params": {"max": 100}}}, "/constraints/params/max", "the least any network has"),
    ],
)
def test_what_cannot_run_is_refused_when_it_is_posted(
    client: Client, changes: dict[str, Any], path: str, words: str
) -> None:
    with pytest.raises(ApiError) as refused:
        client.submit(spec(**changes))
    assert refused.value.status == 422
    assert words in str(refused.value)
    assert path in [fault.path for fault in refused.value.problem.errors]


def test_a_job_its_files_and_the_same_network_at_another_size(client: Client, tmp_path: Path) -> None:
    job = client.wait(client.submit(spec()).id, timeout=SECONDS)
    assert (job.status, job.reason) == ("succeeded", None)
    known = {to_arch(Architecture.from_json(found.architecture).genotype): found for found in client.candidates(job.id)}
    assert ARCH in known and DEAD not in known
    member = known[ARCH]
    assert member.status == "verified"
    architecture = Architecture.from_json(member.architecture)
    assert member.values["params"].value == count(architecture).params
    assert client.pull(member.id, "onnx", tmp_path / "net.onnx").stat().st_size > 1000
    deeper = client.verify(member.id, target={"cells": 8, "channels": 4}, verify={"epochs": 1, "batch": 32})
    ended = client.wait(deeper.id, timeout=SECONDS)
    assert (ended.status, ended.reason) == ("succeeded", None)
    (found,) = client.front(ended.id, kind="final").members
    larger = Architecture.from_json(found.architecture)
    assert (larger.genotype, len(larger.skeleton.cells), larger.skeleton.frame) == (
        architecture.genotype,
        8,
        "residual",
    )
