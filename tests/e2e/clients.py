"""A Python that has the client and what a requirements file names, and nothing else; made without a network.

Packages are those of the Python that runs the tests, linked one by one, so that what a file forgets to name is missing.
"""

from __future__ import annotations

import base64
import hashlib
import tomllib
import venv
import zipfile
from collections.abc import Iterable
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PACKAGES = ("api", "migrations", "nas_core", "skyline", "store", "worker")


def python(folder: Path, requirements: Path) -> Path:
    """A virtual environment with pip, and with the named packages and theirs lying ready; returns its folder of
    programs.
    """
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    ready = folder / "ready"
    ready.mkdir()
    lines = (line.partition("#")[0].strip() for line in requirements.read_text(encoding="utf-8").splitlines())
    for name in _closure(["pip", *filter(None, lines)]):
        found = distribution(name)
        for top in {file.parts[0] for file in found.files or [] if file.parts[0] not in ("..", "__pycache__")}:
            if not (ready / top).exists():
                (ready / top).symlink_to(str(found.locate_file(top)))
    (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
    (site / "ready.pth").write_text(f"{ready}\n")
    return folder / "venv" / "bin"


def _closure(wanted: Iterable[str]) -> set[str]:
    """Names of the distributions and of all that they need."""
    names: set[str] = set()
    waiting = [Requirement(text) for text in wanted]
    while waiting:
        requirement = waiting.pop()
        if requirement.name in names or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        names.add(requirement.name)
        waiting += [Requirement(text) for text in distribution(requirement.name).requires or []]
    return names


def wheel(folder: Path) -> Path:
    """Our packages as they would be built; by hand, as a builder would have to be fetched first."""
    name, version = PROJECT["name"].replace("-", "_"), PROJECT["version"]
    info = f"{name}-{version}.dist-info"
    files = {
        path.relative_to(ROOT).as_posix(): path.read_bytes()
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    requires = "".join(f"Requires-Dist: {text}\n" for text in PROJECT["dependencies"])
    files[f"{info}/METADATA"] = (
        f"Metadata-Version: 2.1\nName: {PROJECT['name']}\nVersion: {version}\n{requires}".encode()
    )
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    sections = {"console_scripts": PROJECT["scripts"], **PROJECT["entry-points"]}
    lines = [line for title, entries in sections.items() for line in _section(title, entries)]
    files[f"{info}/entry_points.txt"] = "\n".join(lines).encode()
    record = [f"{path},sha256={_digest(content)},{len(content)}\n" for path, content in files.items()]
    files[f"{info}/RECORD"] = "".join([*record, f"{info}/RECORD,,\n"]).encode()
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for inside, content in files.items():
            archive.writestr(inside, content)
    return path


def _section(title: str, entries: dict[str, str]) -> list[str]:
    return [f"[{title}]", *(f"{name} = {target}" for name, target in entries.items())]


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def environment(programs: Path, **settings: str) -> dict[str, str]:
    """What a process there is given, and nothing of the tests'."""
    home = programs.parent.parent / "home"
    home.mkdir(exist_ok=True)
    pip = {"PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_CACHE_DIR": "1"}
    paths = {"PATH": f"{programs}:/usr/local/bin:/usr/bin:/bin", "HOME": str(home)}
    return {**paths, **pip, "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1", **settings}
