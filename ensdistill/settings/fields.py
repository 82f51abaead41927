"""Finds the pieces that a settings field accepts, and the pieces that the given settings select."""

from collections.abc import Collection, Iterator, Mapping
from functools import cache
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ensdistill.errors import SettingError
from ensdistill.settings.families import PieceFamily, family_of
from ensdistill.settings.pieces import Piece, is_built_in

Path = tuple[str | int, ...]  # components of the dotted name of a setting


def pieces_of(field: FieldInfo, own: Collection[type[Piece]] = ()) -> list[type[BaseModel]]:
    """Returns the settings classes that a field accepts; empty for a field with a plain value.

    Args:
        field: A field of a settings class.
        own: User-defined pieces; the result includes those that belong to the field's family.
    """
    if family := family_of(field):
        return [*family.built_in.values(), *(piece for piece in own if issubclass(piece, family.base))]
    options = [field.annotation, *get_args(field.annotation)]
    if get_origin(field.annotation) is list and get_args(options[1]):  # a list of pieces of different kinds
        options = list(get_args(get_args(options[1])[0]))
    return [option for option in options if isinstance(option, type) and issubclass(option, BaseModel)]


@cache
def families_of(model: type[BaseModel]) -> tuple[PieceFamily, ...]:
    """Returns the piece families that the fields of a settings class accept, at any depth."""
    found: dict[PieceFamily, None] = {}
    for field in model.model_fields.values():
        family = family_of(field)
        found |= {family: None} if family else {}
        for piece in [] if family else pieces_of(field):
            found |= dict.fromkeys(families_of(piece))
    return tuple(found)


def installed_pieces(model: type[BaseModel]) -> list[type[Piece]]:
    """Returns the plugin pieces that fields of a settings class accept; warns about each plugin that cannot be used."""
    return [piece for family in families_of(model) for piece in family.installed()]


def own_pieces(model: type[BaseModel], tree: Any) -> dict[Path, type[Piece]]:
    """Returns the user-defined pieces that the given settings select, keyed by the path of each setting.

    Pieces that cannot be imported are skipped.

    Args:
        model: The settings class.
        tree: Nested settings of this class, or an instance.
    """
    found: dict[Path, type[Piece]] = {}
    for path, field, value in _values(model, tree):
        piece = piece_at(field, value)
        if piece and not is_built_in(piece):
            found[path] = piece
        for below in ([piece] if piece else pieces_of(field))[:1]:
            found |= {(*path, *rest): own for rest, own in own_pieces(below, value).items()}
    return found


def own_kinds(model: type[BaseModel], tree: Mapping[str, Any]) -> dict[Path, str]:
    """Returns the kinds that are not built in, keyed by the path of the setting; imports nothing.

    Args:
        model: The settings class.
        tree: Nested settings of this class.
    """
    found: dict[Path, str] = {}
    for path, field, value in _values(model, tree):
        family, kind = family_of(field), value.get("kind") if isinstance(value, Mapping) else None
        if family and isinstance(kind, str) and kind not in family.built_in:
            found[path] = kind
        elif isinstance(value, Mapping):
            inner = family.built_in[kind] if family and isinstance(kind, str) else next(iter(pieces_of(field)), None)
            found |= {(*path, *rest): own for rest, own in own_kinds(inner, value).items()} if inner else {}
    return found


def _values(model: type[BaseModel], tree: Any) -> Iterator[tuple[Path, FieldInfo, Any]]:
    """Yields the path, definition and value of each field that contains settings; a list yields one entry per item."""
    for name, field, is_list in _fields(model):
        value = tree.get(name) if isinstance(tree, Mapping) else getattr(tree, name, None)
        if isinstance(value, list) and is_list:
            yield from (((name, n), field, item) for n, item in enumerate(value))
        else:
            yield (name,), field, value


@cache
def _fields(model: type[BaseModel]) -> tuple[tuple[str, FieldInfo, bool], ...]:
    """Returns the name and definition of each field that contains settings, and whether the field is a list."""
    return tuple(
        (name, field, get_origin(field.annotation) is list)
        for name, field in model.model_fields.items()
        if family_of(field) or pieces_of(field)
    )


def piece_at(field: FieldInfo, value: Any) -> type[Piece] | None:
    """Returns the class of the piece in a field.

    Args:
        field: A field of a settings class.
        value: The value of the field, a mapping or an instance.

    Returns:
        The class; None if the value is not a piece, or its class cannot be found.
    """
    family = family_of(field)
    if isinstance(value, Piece) or family is None:
        return type(value) if isinstance(value, Piece) else None
    try:
        return family.find(value.get("kind")) if isinstance(value, Mapping) else None
    except SettingError:
        return None
