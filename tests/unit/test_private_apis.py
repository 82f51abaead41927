"""`docs/private-apis.md` lists all private names of other libraries; each is used where the table states."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TABLE = (ROOT / "docs" / "private-apis.md").read_text()
ROWS = re.findall(r"^\| (\w+) \| ([\d.]+) \| `([^`]+)` \| `([^`]+)` \| .+ \|$", TABLE, re.MULTILINE)
PINNED = dict(re.findall(r"^([\w-]+)==([\w.]+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE))


@pytest.mark.parametrize(("library", "version", "name", "place"), ROWS)
def test_every_listed_private_name_is_used_in_its_file_and_the_pinned_library_version_is_the_tested_one(
    library: str, version: str, name: str, place: str
) -> None:
    assert name in (ROOT / place).read_text()
    assert PINNED[library] == version


def private_names(tree: ast.Module) -> Iterator[str]:
    """Yields private names that a module imports, and private attributes that it uses but does not define."""
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not (node.module or "").startswith("ensdistill"):
            yield from (alias.name for alias in node.names if re.match(r"_[A-Za-z]", alias.name))
        if isinstance(node, ast.Attribute) and re.match(r"_[A-Za-z]", node.attr) and not _self(node):
            yield from {node.attr} - own


def _self(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id in ("self", "cls", "os")  # `os._exit` is documented


def test_the_table_lists_every_private_attribute_that_the_code_uses() -> None:
    used = {
        (name, str(file.relative_to(ROOT)))
        for package in ("ensdistill", "tune/ensdistill_tune")
        for file in (ROOT / package).rglob("*.py")
        for name in private_names(ast.parse(file.read_text()))
    }
    assert used == {(name, place) for _, _, name, place in ROWS if name.startswith("_")}
