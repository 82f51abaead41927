"""Entry point of `python -m ensdistill_tune`, equivalent to the command `ensdistill-tune`."""

import sys

from ensdistill.entry import run


def main() -> int:
    """Runs the command and returns its exit code."""
    return run("ensdistill_tune.cli.main")


if __name__ == "__main__":
    sys.exit(main())
