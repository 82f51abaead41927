"""Entry point of `python -m ensdistill`, which is equivalent to the command `ensdistill`."""

import sys

from ensdistill.entry import run


def main() -> int:
    """Runs the command and returns its exit code."""
    return run("ensdistill.cli.main")


if __name__ == "__main__":
    sys.exit(main())
