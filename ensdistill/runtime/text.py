"""Words for people: names on one line, lists of them, and counts with their nouns."""

from collections.abc import Iterable

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


def listed(names: Iterable[str], most: int = SHOWN) -> str:
    """Returns the first names, ten unless `most` is another number, and the number of the others."""
    every = [printable(name) for name in names]
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more


def counted(count: int, noun: str) -> str:
    """`1 file`, `2 files`, `2 classes`."""
    if count == 1:
        return f"1 {noun}"
    return f"{count} {noun}{'es' if noun.endswith('s') else 's'}"


def verb(count: int) -> str:
    """`is` or `are`, behind a number of things."""
    return "is" if count == 1 else "are"
