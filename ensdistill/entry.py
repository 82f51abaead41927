"""Entry of the commands: imports a command and reports a failed import in one line.

This module imports the standard library only.
"""

import importlib
import os
import sys
import sysconfig
import traceback
from importlib.machinery import PathFinder

TRACEBACK = "ENSDISTILL_TRACEBACK"  # an environment variable: any value prints the traceback of an unexpected error


def run(module: str) -> int:
    """Runs `main` of a module.

    Args:
        module: Full name of the module of a command line.

    Returns:
        The exit code of the command; 2 if there is no current folder or the module cannot be imported, 130 if the
        import is interrupted.
    """
    try:
        os.getcwd()
    except OSError as error:  # torch would end the process, and name a library of its own
        print(f"error: the current folder cannot be used ({error.strerror}); change to another one", file=sys.stderr)
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
    """Returns a sentence for each file that Python imports in place of an installed or standard module of its name."""
    installed = list(dict.fromkeys(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")))
    names = set(sys.stdlib_module_names)
    try:
        from importlib.metadata import (
            packages_distributions,  # here: it imports modules that may be shadowed themselves
        )

        names |= packages_distributions().keys()
    except Exception as error:
        print(f"error: importlib.metadata cannot be imported: {type(error).__name__}: {error}", file=sys.stderr)
    sentences = []
    for name in sorted(names):
        found, expected = PathFinder.find_spec(name), PathFinder.find_spec(name, installed)
        if not (found and expected and found.origin and expected.origin):
            continue
        # Ray puts a folder of its own copies in front of sys.path; they are no files of the user.
        own = not found.origin.startswith(tuple(f"{folder}{os.sep}" for folder in installed))
        if own and found.origin != expected.origin:
            sentences.append(
                f"{found.origin}: has the name of the module {name} and is imported in its place."
                " Rename it, or remove its folder from PYTHONPATH."
            )
    return sentences
