"""What a user pays for ``import skyline`` and ``skyline --help``."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "fastapi", "sqlalchemy", "celery", "numpy", "alembic")


@pytest.mark.slow
@pytest.mark.parametrize(
    "statement",
    [
        "import skyline; skyline.Client",
        "import skyline.schemas",
        "import api.commands, worker.commands",
        "import sys; sys.argv[1:] = ['--help']\ntry: skyline.cli.main()\nexcept SystemExit: pass",
        "import sys; sys.argv[1:] = ['serve', '--help']\ntry: skyline.cli.main()\nexcept SystemExit: pass",
    ],
)
def test_nothing_heavy_is_imported(statement: str) -> None:
    code = f"import skyline.cli\n{statement}\nimport sys; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_needs_no_http_library() -> None:
    code = "import skyline.cli, sys; skyline.cli.build(); print('httpx' in sys.modules, 'pydantic' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["False", "False"]
