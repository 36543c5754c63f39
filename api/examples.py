"""Answers as examples in the OpenAPI document; a test holds them against the schemas."""

from __future__ import annotations

from typing import Any

from skyline.schemas import JobSpec, TransferSpec

JOB_ID = "0b0e4c4e-7f0c-4b53-9f0c-5c4c2f6f2d11"
CANDIDATE_ID = "5d0a4a53-31b5-4f0e-8a53-0a6f2a1f7d10"
AT = "2026-01-31T12:00:00Z"

SPEC: dict[str, Any] = JobSpec.model_config["json_schema_extra"]["examples"][0]  # type: ignore[index, assignment]

TRANSFER: dict[str, Any] = TransferSpec.model_config["json_schema_extra"]["examples"][0]  # type: ignore[index, assignment]

JOB: dict[str, Any] = {
    "id": JOB_ID,
    "name": "digits-edge",
    "status": "verifying",
    "phase": "verifying",
    "progress": 0.62,
    "spec": SPEC,
    "created_at": AT,
    "started_at": AT,
    "ended_at": None,
    "reason": None,
    "waiting_for": None,
    "attempts": [
        {
            "task": "7a4d53d5-1fd0-4e8c-a3e6-9a3d7c1c1f6e",
            "kind": "search",
            "number": 1,
            "worker": "worker-1",
            "device": "cpu",
            "threads": 2,
            "started_at": AT,
            "ended_at": AT,
            "end": "done",
            "exit_signal": None,
            "cpu_seconds": 61.5,
            "gpu_seconds": None,
            "peak_memory_mb": 512.0,
            "peak_gpu_memory_mb": None,
        }
    ],
    "front": {"search": 12, "final": 3},
    "infeasible": None,
    "labels": {"team": "vision"},
}
JOBS: dict[str, Any] = {"items": [JOB], "next": None}
_UNKNOWN = {"value": None, "reason": "not estimated yet"}
ESTIMATE: dict[str, Any] = {
    "valid": True,
    "spec": SPEC,
    "targets": [
        {
            "cells": 5,
            "channels": 8,
            "stem": "cifar",
            "ranges": {
                "params": {
                    "possible": {"floor": 15026, "ceiling": 101938},
                    "bound": {"min": None, "max": 60000.0},
                    "left": {"floor": 15026, "ceiling": 60000},
                    "reason": None,
                }
            },
        }
    ],
    "images": {"train": 575, "validation": 575, "select": 287, "test": 360, "reason": None},
    "search": {"evaluations": 48, "candidates": 48, "trainings": 48, "epochs": 96, "reason": None},
    "verification": {"candidates": 6, "trainings": 6, "epochs": 120},
    "workers": ["worker-1"],
    "waiting_for": None,
    "memory": _UNKNOWN,
    "time": _UNKNOWN,
}

_CELL: dict[str, Any] = {
    "inputs": 2,
    "nodes": 1,
    "reduction": False,
    "combine": "concat",
    "concat": [2],
    "pre": ["conv_1x1", "conv_1x1"],
    "pool_norm": False,
    "width": None,
    "edges": [
        {"target": 2, "source": 0, "op": "sep_conv_3x3"},
        {"target": 2, "source": 1, "op": "skip_connect"},
    ],
}
ARCHITECTURE: dict[str, Any] = {
    "genotype": {"space": "darts", "types": {"normal": _CELL, "reduce": {**_CELL, "reduction": True}}, "masks": None},
    "skeleton": {
        "cells": ["normal", "reduce", "normal"],
        "channels": 8,
        "stem": "cifar",
        "input": [1, 8, 8],
        "classes": 10,
    },
}
_TRAINED = {"value": 0.031, "unit": "", "kind": "trained", "epochs": 20, "seeds": 1}
_SUPERNET = {"value": 0.094, "unit": "", "kind": "supernet"}
_PARAMS = {"value": 23456.0, "unit": "", "kind": "exact"}
CANDIDATE: dict[str, Any] = {
    "id": CANDIDATE_ID,
    "job": JOB_ID,
    "hash": "9f2c1d0e5b7a48c3a1f06e2d4b8c9a7755e3f1d2c4b6a8907f1e2d3c4b5a6978",
    "architecture": ARCHITECTURE,
    "values": {"error": _TRAINED, "params": _PARAMS},
    "search_values": {"error": _SUPERNET, "params": _PARAMS},
    "test": {"error": 0.035, "sd": 0.0097, "n": 360},
    "status": "verified",
    "failure": None,
    "artefacts": ["json", "safetensors"],
    "created_at": AT,
}
EXPORT: dict[str, Any] = {
    "format": "onnx",
    "status": "queued",
    "task": "0b7f8a52-7d1e-4c0e-9b0a-5a8e4f6c2d11",
    "waiting_for": None,
}
CANDIDATES: dict[str, Any] = {"items": [CANDIDATE], "next": None}
TABLE = (
    "number,id,hash,status,stage,target,cells,channels,stem,error,error.kind,error.search,params,params.kind,"
    "params.search,test_error,test_sd,nonzero,failure,genotype\r\n"
    f"1,{CANDIDATE_ID},{CANDIDATE['hash']},verified,final,0,3,8,cifar,0.031,trained,0.094,23456,exact,"
    '23456,0.035,0.0097,,,"{""space"":""darts"",""types"":{}}"\r\n'
)
FRONT: dict[str, Any] = {
    "job": JOB_ID,
    "kind": "final",
    "version": 3,
    "objectives": [
        {"key": "error", "unit": "", "direction": "minimize", "kind": "trained"},
        {"key": "params", "unit": "", "direction": "minimize", "kind": "exact"},
    ],
    "reference_point": {"error": 0.9, "params": 60000.0},
    "hypervolume": 31755.2,
    "knee": CANDIDATE_ID,
    "members": [CANDIDATE],
    "next": None,
    "infeasible": None,
}
EVENTS: dict[str, Any] = {
    "items": [
        {"seq": 1, "at": AT, "type": "phase", "data": {"status": "queued", "phase": "queued"}},
        {"seq": 2, "at": AT, "type": "progress", "data": {"progress": 0.1, "epoch": 1}},
    ],
    "next": 2,
}
LOG: dict[str, Any] = {
    "items": [
        {
            "id": 17,
            "task": "7a4d53d5-1fd0-4e8c-a3e6-9a3d7c1c1f6e",
            "kind": "verify",
            "candidate": CANDIDATE_ID,
            "attempt": 1,
            "offset": 0,
            "at": AT,
            "text": "2026-01-31 12:00:00,000 INFO worker.verify: epoch 1 of 20\n",
        }
    ],
    "next": 17,
}
REGISTRATION: dict[str, Any] = {
    "name": "leaves",
    "dataset": {"name": "imagefolder", "path": "leaves", "size": 64},
    "description": "Photographs of leaves by species, 2026",
}
DATASET: dict[str, Any] = {
    "name": "leaves",
    "dataset": {"name": "imagefolder", "path": "leaves", "size": 64, "workers": 2, "flip": False},
    "description": "Photographs of leaves by species, 2026",
    "created_at": AT,
    "input": [3, 64, 64],
    "classes": 6,
    "images": {"train": 240, "test": 60},
    "workers": [
        {
            "worker": "worker-1",
            "live": True,
            "present": True,
            "downloadable": False,
            "input": [3, 64, 64],
            "classes": 6,
            "images": {"train": 240, "test": 60},
            "note": "",
        }
    ],
}
DATASETS: dict[str, Any] = {"items": [DATASET], "next": None}
TABULATION: dict[str, Any] = {
    "name": "nb201",
    "space": {"name": "nasbench201"},
    "input": [3, 32, 32],
    "classes": 10,
    "columns": {
        "c10_valid_acc": {"unit": "%", "direction": "maximize"},
        "hw_raspi4_lat_ms": {"unit": "ms", "direction": "minimize"},
    },
    "csv": "arch,c10_valid_acc,hw_raspi4_lat_ms\n"
    "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|,81.98,10.48\n",
    "partial": True,
}
TABULATED: dict[str, Any] = {
    "name": "nb201",
    "sha256": "9d3e0f8d9a41a6ea4e0e4ed9a2f4ad1e4b3b3c1f4c5d6e7f8091a2b3c4d5e6f7",
    "space": {"name": "nasbench201", "cells": 17, "channels": 16, "stem": "auto", "normal_ops": ["none", "conv_3x3"]},
    "skeleton": {
        "cells": ["normal", "reduce", "normal", "reduce", "normal"],
        "channels": 16,
        "stem": "cifar",
        "input": [3, 32, 32],
        "classes": 10,
        "frame": "residual",
    },
    "key": "arch",
    "columns": [
        {"name": "c10_valid_acc", "unit": "%", "direction": "maximize", "low": 40.4, "high": 91.6, "says": "accuracy"},
        {"name": "hw_raspi4_lat_ms", "unit": "ms", "direction": "minimize", "low": 3.2, "high": 98.0, "says": None},
    ],
    "rows": 15284,
    "left_out": 341,
    "missing": 0,
    "partial": False,
    "description": "",
    "created_at": AT,
}
TABLES: dict[str, Any] = {"items": [TABULATED], "next": None}
PROFILE: dict[str, Any] = {
    "name": "desk-pi",
    "device": "cpu:Cortex-A72",
    "protocol": {"batch": 1, "threads": 4, "dtype": "float32", "runtime": "torch 2.13.0"},
    "parts": [
        {"op": "sep_conv_3x3", "inputs": 16, "outputs": 16, "size": [32, 32], "ms": 1.84},
        {"op": "add", "inputs": 16, "outputs": 16, "size": [32, 32], "ms": 0.031, "mj": 0.09},
    ],
    "power_w": 4.2,
    "latency": {"scale": 1.06, "offset": 0.4, "n": 24},
    "latency_validation": [
        {
            "space": "darts",
            "cells": 8,
            "channels": 16,
            "input": [3, 32, 32],
            "classes": 10,
            "n": 40,
            "tau": 0.91,
            "mape": 3.2,
            "tau_repeat": 0.95,
        }
    ],
    "measured_at": AT,
}
DEVICE: dict[str, Any] = {
    "name": "desk-pi",
    "sha256": "3c1ab7a9de7e9d3c2b6c9f8c0f9f5d6d6a6cf2ad9b0df3c7e1ad3f0f7a1c7b10",
    "created_at": AT,
    "device": "cpu:Cortex-A72",
    "protocol": PROFILE["protocol"],
    "parts": 2,
    "predicts": ["latency_ms", "energy_mj"],
    "power_w": 4.2,
    "latency_validation": PROFILE["latency_validation"],
    "energy_validation": [],
    "measured_at": AT,
    "notes": "",
}
DEVICES: dict[str, Any] = {"items": [DEVICE], "next": None}
STREAM = 'id: 2\nevent: progress\ndata: {"seq":2,"at":"2026-01-31T12:00:00Z","type":"progress","data":{"epoch":1}}\n\n'
CATALOG: dict[str, Any] = {
    "spaces": [],
    "algorithms": [
        {
            "kind": "algorithm",
            "name": "random",
            "summary": "Uniform samples of the space.",
            "settings": {"type": "object", "properties": {}, "additionalProperties": False},
            "facts": {"spaces": ["darts"]},
            "workers": {},
        }
    ],
    "objectives": [],
    "datasets": [],
    "presets": [
        {
            "name": "small-darts",
            "summary": "A small search for a first look.",
            "source": "ours",
            "job": {"space": {"name": "darts", "cells": 5, "channels": 8}, "algorithm": {"name": "random"}},
        }
    ],
    "devices": [],
    "workers": [
        {
            "name": "worker-1",
            "host": "desk",
            "device": "cpu",
            "queues": ["search.cpu", "verify.cpu", "measure.cpu"],
            "threads": 2,
            "memory_gb": 8.0,
            "versions": {"torch": "2.13.0"},
            "started_at": AT,
            "seen_at": AT,
            "live": True,
            "plugins": [
                {"name": "carbon.py", "adds": ["objective 'carbon'"], "error": None},
                {"name": "birds.py", "adds": [], "error": "SyntaxError: invalid syntax (birds.py, line 3)"},
            ],
        }
    ],
}
