"""The documents of the repository: their code blocks, links, headings and inline code."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
PARSER = MarkdownIt("commonmark").enable("table")


@dataclass(frozen=True)
class Block:
    """A code block; `role` is the word after its language, which marks a block with a separate test."""

    language: str
    role: str
    text: str


@dataclass(frozen=True)
class Document:
    """One Markdown file."""

    path: Path

    def __str__(self) -> str:
        return str(self.path.relative_to(ROOT))

    @cached_property
    def text(self) -> str:
        return self.path.read_text()

    @cached_property
    def tokens(self) -> list[Token]:
        return PARSER.parse(self.text)

    @property
    def blocks(self) -> Iterator[Block]:
        for token in self.tokens:
            if token.type == "fence" and not token.info.startswith("{"):
                language, _, role = token.info.strip().partition(" ")
                yield Block(language, role, token.content)

    def blocks_of(self, language: str, role: str | None = "") -> list[str]:
        """Returns the blocks of a language and role, or of all roles if `role` is None."""
        return [b.text for b in self.blocks if b.language == language and role in (None, b.role)]

    @property
    def inline(self) -> Iterator[Token]:
        for token in self.tokens:
            yield from token.children or ()

    @property
    def inline_code(self) -> list[str]:
        return [token.content for token in self.inline if token.type == "code_inline"]

    @property
    def links(self) -> list[str]:
        """Returns the targets of links and images within the repository."""
        found = [
            str(t.attrs.get("href") or t.attrs.get("src")) for t in self.inline if t.type in ("link_open", "image")
        ]
        return [target for target in found if "://" not in target]

    @property
    def anchors(self) -> set[str]:
        """Returns the labels, and the anchors that GitHub and the site generate for headings."""
        headings = [self.tokens[n + 1].content for n, t in enumerate(self.tokens) if t.type == "heading_open"]
        slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
        return slugs | set(re.findall(r"^\(([\w-]+)\)=$", self.text, re.MULTILINE))


README = Document(ROOT / "README.md")
DOCUMENTS = [
    README,
    Document(ROOT / "CONTRIBUTING.md"),
    Document(ROOT / "CHANGELOG.md"),
    *(Document(path) for path in sorted((ROOT / "docs").rglob("*.md"))),
]


def page(name: str) -> Document:
    """Returns a page of the site, for example `guides/mlflow`."""
    return Document(ROOT / "docs" / f"{name}.md")
