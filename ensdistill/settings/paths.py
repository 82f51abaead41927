"""Settings whose value is a file path: paths become absolute when settings are read, and are excluded from hashes."""

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
    """Returns the dotted names of all settings in a settings class whose values are file paths.

    Args:
        model: The settings class.
        prefix: String to prepend to each name.

    Returns:
        Dotted names; `*` stands for a list index.
    """
    return frozenset(_file_settings(model, prefix))


def _file_settings(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("format") == FILE:
            yield f"{prefix}{name}"
        below = f"{prefix}{name}.{'*.' if get_origin(field.annotation) is list else ''}"
        for piece in pieces_of(field):
            yield from _file_settings(piece, below)


def files_in(model: type[BaseModel], tree: Any, prefix: str = "") -> frozenset[str]:
    """Returns the dotted names of all settings whose values are file paths, including those of user-defined pieces.

    Args:
        model: The settings class.
        tree: Nested settings of this class, or an instance.
        prefix: String to prepend to each name.

    Returns:
        Dotted names; `*` stands for a list index.
    """
    own = (
        name
        for path, piece in own_pieces(model, tree).items()
        for name in _file_settings(piece, prefix + ".".join("*" if isinstance(p, int) else p for p in path) + ".")
    )
    return file_settings(model, prefix).union(own)


def absolute(tree: Any, folder: str | Path, names: frozenset[str], name: str = "") -> Any:
    """Returns the settings with all file paths made absolute.

    Args:
        tree: Settings as written, nested or with dotted names, or the value of a single setting.
        folder: The folder against which relative paths are resolved.
        names: Dotted names of the settings that are file paths, as returned by `file_settings`.
        name: Dotted name of the value.
    """
    if isinstance(tree, Mapping):
        return {
            key: absolute(value, folder, names, f"{name}.{key}" if name else str(key)) for key, value in tree.items()
        }
    if isinstance(tree, list):
        return [absolute(value, folder, names, f"{name}.*") for value in tree]
    return _absolute(tree, folder) if name in names and isinstance(tree, str) and tree else tree


def without_files(tree: Any, names: frozenset[str], name: str = "") -> Any:
    """Returns the settings without file paths, because results depend on the content of files and not on their paths.

    Args:
        tree: Nested settings, or the value of a single setting.
        names: Dotted names of the settings that are file paths, as returned by `file_settings`.
        name: Dotted name of the value.
    """
    if isinstance(tree, Mapping):
        inner = {key: f"{name}.{key}" if name else str(key) for key in tree}
        return {key: without_files(tree[key], names, inner[key]) for key in tree if inner[key] not in names}
    return [without_files(value, names, f"{name}.*") for value in tree] if isinstance(tree, list) else tree


def _absolute(value: str, folder: str | Path) -> str:
    """Returns the absolute form of a path or of an SQLite URI; other URIs are returned unchanged."""
    store = _SQLITE.fullmatch(value)
    if store and not store[2].startswith(("/", *_IN_MEMORY)):
        return f"{store[1]}{_absolute(store[2], folder)}{store[3]}"
    if "://" in value:
        return value
    expanded = os.path.expanduser(value)  # unlike Path.expanduser, returns `~unknown/x` unchanged
    return expanded if os.path.isabs(expanded) else _tidy(os.path.join(Path(folder).absolute(), expanded))


def _tidy(path: str) -> str:
    """Returns the path without `.` and `..`; unchanged if the result would, through links, refer to another file."""
    tidy = os.path.normpath(path)
    return tidy if os.path.realpath(tidy) == os.path.realpath(path) else path
