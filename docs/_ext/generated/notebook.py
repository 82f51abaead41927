"""Notebooks as pages, with the outputs that are stored in the notebook files; no cell is executed."""

import json
from typing import Any

from docutils import nodes
from myst_parser.parsers.sphinx_ import MystParser
from sphinx.application import Sphinx


def to_markdown(text: str) -> str:
    """Converts the JSON of a notebook to Markdown: text, code, and outputs as text, HTML or images."""
    return "\n\n".join(part for cell in json.loads(text)["cells"] for part in _cell(cell) if part.strip())


def _cell(cell: dict[str, Any]) -> list[str]:
    source = _joined(cell["source"])
    if cell["cell_type"] == "markdown":
        return [source]
    if cell["cell_type"] != "code":
        return []
    return [_fenced(source, "python"), *(_output(output) for output in cell["outputs"])]


def _output(output: dict[str, Any]) -> str:
    if output["output_type"] == "stream":
        return _fenced(_joined(output["text"]), "text")
    if output["output_type"] == "error":
        return _fenced("\n".join(output["traceback"]), "text")
    data = output["data"]
    if "image/png" in data:
        return f'<img alt="Output of the cell above" src="data:image/png;base64,{_joined(data["image/png"]).strip()}">'
    if "text/html" in data:
        return "\n".join(line for line in _joined(data["text/html"]).splitlines() if line.strip())
    return _fenced(_joined(data.get("text/plain", "")), "text")


def _joined(source: str | list[str]) -> str:
    return source if isinstance(source, str) else "".join(source)


def _fenced(text: str, language: str) -> str:
    return f"````{language}\n{text.rstrip()}\n````" if text.strip() else ""


class NotebookParser(MystParser):
    """Parses a notebook after its conversion to Markdown."""

    supported = ("ipynb",)

    def parse(self, inputstring: str, document: nodes.document) -> None:
        """Parses the converted notebook into the document."""
        super().parse(to_markdown(inputstring), document)


def setup(app: Sphinx) -> None:
    """Registers the file type."""
    app.add_source_suffix(".ipynb", "ipynb")
    app.add_source_parser(NotebookParser)
