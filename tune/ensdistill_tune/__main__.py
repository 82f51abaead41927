"""Entry point of `python -m ensdistill_tune`, equivalent to the command `ensdistill-tune`."""

from typing import NoReturn

from ensdistill.entry import run_process


def main() -> NoReturn:
    """Runs the command and ends the process with its exit code."""
    run_process("ensdistill_tune.cli.main")


if __name__ == "__main__":
    main()
