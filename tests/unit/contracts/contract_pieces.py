"""Every built-in piece of every family: the contract suites cover a new piece automatically.

A piece with a required setting needs a row in ROWS; without it, the suite fails with an error that states this.
"""

from typing import Any, Literal, get_args, get_origin

import pytest

from ensdistill.settings.base import Settings
from ensdistill.settings.families import PieceFamily

ROWS: dict[str, dict[str, Any]] = {}  # kind -> required settings


def variants(family: PieceFamily) -> list[Any]:
    """Returns each piece with its defaults, and once more for every other value of each setting with choices."""
    made = []
    for piece in family.built_in.values():
        row = ROWS.get(str(piece.model_fields["kind"].default), {})
        missing = [name for name, field in piece.model_fields.items() if field.is_required() and name not in row]
        assert not missing, f"{piece.__name__} needs a row in ROWS for {missing}"
        made.append(named(piece(**row)))
        for name, field in piece.model_fields.items():
            choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
            others = [choice for choice in choices if choice != field.default]
            made += [named(piece(**row | {name: choice}), f"{name}={choice}") for choice in others]
    return made


def named(piece: Settings, change: str = "") -> Any:
    kind = getattr(piece, "kind", type(piece).__name__)
    return pytest.param(piece, id=f"{kind}-{change}" if change else kind)
