"""``python -m store.migrate``: builds or upgrades the database's tables."""

from __future__ import annotations

import argparse

from store.engine import shown_url
from store.schema import migrate
from store.settings import checked


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m store.migrate", description=__doc__)
    parser.add_argument("--url", help="the database; default: SKYLINE_DATABASE_URL, or the file in SKYLINE_DATA_DIR")
    url = parser.parse_args().url
    checked()
    migrate(url)
    print(f"{shown_url(url)} is up to date")


if __name__ == "__main__":
    main()
