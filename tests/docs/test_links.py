"""Links in all documents lead to existing files and anchors, and all figures have a description."""

import pytest

from tests.docs.documents import DOCUMENTS, ROOT, Document

GENERATED = {"docs/reference/settings.md", "docs/reference/study-settings.md", "docs/reference/commands.md"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_links_within_the_repository_lead_to_existing_targets(document: Document) -> None:
    for link in document.links:
        target, _, anchor = link.partition("#")
        file = (document.path.parent / target).resolve() if target else document.path
        assert file.exists(), link
        assert file.is_relative_to(ROOT), link
        if anchor and str(file.relative_to(ROOT)) not in GENERATED:  # pages whose headings exist only on the site
            assert anchor in Document(file).anchors, link


def test_every_page_is_in_a_table_of_contents() -> None:
    """The documentation build checks this as well, but takes half a minute."""
    listed = set()
    for document in DOCUMENTS:
        for token in document.tokens:
            if token.type == "fence" and token.info.startswith("{toctree}"):
                lines = (line.removeprefix("?").strip() for line in token.content.splitlines())
                entries = (line for line in lines if line and not line.startswith(":"))
                listed |= {(document.path.parent / f"{entry}.md").resolve() for entry in entries}
    site = {document.path for document in DOCUMENTS if document.path.is_relative_to(ROOT / "docs")}
    assert site - listed == {ROOT / "docs" / "index.md"}


def test_figures_have_a_description() -> None:
    for document in DOCUMENTS:
        for token in document.inline:
            assert token.type != "image" or token.content, document
