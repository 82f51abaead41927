"""Settings that name files: made absolute where they are read, and left out of every hash."""

import os
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, get_origin

from pydantic import BaseModel

from ensdistill.settings.base import FILE
from ensdistill.settings.fields import own_pieces, pieces_of

_SQLITE = re.compile(r"(sqlite(?:\+\w+)?:///)([^?]+)(.*)", re.DOTALL)
_IN_MEMORY = (":memory:", "file:")


@cache
def file_settings(model: type[BaseModel], prefix: str = "") -> frozenset[str]:
    """Dotted names of all settings below a class that name a file; `*` stands for a place in a list."""
    return frozenset(_file_settings(model, prefix))


def _file_settings(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("format") == FILE:
            yield f"{prefix}{name}"
        below = f"{prefix}{name}.{'*.' if get_origin(field.annotation) is list else ''}"
        for piece in pieces_of(field):
            yield from _file_settings(piece, below)


def files_in(model: type[BaseModel], tree: Any, prefix: str = "") -> frozenset[str]:
    """Dotted names of all settings below a class that name a file, with those of the pieces outside of this package.

    Args:
        model: The settings class.
        tree: Its settings, nested, or an instance.
        prefix: What stands before each name.
    """
    own = (
        name
        for path, piece in own_pieces(model, tree).items()
        for name in _file_settings(piece, prefix + ".".join("*" if isinstance(p, int) else p for p in path) + ".")
    )
    return file_settings(model, prefix).union(own)


def absolute(tree: Any, folder: str | Path, names: frozenset[str], name: str = "") -> Any:
    """The tree of settings in which every path is absolute.

    Args:
        tree: Settings as they are written, nested or with dotted names, or the value of one of them.
        folder: Where relative paths start.
        names: The settings that name a file, as `file_settings` returns them.
        name: The dotted name of the value.
    """
    if isinstance(tree, Mapping):
        return {
            key: absolute(value, folder, names, f"{name}.{key}" if name else str(key)) for key, value in tree.items()
        }
    if isinstance(tree, list):
        return [absolute(value, folder, names, f"{name}.*") for value in tree]
    return _absolute(tree, folder) if name in names and isinstance(tree, str) and tree else tree


def without_files(tree: Any, names: frozenset[str], name: str = "") -> Any:
    """The tree of settings without those that name a file: what decides a result is the content of the file."""
    if isinstance(tree, Mapping):
        inner = {key: f"{name}.{key}" if name else str(key) for key in tree}
        return {key: without_files(tree[key], names, inner[key]) for key in tree if inner[key] not in names}
    return [without_files(value, names, f"{name}.*") for value in tree] if isinstance(tree, list) else tree


def _absolute(value: str, folder: str | Path) -> str:
    """A path, or the URI of an SQLite store; other URIs name no file."""
    store = _SQLITE.fullmatch(value)
    if store and not store[2].startswith(("/", *_IN_MEMORY)):
        return f"{store[1]}{_absolute(store[2], folder)}{store[3]}"
    if "://" in value:
        return value
    expanded = os.path.expanduser(value)  # unlike Path's, returns `~nobody/x` as it is
    return expanded if os.path.isabs(expanded) else _tidy(os.path.join(Path(folder).absolute(), expanded))


def _tidy(path: str) -> str:
    """The path without `.` and `..`, unless they lead through a symbolic link."""
    tidy = os.path.normpath(path)
    return tidy if os.path.realpath(tidy) == os.path.realpath(path) else path
