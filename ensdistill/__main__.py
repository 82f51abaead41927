"""Entry point of `python -m ensdistill`, which is equivalent to the command `ensdistill`."""

from typing import NoReturn

from ensdistill.entry import run_process


def main() -> NoReturn:
    """Runs the command and ends the process with its exit code."""
    run_process("ensdistill.cli.main")


if __name__ == "__main__":
    main()
