"""Faults in settings as lines a user can act on, and the table of all settings; both read the fields themselves."""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticUndefined

from ensdistill.errors import ConfigError
from ensdistill.settings import Settings

T = TypeVar("T", bound=Settings)

_COMPARISONS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
_TYPES = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text"}


def validate(model: type[T], tree: Mapping[str, Any]) -> T:
    """The settings of one class. Raises ConfigError with one line a fault: name, rule, value, way out."""
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise ConfigError([_line(model, tree, detail) for detail in error.errors()]) from None


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that looks most like this one, if any does."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return close[0] if close else None


@dataclass(frozen=True)
class Row:
    """One setting as the help shows it."""

    name: str
    kind: str  # the piece it belongs to, empty if to every one
    default: str
    limits: str
    sentence: str


def settings_table(model: type[BaseModel], prefix: str = "") -> Iterator[Row]:
    """Every setting below a settings class: name, default, range and sentence, read off the fields."""
    for name, field in model.model_fields.items():
        pieces = pieces_of(field)
        if not pieces or get_origin(field.annotation) is list:
            yield Row(f"{prefix}{name}", "", _default(field), limits_of(field), field.description or "")
            continue
        if any("kind" in piece.model_fields for piece in pieces):
            kinds = " | ".join(kind_of(piece) for piece in pieces)
            default = getattr(field.default, "kind", "")
            yield Row(f"{prefix}{name}.kind", "", default, kinds, field.description or "")
        for piece in pieces:
            kind = kind_of(piece) if len(pieces) > 1 else ""
            for row in settings_table(piece, f"{prefix}{name}."):
                if row.name != f"{prefix}{name}.kind":
                    yield Row(row.name, row.kind or kind, row.default, row.limits, row.sentence)


def settings_help(model: type[BaseModel], title: str) -> str:
    """Every setting below a settings class with its default, range and sentence, as text below a title."""
    lines = [title]
    for row in settings_table(model):
        kind = f" [{row.kind}]" if row.kind else ""
        limits = f"; {row.limits}" if row.limits else ""
        lines.append(f"  {row.name}{kind} = {row.default}{limits}\n      {row.sentence}")
    return "\n".join(lines)


def pieces_of(field: FieldInfo) -> list[type[BaseModel]]:
    """The settings classes that a field may hold; empty for a plain value."""
    options = [field.annotation, *get_args(field.annotation)]
    if get_origin(field.annotation) is list and get_args(options[1]):  # of pieces told apart by their kind
        options = list(get_args(get_args(options[1])[0]))
    return [option for option in options if isinstance(option, type) and issubclass(option, BaseModel)]


def kind_of(piece: type[BaseModel]) -> str:
    """The name that selects this piece in YAML."""
    kind = piece.model_fields.get("kind")
    return str(kind.default) if kind else ""


def limits_of(field: FieldInfo) -> str:
    """The range or the choices of a plain field, in words."""
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


def _line(model: type[BaseModel], tree: Mapping[str, Any], detail: ErrorDetails) -> str:
    """One fault as `name: rule, value, way out`."""
    path, holder = _place(model, tree, detail["loc"])
    name, value = ".".join(path), detail["input"]
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        known = list(holder.model_fields) if holder else []
        owner = f" of {kind_of(holder)}" if holder and kind_of(holder) else ""
        hint = nearest(path[-1], known)
        way_out = f"did you mean {hint}?" if hint else f"there are {', '.join(known)}"
        return f"{name}: no such setting{owner} ({way_out})"
    if kind == "missing":
        return f"{name}: must be given"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        tag = value.get("kind") if isinstance(value, Mapping) else value
        expected = str(context.get("expected_tags", "")).replace("'", "")
        hint = nearest(str(tag), expected.split(", "))
        return f"{name}.kind: {tag!r} is none of {expected or 'the kinds'}" + (
            f" (did you mean {hint}?)" if hint else ""
        )
    if kind == "literal_error":
        expected = str(context["expected"]).replace("'", "")
        hint = nearest(str(value), expected.replace(" or ", ", ").split(", "))
        return f"{name}: {value!r} is none of {expected}" + _did_you_mean(hint)
    if kind == "value_error":
        return ": ".join(filter(None, [name, str(context["error"])]))
    message = detail["msg"].replace("Input should be", "must be")
    return f"{name}: {message}, not {value!r}"


def _did_you_mean(hint: str | None) -> str:
    return f" (did you mean {hint}?)" if hint else ""


def _place(
    model: type[BaseModel], tree: Any, location: tuple[int | str, ...]
) -> tuple[list[str], type[BaseModel] | None]:
    """The dotted path of a fault (without pydantic's own marks of unions) and the settings class that holds it."""
    path: list[str] = []
    holder: type[BaseModel] | None = model
    options: list[type[BaseModel]] = []  # what the value at the path so far may be
    named = False  # whether the next part is a free name or number, as in a mapping or list of settings
    for part in location:
        is_key = isinstance(tree, Mapping) and part in tree
        chosen = [option for option in options if kind_of(option) == part and not is_key]
        if chosen:
            holder, options = chosen[0], []
            continue
        path.append(str(part))
        inside = isinstance(tree, Mapping) or (isinstance(tree, list) and isinstance(part, int) and part < len(tree))
        tree = (tree.get(part) if isinstance(tree, Mapping) else tree[part]) if inside else None
        if named:
            named = False
            continue
        if options:
            holder, options = options[0], []
        field = holder.model_fields.get(str(part)) if holder else None
        if field is not None:
            options, named = pieces_of(field), get_origin(field.annotation) in (dict, list)
        elif part != location[-1]:
            holder = None
    return path, holder
