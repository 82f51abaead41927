"""Families of pieces: the built-in and user-defined classes that one setting accepts.

A family is an annotation that turns the base class of interchangeable pieces into the pydantic type of a setting:
`Annotated[DistillationLoss, LOSSES]`. The setting accepts an instance of any subclass, or a mapping whose `kind` is a
built-in kind, the name of an entry point, or `module:Name`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from functools import cached_property
from importlib import import_module
from importlib.metadata import EntryPoint
from pkgutil import iter_modules
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticKnownError, core_schema

from ensdistill.errors import ConfigIssue, SettingError
from ensdistill.settings.pieces import (
    PACKAGE,
    Piece,
    built_in_pieces,
    is_built_in,
    kind_of,
    path_of,
    unreachable_piece,
)
from ensdistill.settings.plugins import MAIN, PATH, PluginError, group_of, import_object, load, owner

UNKNOWN_KIND = "unknown_kind"  # issue code: no piece has this kind


def family_of(field: FieldInfo) -> PieceFamily | None:
    """Returns the family of the pieces that a field contains, directly or in a list; None if it contains no pieces."""
    inside = getattr(field.annotation, "__args__", ())
    held = [*field.metadata, *(mark for one in inside for mark in getattr(one, "__metadata__", ()))]
    return next((mark for mark in held if isinstance(mark, PieceFamily)), None)


class PieceFamily:
    """All pieces that one setting accepts.

    Attributes:
        group: The entry-point group.
        base: The class from which every piece inherits.
        default: Kind to use if the settings do not name a kind; empty if a kind is required.
    """

    def __init__(
        self, name: str, base: type[Piece], package: str = "", skip: tuple[str, ...] = (), default: str = ""
    ) -> None:
        """Creates a family.

        The built-in pieces are the subclasses of `base` in this package. This constructor imports the modules that
        define them.

        Args:
            name: Last part of the entry-point group, for example `losses`.
            base: The class from which every piece inherits.
            package: Package whose modules are imported, because they define the pieces; empty if there is none.
            skip: Name patterns of modules that are not imported, because they define no pieces but import torch.
            default: Kind to use if the settings do not name a kind; empty if a kind is required.
        """
        self.group, self.base, self.default = f"{PACKAGE}.{name}", base, default
        base.piece_group = self.group
        path = import_module(package).__path__ if package else ()
        for module in iter_modules(path, f"{package}."):
            if not any(fnmatch(module.name.rpartition(".")[2], pattern) for pattern in skip):
                import_module(module.name)

    @cached_property
    def built_in(self) -> dict[str, type[Piece]]:
        """Built-in pieces keyed by kind, in definition order."""
        return built_in_pieces(self.group)

    @property
    def kinds(self) -> list[str]:
        """Built-in kinds, followed by the names of entry points."""
        return [*self.built_in, *(name for name in group_of(self.group) if name not in self.built_in)]

    def installed(self) -> Iterator[type[Piece]]:
        """Yields the pieces that entry points provide; warns about each entry point that cannot be used."""
        for name, entries in group_of(self.group).items():
            try:
                if name in self.built_in:
                    rule = f"{{value}}, {_listed(entries)}, is also the name of a built-in piece, which is used instead"
                    raise SettingError(ConfigIssue((), rule, name, "rename this plugin"))
                yield self.find(name)
            except SettingError as error:
                warnings.warn(f"{self.group}: {error.issue.sentence}", stacklevel=2)

    def find(self, kind: Any) -> type[Piece]:
        """Returns the class that a kind selects.

        Args:
            kind: A built-in kind, the name of an entry point, or `module:Name`.

        Raises:
            SettingError: No piece has this kind, or the plugin with this name cannot be used.
        """
        name = kind if isinstance(kind, str) else ""
        if name in self.built_in:
            return self.built_in[name]
        if PATH.fullmatch(name):
            return self._by_path(name)
        if entries := group_of(self.group).get(name):
            return self._of_entry_point(name, entries)
        rule = f"{{value}} is not one of {', '.join(self.kinds) or 'module:Name (no name is installed)'}"
        raise SettingError(ConfigIssue(("kind",), rule, kind, code=UNKNOWN_KIND))

    def _of_entry_point(self, kind: str, entries: Sequence[EntryPoint]) -> type[Piece]:
        if len(entries) > 1:
            rule = f"{{value}} is the name of more than one plugin: {_listed(entries)}"
            raise SettingError(ConfigIssue(("kind",), rule, kind, "select one as module:Name"))
        try:
            return self._checked(kind, load(entries[0]), f", {_listed(entries)},")
        except PluginError as error:
            rule = f"{{value}}, {_listed(entries)}, cannot be imported ({error})"
            raise SettingError(ConfigIssue(("kind",), rule, kind, "fix or remove this plugin")) from error

    def _by_path(self, kind: str) -> type[Piece]:
        if found := unreachable_piece(kind):
            return self._checked(kind, found)
        if kind.startswith(f"{MAIN}:") or "<locals>" in kind:
            rule = "{value} is defined in a script, notebook or function, so no other process can import it"
            raise SettingError(ConfigIssue(("kind",), rule, kind, "move it to a module, and select it as module:Name"))
        try:
            return self._checked(kind, import_object(kind))
        except PluginError as error:
            rule = f"{{value}} cannot be imported ({error})"
            hint = "put its folder on PYTHONPATH, install its package, or start the command in its folder"
            raise SettingError(ConfigIssue(("kind",), rule, kind, hint)) from error

    def _checked(self, kind: str, found: Any, origin: str = "") -> type[Piece]:
        if isinstance(found, type) and issubclass(found, self.base) and kind_of(found):
            return found
        what = "not a subclass" if isinstance(found, type) else f"of type {type(found).__name__}, not a class"
        hint = f"inherit from {path_of(self.base).replace(':', '.')}"
        raise SettingError(ConfigIssue(("kind",), f"{{value}}{origin} is {what}", kind, hint))

    # --- the pydantic type --------------------------------------------------------------------------------------------

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        as_the_instance = core_schema.simple_ser_schema("any")
        return core_schema.no_info_plain_validator_function(self._validate, serialization=as_the_instance)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        options = [self._json_schema(piece, handler) for piece in (*self.built_in.values(), *self.installed())]
        by_path = {"type": "object", "properties": {"kind": {"type": "string", "pattern": ":"}}, "required": ["kind"]}
        return {"oneOf": [*options, by_path]}

    def _json_schema(self, piece: type[Piece], handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(piece.__pydantic_core_schema__)
        kind = {"properties": {"kind": {"const": kind_of(piece)}}, "required": ["kind"]}
        return {"allOf": [schema, kind]} if not is_built_in(piece) else schema

    def _validate(self, value: Any) -> Piece:
        if isinstance(value, Piece | type) and not (isinstance(value, self.base) and value.kind):
            found = path_of(value if isinstance(value, type) else type(value))
            raise SettingError(ConfigIssue((), f"must be an instance of {self.base.__name__}, not {found}"))
        if isinstance(value, Piece):
            return value
        if not isinstance(value, Mapping):
            raise PydanticKnownError("dict_type")
        if self.default:
            value = {"kind": self.default, **value}
        if "kind" not in value:
            rule = f"must be given ({', '.join(self.kinds) or 'module:Name'})"
            raise SettingError(ConfigIssue(("kind",), rule, code="missing"))
        piece = self.find(value["kind"])
        return piece.model_validate({**value, "kind": kind_of(piece)})


def _listed(entries: Sequence[EntryPoint]) -> str:
    return " and ".join(f"{entry.value} of {owner(entry)}" for entry in entries)
