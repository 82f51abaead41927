"""Links from inline code that names a setting, a command or a preset to the page that describes it."""

from docutils import nodes
from sphinx.addnodes import toctree
from sphinx.application import Sphinx

from ensdistill.config import presets
from generated import commands, settings

CODE = ("contributing/", "extending", "reference/python")  # pages on which `labels` is an argument, not the preset
SKIP = (nodes.reference, nodes.title, nodes.term, toctree)


def targets() -> dict[str, tuple[str, str]]:
    """Returns the page and the anchor to which inline code is linked, keyed by the text of the code."""
    found = settings.pages() | commands.pages()
    return found | {name: (f"methods/{name}", "") for name in presets()}


def _link(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    known = targets()
    for literal in list(doctree.findall(nodes.literal)):
        text = literal.astext()
        target = known.get(text) or known.get(" ".join(text.split()[:2]))
        if target is None or target[0] == docname or not _may_link(literal):
            continue
        page, anchor = target
        if page.startswith("methods/") and docname.startswith(CODE):
            continue
        if page not in app.env.all_docs:
            continue
        uri = app.builder.get_relative_uri(docname, page) + (f"#{anchor}" if anchor else "")
        reference = nodes.reference("", "", internal=True, refuri=uri)
        literal.replace_self(reference)
        reference += literal


def _keep_spreads_whole(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Prevents line breaks after the sign in table cells that contain, for example, `+- 0.010`."""
    for entry in doctree.findall(nodes.entry):
        for text in list(entry.findall(nodes.Text)):
            if "+- " in text:
                text.parent.replace(text, nodes.Text(text.replace("+- ", "+-\N{WORD JOINER}\N{NO-BREAK SPACE}")))


def _may_link(node: nodes.Node) -> bool:
    while node.parent is not None:
        node = node.parent
        if isinstance(node, SKIP):
            return False
    return True


def setup(app: Sphinx) -> None:
    """Registers both changes, which are applied to each page when the page is written."""
    app.connect("doctree-resolved", _link)
    app.connect("doctree-resolved", _keep_spreads_whole)
