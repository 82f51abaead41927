"""Pieces: built-in or user-defined settings classes that a setting selects by `kind`."""

from __future__ import annotations

import inspect
from functools import cache
from importlib.metadata import EntryPoint
from typing import Any, ClassVar
from weakref import WeakValueDictionary

from pydantic import field_validator

from ensdistill.settings.base import Settings
from ensdistill.settings.plugins import MAIN, PluginError, described, distribution_of, group_of, load, source_hash

PACKAGE = __name__.partition(".")[0]
_built_in: list[type[Piece]] = []  # in definition order
# Classes that cannot be imported, keyed by path.
_unreachable: WeakValueDictionary[str, type[Piece]] = WeakValueDictionary()


class Piece(Settings):
    """Settings that are selected by their kind.

    A built-in piece declares its kind. The kind of a user-defined piece is the name of its entry point if it has one,
    otherwise `module:Name`.

    Attributes:
        kind: The name that selects the piece.
    """

    kind: str = ""
    piece_group: ClassVar[str] = ""  # entry-point group; set by the family
    piece_source_hash: ClassVar[str] = ""  # stored on the class, so that it is kept when the class is pickled by value

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if is_built_in(cls):
            _built_in.append(cls)
            return
        declared = inspect.get_annotations(cls)
        if "kind" in declared:
            raise TypeError(
                f"{path_of(cls)}: must not declare kind; remove it, because the kind is the name of the entry point or "
                "module:Name"
            )
        cls.__annotations__ = declared | {"kind": str}
        cls.kind = path_of(cls)
        cls.piece_source_hash = source_hash(cls)
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
    """Returns whether a class is defined in this package."""
    return piece.__module__.partition(".")[0] == PACKAGE


def built_in_pieces(group: str) -> dict[str, type[Piece]]:
    """Returns the built-in pieces of a family, keyed by kind, in definition order.

    Args:
        group: Entry-point group of the family.
    """
    return {kind_of(piece): piece for piece in _built_in if piece.piece_group == group and kind_of(piece)}


def unreachable_piece(path: str) -> type[Piece] | None:
    """Returns a class that cannot be imported by its path but was defined in this process; None if there is none.

    Args:
        path: `module:QualName` of the class.
    """
    return _unreachable.get(path)


def is_own(piece: object) -> bool:
    """Returns whether an object is a user-defined piece."""
    return isinstance(piece, Piece) and not is_built_in(type(piece))


def path_of(piece: type) -> str:
    """Returns `module:QualName` of a class."""
    return f"{piece.__module__}:{piece.__qualname__}"


def is_unreachable(piece: type) -> bool:
    """Returns whether a class is defined in a script, notebook or function, so that no other process can import it."""
    return piece.__module__ == MAIN or "<locals>" in piece.__qualname__


@cache
def kind_of(piece: type[Settings]) -> str:
    """Returns the name that selects a piece in YAML; empty for settings that have no kind."""
    if "kind" not in piece.model_fields:
        return ""
    if not issubclass(piece, Piece) or is_built_in(piece):
        return str(piece.model_fields["kind"].default)
    top, built_in = piece.__module__.partition(".")[0], built_in_pieces(piece.piece_group)
    for name, entries in group_of(piece.piece_group).items():
        usable = len(entries) == 1 and name not in built_in
        if usable and entries[0].module.partition(".")[0] == top and _leads_to(entries[0], piece):
            return name
    return path_of(piece)


def _leads_to(entry: EntryPoint, piece: type[Piece]) -> bool:
    try:
        return load(entry) is piece
    except PluginError:
        return False


def group_name(piece: type[Piece]) -> str:
    """Returns the entry-point group to which a piece belongs."""
    return piece.piece_group


@cache
def piece_code(piece: type[Piece]) -> str:
    """Returns an identifier for the code of a piece.

    Args:
        piece: The class.

    Returns:
        Name and version of the piece's distribution, or `sha256:` followed by the hash of the source file; empty for a
        built-in piece.
    """
    if is_built_in(piece):
        return ""
    found = distribution_of(piece.__module__)
    return described(found) if found else f"sha256:{piece.piece_source_hash}"
