"""What every error has to look like."""

from __future__ import annotations

import httpx

from skyline.schemas import Problem


def problem(response: httpx.Response, status: int) -> Problem:
    """The problem document of an answer that has to be one with this status."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    found = Problem.model_validate_json(response.content)
    assert found.status == status
    assert found.detail
    assert found.instance == response.request.url.path
    return found


def paths(found: Problem) -> list[str]:
    return [error.path for error in found.errors]
