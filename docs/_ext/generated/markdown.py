"""Functions that return Markdown elements."""

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table; `|` in cells is escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def code(text: str) -> str:
    """Returns the text as inline code."""
    return f"`{text}`"


def block(text: str, language: str = "text") -> str:
    """Returns the text as a code block."""
    return f"```{language}\n{text}\n```"


def escaped(text: str) -> str:
    """Returns prose in which all markup except backticks is escaped: no emphasis, links or formulas."""
    parts = text.split("`")
    for n in range(0, len(parts), 2):
        for sign in "\\*_[]<>${}^~":
            parts[n] = parts[n].replace(sign, f"\\{sign}")
    return "`".join(parts)
