"""Commands for the user to type: every one that is printed or written can be pasted into a shell as it is."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

STUDIES = "studies"  # the folder of all results unless --studies-dir names another

Option = tuple[str, "str | Path"]


def command_line(
    program: str, *words: str | Path, options: Sequence[Option] = (), studies: str | Path = STUDIES
) -> str:
    """Returns a command with its arguments, quoted for a shell.

    Args:
        program: `ensdistill` or `ensdistill-tune`.
        words: Its sub-command and the arguments that are no options.
        options: Names and values of options, in order; an option may occur several times.
        studies: The folder of all results; `--studies-dir` is left out for the default.
    """
    elsewhere: list[Option] = [] if str(studies) == STUDIES else [("--studies-dir", studies)]
    return " ".join([program, *map(_argument, words), *(_option(*pair) for pair in (*options, *elsewhere))])


def quoted(word: str | Path) -> str:
    """A word as a shell reads it back, whatever characters it has."""
    text = str(word)
    if text.isprintable():
        return shlex.quote(text)
    known = {"'": "\\'", "\\": "\\\\"}  # in the quotes of bash and zsh that take codes
    return "$'" + "".join(known.get(c) or (c if c.isprintable() else _code(c)) for c in text) + "'"


def _argument(word: str | Path) -> str:
    return quoted(f"./{word}" if str(word).startswith("-") else word)


def _option(name: str, value: str | Path) -> str:
    return f"{name}{'=' if str(value).startswith('-') else ' '}{quoted(value)}"


def _code(character: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))
