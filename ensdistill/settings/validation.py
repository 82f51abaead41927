"""Converts validation errors to issues with a rule, a value and a fix; lists all settings in a table."""

import difflib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticUndefined

from ensdistill.errors import ConfigError, ConfigIssue, SettingError
from ensdistill.settings.base import Settings
from ensdistill.settings.families import UNKNOWN_KIND, family_of
from ensdistill.settings.fields import installed_pieces, own_pieces, piece_at, pieces_of
from ensdistill.settings.pieces import Piece, kind_of

T = TypeVar("T", bound=Settings)

_COMPARISONS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
_TYPES = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}
UNKNOWN = "extra_forbidden"  # issue code: no such setting exists
_MUST_BE = {  # pydantic's error types, which are used as issue codes
    "int_type": _TYPES["int"],
    "int_from_float": _TYPES["int"],
    "float_type": _TYPES["float"],
    "bool_type": _TYPES["bool"],
    "string_type": _TYPES["str"],
    "list_type": "a list",
    "dict_type": "a mapping of names to values",
    "model_type": "a mapping of names to values",
    "model_attributes_type": "a mapping of names to values",
}


def validate(model: type[T], tree: Mapping[str, Any]) -> T:
    """Returns an instance of a settings class.

    Args:
        model: The settings class.
        tree: Nested settings.

    Raises:
        ConfigError: Settings are invalid; the error lists the name, rule, value and fix of every issue.
    """
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise config_error(model, tree, error) from None


def config_error(model: type[BaseModel], tree: Mapping[str, Any], error: ValidationError) -> ConfigError:
    """Converts a pydantic validation error to a ConfigError with all issues.

    Args:
        model: The settings class.
        tree: The nested settings that were validated.
        error: The pydantic error.
    """
    return ConfigError([_issue(model, tree, detail) for detail in error.errors()])


def closest_match(name: str, known: Iterable[str]) -> str | None:
    """Returns the known name that is most similar to `name`, or None if no known name is similar."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return close[0] if close else None


@dataclass(frozen=True)
class SettingDoc:
    """One row of the settings table.

    Attributes:
        name: Dotted name of the setting.
        kind: Kind of the piece that has the setting; empty if every piece has the setting.
        default: Default value as text, or `required`.
        limits: Range or choices, as text.
        sentence: Description of the setting.
    """

    name: str
    kind: str
    default: str
    limits: str
    sentence: str


def settings_table(model: type[BaseModel], prefix: str = "", own: Collection[type[Piece]] = ()) -> Iterator[SettingDoc]:
    """Yields the name, default, range and description of every setting in a settings class, at any depth.

    Args:
        model: The settings class.
        prefix: String to prepend to each name.
        own: User-defined pieces to include.
    """
    for name, field in model.model_fields.items():
        pieces = pieces_of(field, own)
        if not pieces or get_origin(field.annotation) is list:
            yield SettingDoc(f"{prefix}{name}", "", _default(field), format_constraints(field), field.description or "")
            continue
        if any("kind" in piece.model_fields for piece in pieces):
            kinds = " | ".join(kind_of(piece) for piece in pieces)
            default = getattr(field.default, "kind", "")
            yield SettingDoc(f"{prefix}{name}.kind", "", default, kinds, field.description or "")
        for piece in pieces:
            kind = kind_of(piece) if len(pieces) > 1 else ""
            for row in settings_table(piece, f"{prefix}{name}.", own):
                if row.name != f"{prefix}{name}.kind":
                    yield SettingDoc(row.name, row.kind or kind, row.default, row.limits, row.sentence)


def settings_help(model: type[BaseModel], title: str) -> str:
    """Returns text that lists every setting in a settings class, with its default, range and description.

    Settings of installed plugins are included; a plugin that cannot be used causes a warning.

    Args:
        model: The settings class.
        title: First line of the text.
    """
    lines = [title]
    for row in settings_table(model, own=installed_pieces(model)):
        kind = f" [{row.kind}]" if row.kind else ""
        limits = f"; {row.limits}" if row.limits else ""
        lines.append(f"  {row.name}{kind} = {row.default}{limits}\n      {row.sentence}")
    return "\n".join(lines)


def setting_names(model: type[BaseModel]) -> list[str]:
    """Returns the dotted names of all settings in a settings class, at any depth."""
    return list(dict.fromkeys(row.name for row in settings_table(model)))


def format_constraints(field: FieldInfo) -> str:
    """Returns the range or the choices of a field with a plain value, as text."""
    if get_origin(field.annotation) is Literal:
        return " | ".join(str(choice) for choice in get_args(field.annotation))
    bounds = [
        f"{words} {getattr(limit, attribute):g}"
        for limit in field.metadata
        for attribute, words in _COMPARISONS.items()
        if hasattr(limit, attribute)
    ]
    return ", ".join(bounds) or _TYPES.get(getattr(field.annotation, "__name__", ""), "")


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "required"
    return f"{field.default:.4g}" if isinstance(field.default, float) else str(field.default)


def _issue(model: type[BaseModel], tree: Mapping[str, Any], detail: ErrorDetails) -> ConfigIssue:
    """Returns the issue that corresponds to a pydantic error."""
    parts, holder = _locate(model, tree, detail["loc"])
    path, value = tuple(parts), detail["input"]
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == UNKNOWN:
        return _unknown(model, holder, path, own_pieces(model, tree).values())
    if kind == "missing":
        return ConfigIssue(path, "must be given", code=kind)
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        known, path = _kinds(holder, path), (*path, "kind")
        if isinstance(value, Mapping) and "kind" not in value:
            return ConfigIssue(path, f"must be given ({', '.join(known)})", code="missing")
        return _none_of(path, value.get("kind") if isinstance(value, Mapping) else value, known)
    if kind == "literal_error":
        expected = str(context["expected"]).replace("'", "").replace(" or ", ", ")
        return _none_of(path, value, expected.split(", "))
    if kind == "value_error":
        error = context["error"]
        if not isinstance(error, SettingError):
            return ConfigIssue(path, str(error), code=kind)
        issue = error.issue.below(*path)
        near = closest_match(str(issue.value), _kinds(holder, path)) if issue.code == UNKNOWN_KIND else None
        return replace(issue, hint=did_you_mean(near)) if near else issue
    if kind in _MUST_BE:
        hint = f"did you mean {{kind: {value}}}?" if value in _kinds(holder, path) else None
        return ConfigIssue(path, f"must be {_MUST_BE[kind]}, not {{value}}", value, hint, kind)
    if kind in ("too_short", "too_long"):
        most, bound = ("least", "min_length") if kind == "too_short" else ("most", "max_length")
        values = "value" if context[bound] == 1 else "values"
        return ConfigIssue(path, f"must have at {most} {context[bound]} {values}, not {{value}}", value, code=kind)
    message = detail["msg"].replace("Input should be", "must be").replace("String should", "must")
    return ConfigIssue(path, f"{message}, not {{value}}", value, code=kind)


def _unknown(
    model: type[BaseModel], holder: type[BaseModel] | None, path: Sequence[str], own: Iterable[type[Piece]]
) -> ConfigIssue:
    """Returns the issue for an unknown setting; the issue suggests the correct section or a similar name, if any."""
    table = list(settings_table(model, own=list(own)))
    known = list(holder.model_fields) if holder else []
    rule = "no such setting" + (f" of {kind_of(holder)}" if holder and kind_of(holder) else "")
    same = [row for row in table if row.name == ".".join(path)]
    kinds = [row.kind for row in same if row.kind]
    if kinds and "." not in path[-1]:
        return ConfigIssue(tuple(path), f"{rule} (it belongs to {', '.join(kinds)})", code=UNKNOWN)
    if same:  # a dotted name
        *outer, last = path[-1].split(".")
        nested = f"write it as {': {'.join(outer)}: {{{last}: ...{'}' * len(outer)}"
        return ConfigIssue(tuple(path), rule, hint=nested, code=UNKNOWN)
    dotted = [row.name for row in table] if "." in path[-1] else []
    if (
        near := closest_match(".".join(path), dotted)
        or same_name_elsewhere(model, path)
        or closest_match(path[-1], known)
    ):
        return ConfigIssue(tuple(path), rule, hint=did_you_mean(near), code=UNKNOWN)
    return ConfigIssue(tuple(path), f"{rule} (available: {', '.join(known)})", code=UNKNOWN)


def same_name_elsewhere(model: type[BaseModel], path: Sequence[str]) -> str | None:
    """Returns the dotted name of a setting whose last part is the same as that of a path.

    Args:
        model: The settings class.
        path: Parts of the dotted name of an unknown setting.

    Returns:
        The shortest such name, preferably in the same section; None if there is no such name.
    """
    found = (row.name for row in settings_table(model) if row.name.split(".")[-1] == path[-1])
    return min(found, key=lambda name: (not name.startswith(f"{path[0]}."), len(name)), default=None)


def _none_of(path: tuple[str, ...], value: Any, known: Sequence[str]) -> ConfigIssue:
    rule = f"{{value}} is not one of {', '.join(known)}"
    return ConfigIssue(path, rule, value, did_you_mean(closest_match(str(value), known)), "literal_error")


def did_you_mean(name: str | None) -> str | None:
    """Returns the hint that suggests a name; None if there is no name."""
    return f"did you mean {name}?" if name else None


def _kinds(holder: type[BaseModel] | None, path: Sequence[str]) -> list[str]:
    """Returns the kinds of pieces that the setting at a path accepts, directly or in a list."""
    fields = holder.model_fields if holder else {}
    field = next((fields[part] for part in reversed(path) if part in fields), None)
    if field and (family := family_of(field)):
        return family.kinds
    return [kind for piece in pieces_of(field) if (kind := kind_of(piece))] if field else []


def _locate(
    model: type[BaseModel], tree: Any, location: tuple[int | str, ...]
) -> tuple[list[str], type[BaseModel] | None]:
    """Returns the path of an invalid setting and the class that defines it.

    Names of union members, which pydantic adds to the path, are removed.
    """
    path: list[str] = []
    holder: type[BaseModel] | None = model
    options: list[type[BaseModel]] = []  # possible classes of the value at the current path
    named = False  # whether the next part is a key of a mapping or an index of a list, rather than a field
    field: FieldInfo | None = None  # the last field of the path
    for part in location:
        is_key = isinstance(tree, Mapping) and part in tree
        chosen = [option for option in options if kind_of(option) == part and not is_key]
        if chosen:
            holder, options = chosen[0], []
            continue
        if path and (isinstance(tree, str | int | float) or (tree is None and str(part).startswith("literal["))):
            continue  # a plain value has no parts, so this part is pydantic's name for a union member
        path.append(str(part))
        inside = isinstance(tree, Mapping) or (isinstance(tree, list) and isinstance(part, int) and part < len(tree))
        tree = (tree.get(part) if isinstance(tree, Mapping) else tree[part]) if inside else None
        if named:
            named = False
            options = _choice(field, tree) if field else options
            continue
        if options:
            holder, options = options[0], []
        field = holder.model_fields.get(str(part)) if holder else None
        if field is not None:
            options, named = _choice(field, tree), get_origin(field.annotation) in (dict, list)
        elif part != location[-1]:
            holder = None
    return path, holder


def _choice(field: FieldInfo, value: Any) -> list[type[BaseModel]]:
    """Returns the possible settings classes of a value; exactly one if its kind is known."""
    piece = piece_at(field, value)
    return [piece] if piece else pieces_of(field)
