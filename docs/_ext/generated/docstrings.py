"""Conversion of docstrings, which are plain text with `code` and equations, to Markdown and reStructuredText."""

import inspect
import re
from typing import Any

from sphinx.application import Sphinx

from generated.markdown import block, escaped

EQUATION = re.compile(r"^[A-Za-z_]['\w]*(\s[\w']+)? (=|<-) ")
SECTION = re.compile(r"^(Args|Attributes|Returns|Raises|Yields|References|Example|Examples|Note|Notes):$")


def paragraphs(doc: str) -> list[str]:
    """Returns the paragraphs of a docstring without its indentation."""
    return [part for part in re.split(r"\n\s*\n", inspect.cleandoc(doc)) if part.strip()]


def is_preformatted(paragraph: str) -> bool:
    """Returns whether a paragraph is an equation or other text whose line breaks must be kept."""
    lines = paragraph.splitlines()
    return bool(EQUATION.match(lines[0].strip())) or any(line.startswith("  ") for line in lines)


def summary(thing: Any) -> str:
    """Returns the first paragraph of a docstring as one line, or an empty string if there is none."""
    doc = thing.__dict__.get("__doc__") if isinstance(thing, type) else thing.__doc__
    return " ".join(paragraphs(doc)[0].split()) if doc else ""


def to_markdown(thing: Any) -> str:
    """Returns a docstring as Markdown: prose, equations as blocks, sections (Args, ...) as lists."""
    doc = thing.__dict__.get("__doc__") if isinstance(thing, type) else thing.__doc__
    parts = []
    for part in paragraphs(doc or ""):
        first, *rest = part.splitlines()
        if SECTION.match(first):
            parts.append(f"**{first.rstrip(':')}.** " + escaped(" ".join(line.strip() for line in rest)))
        else:
            parts.append(block(part) if is_preformatted(part) else escaped(" ".join(part.split())))
    return "\n\n".join(parts)


def as_restructured(lines: list[str]) -> list[str]:
    """Returns the lines of a docstring as reStructuredText for autodoc; napoleon converts the sections later."""
    made: list[str] = []
    for part in paragraphs("\n".join(lines)):
        first = part.splitlines()[0]
        if SECTION.match(first):
            made += [_quoted(line) for line in part.splitlines()]
        elif is_preformatted(part):
            made += ["::", "", *(f"    {line}" for line in part.splitlines())]
        else:
            made += [_quoted(line) for line in part.splitlines()]
        made.append("")
    return made


def _quoted(line: str) -> str:
    """Returns a line in which backticks mark code, and all other markup is escaped."""
    parts = line.split("`")
    for n in range(0, len(parts), 2):
        parts[n] = re.sub(r"([\\*|]|_(?=\W|$))", r"\\\1", parts[n])
    return "``".join(parts) if len(parts) % 2 else re.sub(r"`", r"\`", line)


def _process(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    lines[:] = as_restructured(lines)


def setup(app: Sphinx) -> None:
    """Registers the conversion of docstrings, which must run before napoleon reads their sections."""
    app.connect("autodoc-process-docstring", _process, priority=100)
