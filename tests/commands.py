"""Runs the two commands of the project in this process, which is fast, or in a separate process."""

import contextlib
import importlib
import io
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

MODULES = {"ensdistill": "ensdistill.cli.main", "ensdistill-tune": "ensdistill_tune.cli.main"}
PROGRAMS = {name: (sys.executable, "-m", name.replace("-", "_")) for name in MODULES}


@dataclass
class Done:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str


def call(name: str, *words: str | Path) -> Done:
    """Runs one command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = importlib.import_module(MODULES[name]).main([str(word) for word in words])
        except SystemExit as stop:  # raised by argparse
            code = int(stop.code or 0)
    return Done(code, out.getvalue(), err.getvalue())


def process(name: str, *words: str | Path) -> Done:
    """Runs one command in a separate process with empty standard input."""
    arguments = [*PROGRAMS[name], *map(str, words)]
    environment = os.environ | {"COLUMNS": "150"}
    done = subprocess.run(
        arguments, capture_output=True, text=True, check=False, env=environment, timeout=300, stdin=subprocess.DEVNULL
    )
    return Done(done.returncode, done.stdout, done.stderr)
