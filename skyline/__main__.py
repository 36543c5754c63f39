"""``python -m skyline`` is the ``skyline`` command."""

from skyline.cli import main

if __name__ == "__main__":
    main()
