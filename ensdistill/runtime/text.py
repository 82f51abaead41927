"""Text for messages: names on one line, lists of names, and counts with their nouns."""

from collections.abc import Iterable

SHOWN = 10  # number of names in a message; further names are only counted


def storable(text: str) -> str:
    r"""Returns the text in a form that UTF-8 can encode: invalid bytes in a file name become escapes such as `\xe9`."""
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half of a surrogate pair, which cannot be part of a file name
        return text.encode("utf-8", "backslashreplace").decode("utf-8")


def printable(text: str) -> str:
    r"""Returns the text on one line with control characters escaped: a line break in a name is written as `\n`.

    File names are untrusted input, and terminals interpret control characters.
    """
    letters = (a if a.isprintable() else a.encode("unicode_escape").decode("ascii") for a in storable(text))
    return "".join(letters)


def printable_lines(text: str) -> str:
    """Returns the text with all control characters except line breaks escaped."""
    return "\n".join(map(printable, text.split("\n")))


def listed(names: Iterable[str], most: int = SHOWN) -> str:
    """Returns a list of names as text; names beyond the first `most` are only counted: `a, b and 3 more`.

    Args:
        names: The names.
        most: Number of names to list.
    """
    every = [printable(name) for name in names]
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more


def counted(count: int, noun: str) -> str:
    """Returns a count with its noun: `1 file`, `2 files`, `2 classes`, `2 entries`."""
    if count == 1:
        return f"1 {noun}"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return f"{count} {noun[:-1]}ies"
    return f"{count} {noun}{'es' if noun.endswith('s') else 's'}"


def verb(count: int) -> str:
    """Returns `is` for a count of 1, otherwise `are`."""
    return "is" if count == 1 else "are"
