"""Pieces, which are selected by their `kind`, and the families that they belong to.

A family makes the pydantic type of a setting from the base class of its pieces: `Annotated[DistillationLoss, LOSSES]`.
It takes an instance of any subclass, or a mapping whose `kind` is built in, the name of an entry point, or
`module:Name`.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from functools import cache, cached_property
from importlib import import_module
from importlib.metadata import EntryPoint
from pkgutil import iter_modules
from typing import Any, ClassVar
from weakref import WeakValueDictionary

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, field_validator
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticKnownError, core_schema

from ensdistill.errors import ConfigIssue, SettingError
from ensdistill.settings.base import Settings
from ensdistill.settings.plugins import (
    MAIN,
    PATH,
    PluginError,
    described,
    distribution_of,
    group_of,
    import_object,
    load,
    owner,
    source_hash,
)

UNKNOWN_KIND = "unknown_kind"  # code of an issue: no piece has this kind
PACKAGE = __name__.partition(".")[0]
_built_in: list[type[Piece]] = []  # in the order of their definition
_unreachable: WeakValueDictionary[str, type[Piece]] = WeakValueDictionary()  # classes that no import finds, by path


class Piece(Settings):
    """Settings that are selected by their kind.

    A built-in piece declares its kind. That of a class outside of this package is what finds it again: the name of its
    entry point, or else `module:Name`.

    Attributes:
        kind: The name that selects the piece.
    """

    kind: str = ""
    _family: ClassVar[PieceFamily]
    _source_hash: ClassVar[str] = ""  # kept on the class, so that it travels with a class that is pickled by value

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if is_built_in(cls):
            _built_in.append(cls)
            return
        declared = inspect.get_annotations(cls)
        if "kind" in declared:
            raise TypeError(
                f"{path_of(cls)}: declares kind; leave it out, it is the name of the entry point or module:Name"
            )
        cls.__annotations__ = declared | {"kind": str}
        cls.kind = path_of(cls)
        cls._source_hash = source_hash(cls)
        if is_unreachable(cls):
            _unreachable[path_of(cls)] = cls

    @field_validator("kind")
    @classmethod
    def _is_its_own(cls, kind: str) -> str:
        name = kind_of(cls)
        if kind not in (name, path_of(cls)):
            raise ValueError(f"is {name} and cannot be set, got {kind!r}")
        return name


def is_built_in(piece: type[Piece]) -> bool:
    """Returns whether a class belongs to this package."""
    return piece.__module__.partition(".")[0] == PACKAGE


def is_own(piece: object) -> bool:
    """Returns whether an object is a piece outside of this package."""
    return isinstance(piece, Piece) and not is_built_in(type(piece))


def path_of(piece: type) -> str:
    """Returns `module:QualName` of a class."""
    return f"{piece.__module__}:{piece.__qualname__}"


def is_unreachable(piece: type) -> bool:
    """Returns whether no import of another process finds a class: it is one of a script, notebook or function."""
    return piece.__module__ == MAIN or "<locals>" in piece.__qualname__


@cache
def kind_of(piece: type[Settings]) -> str:
    """Returns the name that selects a piece in YAML; empty for settings that have no kind."""
    if "kind" not in piece.model_fields:
        return ""
    if not issubclass(piece, Piece) or is_built_in(piece) or not hasattr(piece, "_family"):
        return str(piece.model_fields["kind"].default)
    top = piece.__module__.partition(".")[0]
    for name, entries in group_of(piece._family.group).items():
        usable = len(entries) == 1 and name not in piece._family.built_in
        if usable and entries[0].module.partition(".")[0] == top and _leads_to(entries[0], piece):
            return name
    return path_of(piece)


def _leads_to(entry: EntryPoint, piece: type[Piece]) -> bool:
    try:
        return load(entry) is piece
    except PluginError:
        return False


def group_name(piece: type[Piece]) -> str:
    """Returns the group of entry points of the family of a piece."""
    return piece._family.group


@cache
def code_of(piece: type[Piece]) -> str:
    """Returns what identifies the code of a piece: empty if it is built in, else a distribution, or a hash."""
    if is_built_in(piece):
        return ""
    found = distribution_of(piece.__module__)
    return described(found) if found else f"sha256:{piece._source_hash}"


def family_of(field: FieldInfo) -> PieceFamily | None:
    """Returns the family whose pieces a field holds, itself or in its list."""
    inside = getattr(field.annotation, "__args__", ())
    held = [*field.metadata, *(mark for one in inside for mark in getattr(one, "__metadata__", ()))]
    return next((mark for mark in held if isinstance(mark, PieceFamily)), None)


class PieceFamily:
    """All pieces that one setting may hold.

    Attributes:
        group: The group of entry points.
        base: The class from which every piece inherits.
    """

    def __init__(self, name: str, base: type[Piece], package: str = "", skip: tuple[str, ...] = ()) -> None:
        """Takes a family whose built-in pieces are defined by now, or in the modules of a package.

        Args:
            name: The last part of the group of entry points, for example `losses`.
            base: The class from which every piece inherits.
            package: The package whose modules are imported first.
            skip: Patterns of names of modules that hold no piece; those that import torch belong here.
        """
        self.group, self.base = f"{PACKAGE}.{name}", base
        base._family = self
        path = import_module(package).__path__ if package else ()
        for module in iter_modules(path, f"{package}."):
            if not any(fnmatch(module.name.rpartition(".")[2], pattern) for pattern in skip):
                import_module(module.name)

    @cached_property
    def built_in(self) -> dict[str, type[Piece]]:
        """The built-in pieces by kind, in the order of their definition."""
        return {kind_of(piece): piece for piece in _built_in if issubclass(piece, self.base) and kind_of(piece)}

    @property
    def kinds(self) -> list[str]:
        """The kinds that are built in, and the names of entry points."""
        return [*self.built_in, *(name for name in group_of(self.group) if name not in self.built_in)]

    def installed(self) -> Iterator[type[Piece]]:
        """Yields the pieces of entry points; warns of each that cannot be used."""
        for name, entries in group_of(self.group).items():
            try:
                if name in self.built_in:
                    raise SettingError(ConfigIssue((), "has the name of a built-in piece"))
                yield self.find(name)
            except SettingError as error:
                where = " and ".join(f"{entry.value} of {owner(entry)}" for entry in entries)
                warnings.warn(f"plugin {name!r} ({self.group} = {where}) is not used: {error.issue}", stacklevel=2)

    def find(self, kind: Any) -> type[Piece]:
        """Returns the class of a kind. Raises SettingError, also for a plugin that cannot be used."""
        name = kind if isinstance(kind, str) else ""
        if name in self.built_in:
            return self.built_in[name]
        if PATH.fullmatch(name):
            return self._by_path(name)
        entries = group_of(self.group).get(name, ())
        if len(entries) > 1:
            several = " and ".join(f"{entry.value} of {owner(entry)}" for entry in entries)
            raise SettingError(
                ConfigIssue(("kind",), f"{{value}} is the name of {several}; select one as module:Name", kind)
            )
        if not entries:
            rule = f"{{value}} is none of {', '.join(self.kinds) or 'module:Name (no name is installed)'}"
            raise SettingError(ConfigIssue(("kind",), rule, kind, code=UNKNOWN_KIND))
        try:
            return self._checked(kind, load(entries[0]))
        except PluginError as error:
            rule = f"{{value}}, {entries[0].value} of {owner(entries[0])}, cannot be imported ({error})"
            raise SettingError(ConfigIssue(("kind",), rule, kind, "fix or remove this plugin")) from error

    def _by_path(self, kind: str) -> type[Piece]:
        if kind in _unreachable:
            return self._checked(kind, _unreachable[kind])
        if kind.startswith(f"{MAIN}:") or "<locals>" in kind:
            rule = "{value} is a class of a script, notebook or function, which no other process can import"
            raise SettingError(ConfigIssue(("kind",), rule, kind, "move it to a module, and select it as module:Name"))
        try:
            return self._checked(kind, import_object(kind))
        except PluginError as error:
            rule = f"{{value}} cannot be imported ({error})"
            hint = "put its folder on PYTHONPATH, install its package, or start the command in its folder"
            raise SettingError(ConfigIssue(("kind",), rule, kind, hint)) from error

    def _checked(self, kind: str, found: Any) -> type[Piece]:
        if isinstance(found, type) and issubclass(found, self.base) and kind_of(found):
            return found
        what = f"a {type(found).__name__}" if not isinstance(found, type) else "no subclass"
        hint = f"inherit from {path_of(self.base).replace(':', '.')}"
        raise SettingError(ConfigIssue(("kind",), f"{{value}} is {what}", kind, hint))

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
            raise SettingError(ConfigIssue((), f"must be an instance of a {self.base.__name__}, not {found}"))
        if isinstance(value, Piece):
            return value
        if not isinstance(value, Mapping):
            raise PydanticKnownError("dict_type")
        if "kind" not in value:
            rule = f"must be given ({', '.join(self.kinds) or 'module:Name'})"
            raise SettingError(ConfigIssue(("kind",), rule, code="missing"))
        piece = self.find(value["kind"])
        return piece.model_validate({**value, "kind": kind_of(piece)})
