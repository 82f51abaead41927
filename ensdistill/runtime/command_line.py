"""Commands as text for messages and files, quoted so that they can be pasted into a shell."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

STUDIES = "studies"  # default of --studies-dir, the folder that contains all results

Option = tuple[str, "str | Path"]


def command_line(
    program: str, *words: str | Path, options: Sequence[Option] = (), studies: str | Path = STUDIES
) -> str:
    """Returns a command with its arguments, quoted for a shell.

    Args:
        program: `ensdistill` or `ensdistill-tune`.
        words: Subcommand and positional arguments.
        options: Names and values of options, in order; an option may occur several times.
        studies: Folder that contains all results; `--studies-dir` is omitted for the default folder.

    Returns:
        The command on one line.
    """
    elsewhere: list[Option] = [] if str(studies) == STUDIES else [("--studies-dir", studies)]
    return " ".join([program, *map(_argument, words), *(_option(*pair) for pair in (*options, *elsewhere))])


def quoted(word: str | Path) -> str:
    """Returns a word quoted for a shell; words with control characters use the `$'...'` quotes of bash and zsh."""
    text = str(word)
    if text.isprintable():
        return shlex.quote(text)
    known = {"'": "\\'", "\\": "\\\\"}  # escapes inside $'...'
    return "$'" + "".join(known.get(c) or (c if c.isprintable() else _code(c)) for c in text) + "'"


def _argument(word: str | Path) -> str:
    return quoted(f"./{word}" if str(word).startswith("-") else word)


def _option(name: str, value: str | Path) -> str:
    return f"{name}{'=' if str(value).startswith('-') else ' '}{quoted(value)}"


def _code(character: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))
