"""Parts of the documentation that are generated from the code when the site is built.

Each directive inserts the Markdown returned by a function of this package: `{settings}`, `{commands}`, `{events}`,
`{metrics}`, `{preset}`, `{piece}`, `{other-pieces}`, `{public-names}`. In addition, the package renders formulas as
SVG, notebooks as pages and docstrings as Markdown, and links names of settings, commands and presets to their pages.
"""

from collections.abc import Callable
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from ensdistill.errors import EnsdistillError
from generated import (
    commands,
    docstrings,
    formulas,
    links,
    notebook,
    optional_pages,
    pieces,
    public_names,
    records,
    settings,
)

DIRECTIVES: dict[str, Callable[[str], str]] = {
    "settings": settings.markdown,
    "commands": commands.markdown,
    "events": records.events,
    "metrics": records.metrics,
    "preset": pieces.preset,
    "piece": pieces.piece,
    "other-pieces": pieces.other_pieces,
    "public-names": public_names.markdown,
}


def directive(generate: Callable[[str], str]) -> type[SphinxDirective]:
    """Returns a directive that passes its argument to a function and inserts the returned Markdown."""

    class Generated(SphinxDirective):
        optional_arguments = 1
        final_argument_whitespace = True

        def run(self) -> list[nodes.Node]:
            argument = self.arguments[0] if self.arguments else ""
            try:
                text = generate(argument)
            except (KeyError, ValueError, EnsdistillError) as error:  # the page names something undefined
                raise self.error(f"{self.name} {argument}: {error}") from error
            return self.parse_text_to_nodes(text, allow_section_headings=True)

    return Generated


def setup(app: Sphinx) -> dict[str, Any]:
    """Registers all directives, renderers and parsers with Sphinx."""
    for name, generate in DIRECTIVES.items():
        app.add_directive(name, directive(generate))
    for part in (docstrings, links, formulas, notebook, optional_pages):
        part.setup(app)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
