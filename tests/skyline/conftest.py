from __future__ import annotations

from collections.abc import Iterator

import pytest

from skyline.client import Client
from tests.skyline.scripted import Script, serving


@pytest.fixture
def script() -> Iterator[Script]:
    with serving(Script()) as running:
        yield running


@pytest.fixture
def client(script: Script) -> Iterator[Client]:
    with Client(script.url) as made:
        yield made
