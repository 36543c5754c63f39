"""Prints what pyproject.toml asks for, one a line; ``--without NAME ...`` leaves packages out of an image, ``--extras
NAME ...`` prints what those extras ask for instead.

So the layer with the dependencies depends on two files and not on the code.
"""

from __future__ import annotations

import argparse
import re
import tomllib
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--without", nargs="*", default=[], metavar="NAME", help="packages that the image lacks")
    parser.add_argument("--extras", nargs="*", default=[], metavar="NAME", help="what these extras ask for, alone")
    given = parser.parse_args()
    without = {name.lower() for name in given.without}
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    if unknown := set(given.extras) - set(extras):
        parser.error(f"pyproject.toml has no extra {', '.join(sorted(unknown))}; it has {', '.join(extras)}")
    wanted = [line for name in given.extras for line in extras[name]] or project["dependencies"]
    names = [re.split(r"[^\w.-]", requirement, maxsplit=1)[0].lower() for requirement in wanted]
    if unknown := without - set(names):
        parser.error(f"pyproject.toml does not ask for {', '.join(sorted(unknown))}")
    print("\n".join(line for name, line in zip(names, wanted, strict=True) if name not in without))


if __name__ == "__main__":
    main()
