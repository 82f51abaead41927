"""Imports code from other packages, by entry point or as `module:Name`, and identifies the version of the code.

An entry point has the form `NAME = module:Class` and belongs to the group of a piece family, such as
`ensdistill.losses`. Groups are read only to find a name that is not built in, or to list all names. A plugin is
imported only if its name is used or all pieces are listed.
"""

from __future__ import annotations

import hashlib
import os
import pkgutil
import re
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import Distribution, EntryPoint, distributions, entry_points
from pathlib import Path
from types import CodeType
from typing import Any

from ensdistill.runtime.boundary import cause_of

PATH = re.compile(r"[^\W\d][\w.]*:[^\W\d][\w.<>]*")  # the name of a class inside a function contains `<locals>`
MAIN = "__main__"


class PluginError(Exception):
    """Raised if code cannot be imported; the message states the reason."""


@cache
def group_of(group: str) -> dict[str, tuple[EntryPoint, ...]]:
    """Returns the entry points of a group, keyed by name.

    Args:
        group: Name of the group, for example `ensdistill.losses`.

    Returns:
        The entry points for each name, in a fixed order; several distributions can use the same name.
    """
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for entry in sorted(entry_points(group=group), key=lambda entry: (entry.name, entry.value, owner(entry))):
        found[entry.name] = (*found.get(entry.name, ()), entry)
    return found


def owner(entry: EntryPoint) -> str:
    """Returns the name and version of the distribution that provides an entry point."""
    return described(entry.dist) if entry.dist else "an unknown distribution"


def described(distribution: Distribution) -> str:
    """Returns the name and version of a distribution."""
    return f"{distribution.name} {distribution.version}"


def load(entry: EntryPoint) -> Any:
    """Returns the object to which an entry point refers.

    Args:
        entry: The entry point.

    Raises:
        PluginError: The import raises an exception.
    """
    try:
        return entry.load()
    except (Exception, SystemExit) as error:
        raise PluginError(cause_of(error)) from error


def import_object(path: str) -> Any:
    """Returns the object at a path `package.module:Name`.

    The current folder is appended to `sys.path`, because Python does not add it for installed commands. As the last
    entry, it never hides an installed module.

    Args:
        path: Module and qualified name, separated by a colon.

    Raises:
        PluginError: The import raises an exception.
    """
    folder = os.getcwd()
    if folder not in sys.path and "" not in sys.path:
        sys.path.append(folder)
    try:
        return pkgutil.resolve_name(path)
    except (Exception, SystemExit) as error:
        raise PluginError(cause_of(error)) from error


# --- identity ---------------------------------------------------------------------------------------------------------


@cache
def distribution_of(module: str) -> Distribution | None:
    """Returns the installed distribution that contains a module.

    Args:
        module: Full name of an imported module.

    Returns:
        The distribution; None if the module belongs to no distribution, or to an editable one, whose code can change
        while its version stays the same.
    """
    top = module.partition(".")[0]
    file = getattr(sys.modules.get(top), "__file__", None)
    if top == MAIN or not file:
        return None
    root = Path(file).parent.parent if Path(file).name == "__init__.py" else Path(file).parent
    for found in distributions(path=[str(root)]):
        files = found.read_text("RECORD") or ""
        if f"\n{top}/" in f"\n{files}" or f"\n{top}.py," in f"\n{files}":
            return found
    return None


def source_hash(owner: type) -> str:
    """Returns the SHA-256 hash of the file that defines a class, in hexadecimal digits.

    Modules that this file imports are not included. For a class without a file, for example in a notebook, the compiled
    methods are hashed instead.

    Args:
        owner: The class.
    """
    file = getattr(sys.modules.get(owner.__module__), "__file__", None)
    try:
        content = Path(file or "").read_bytes()
    except OSError:
        content = "\n".join(_compiled(owner)).encode()
    return hashlib.sha256(content).hexdigest()


def _compiled(owner: type) -> Iterator[str]:
    for name, value in sorted(vars(owner).items()):
        function = getattr(value, "__func__", value)
        if isinstance(code := getattr(function, "__code__", None), CodeType):
            yield f"{name} {_text(code)}"


def _text(code: CodeType) -> str:
    constants = [_text(one) if isinstance(one, CodeType) else _constant(one) for one in code.co_consts]
    return f"{code.co_code.hex()} {code.co_names} {constants}"


def _constant(value: Any) -> str:
    """Returns a constant as text; sets are sorted, because their order differs between processes."""
    return str(sorted(map(repr, value))) if isinstance(value, frozenset) else repr(value)
