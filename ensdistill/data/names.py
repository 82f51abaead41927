"""Names of files and classes: readable by every tool, comparable between systems, and short in messages."""

import unicodedata
from collections.abc import Iterable
from pathlib import Path

from ensdistill.errors import DataError
from ensdistill.runtime.files import user_path

SHOWN = 10  # names in a message; the others are counted


def storable(text: str) -> str:
    r"""The text as UTF-8 can hold it: bytes of a file name that are no UTF-8 are written as `\xe9`."""
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half of a surrogate pair, which no file system wrote
        return text.encode("utf-8", "backslashreplace").decode("utf-8")


def printable(text: str) -> str:
    r"""The text on one line, without what a terminal would obey: a line break in a name is written as `\n`."""
    letters = (a if a.isprintable() else a.encode("unicode_escape").decode("ascii") for a in storable(text))
    return "".join(letters)


def class_name(folder: str) -> str:
    """The name of a class in Unicode's composed form: macOS stores `e` and its accent as two letters."""
    return unicodedata.normalize("NFC", folder)


def is_text(name: str) -> bool:
    """Whether UTF-8 can hold this name: files, MLflow and exported models require it."""
    return storable(name) == name


def listed(names: Iterable[str]) -> str:
    """The first ten names, and the number of the others."""
    every = [printable(name) for name in names]
    more = f" and {len(every) - SHOWN} more" if len(every) > SHOWN else ""
    return ", ".join(every[:SHOWN]) + more


def counted(count: int, noun: str) -> str:
    """`1 file`, `2 files`, `2 classes`."""
    if count == 1:
        return f"1 {noun}"
    return f"{count} {noun}{'es' if noun.endswith('s') else 's'}"


def verb(count: int) -> str:
    """`is` or `are`, behind a number of things."""
    return "is" if count == 1 else "are"


def own_path(text: str) -> Path:
    """The path of a setting, `~` expanded. Raises DataError with the cause if nothing can be read there."""
    try:
        path = user_path(text)
        path.stat()
    except FileNotFoundError:
        raise DataError(f"data.path: {printable(text)} does not exist") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte
        cause = getattr(error, "strerror", None) or error
        raise DataError(f"data.path: {printable(text)} cannot be read: {cause}") from error
    return path
