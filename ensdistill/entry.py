"""Entry point of the commands: imports a command and reports a failed import in one line.

This module imports only the standard library, so it can print a readable message if a command cannot be imported.
"""

import atexit
import contextlib
import importlib
import os
import sys
import sysconfig
import traceback
from importlib.machinery import PathFinder
from typing import NoReturn

TRACEBACK = "ENSDISTILL_TRACEBACK"  # environment variable; if set, the traceback of an unexpected error is printed


def run_process(module: str) -> NoReturn:
    """Runs a command and ends the process after its exit handlers, without freeing its objects.

    Freeing the modules of PyTorch and Ray would take up to two seconds.

    Args:
        module: Full name of the module, as for `run`.
    """
    codes: list[int] = []
    atexit.register(_end, codes)  # registered first, so it is the last exit handler that runs
    codes.append(run(module))
    sys.exit(codes[0])


def _end(codes: list[int]) -> None:
    """Ends the process with the first exit code; does nothing if there is none, because an exception was raised."""
    if codes:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # the reader has closed the pipe
                stream.flush()
        os._exit(codes[0])


def run(module: str) -> int:
    """Imports a module and runs its `main` function.

    Args:
        module: Full name of the module.

    Returns:
        The exit code of `main`; 2 if the current folder does not exist or the module cannot be imported, 130 if the
        import is interrupted.
    """
    try:
        os.getcwd()
    except OSError as error:  # checked first, because otherwise torch ends the process with an unrelated message
        print(f"error: the current folder cannot be used ({error.strerror}); change to another folder", file=sys.stderr)
        return 2
    try:
        command = importlib.import_module(module).main
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if os.environ.get(TRACEBACK):
            traceback.print_exc(file=sys.stderr)
        print(f"error: {module} cannot be imported: {type(error).__name__}: {error}", file=sys.stderr)
        for line in shadowing_files():
            print(f"error: {line}", file=sys.stderr)
        return 2
    return int(command())


def shadowing_files() -> list[str]:
    """Returns one message for each file that hides an installed or standard module of the same name."""
    installed = list(dict.fromkeys(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")))
    names = set(sys.stdlib_module_names)
    try:
        from importlib.metadata import (
            packages_distributions,  # imported here, because it loads modules that a user's file may also hide
        )

        names |= packages_distributions().keys()
    except Exception as error:
        print(f"error: importlib.metadata cannot be imported: {type(error).__name__}: {error}", file=sys.stderr)
    sentences = []
    for name in sorted(names):
        found, expected = PathFinder.find_spec(name), PathFinder.find_spec(name, installed)
        if not (found and expected and found.origin and expected.origin):
            continue
        # Ray prepends a folder of bundled modules to sys.path; these are not the user's files.
        own = not found.origin.startswith(tuple(f"{folder}{os.sep}" for folder in installed))
        if own and found.origin != expected.origin:
            sentences.append(
                f"{found.origin}: has the same name as the module {name} and is imported instead of it."
                " Rename this file, or remove its folder from PYTHONPATH."
            )
    return sentences
