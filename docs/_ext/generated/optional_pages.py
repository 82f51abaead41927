"""Optional entries in tables of contents: `?name` is replaced by `name` if the page exists, and otherwise removed."""

from sphinx.application import Sphinx


def _keep(line: str, app: Sphinx) -> str | None:
    if not line.startswith("?"):
        return line
    name = line.removeprefix("?").strip()
    return name if any((app.srcdir / f"{name}{suffix}").exists() for suffix in (".md", ".ipynb")) else None


def _read(app: Sphinx, docname: str, source: list[str]) -> None:
    lines = (_keep(line, app) for line in source[0].splitlines())
    source[0] = "\n".join(line for line in lines if line is not None)


def setup(app: Sphinx) -> None:
    """Registers the filter, which is applied to each page before the page is parsed."""
    app.connect("source-read", _read)
