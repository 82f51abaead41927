"""The settings reference, generated from the fields of the settings classes."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from ensdistill.config import Config
from ensdistill.settings.validation import SettingDoc, kind_of, pieces_of, settings_table
from ensdistill_tune.study.study_config import StudyConfig
from generated.docstrings import summary
from generated.markdown import code, escaped, table

MODELS: dict[str, type[BaseModel]] = {"student": Config, "study": StudyConfig}
PAGES = {"student": "reference/settings", "study": "reference/study-settings"}
OWN_SECTION = (
    "training.optimizer",
    "teachers.training.optimizer",
    "teachers.model",
    "teachers.training",
)  # nested sections that have a separate heading
GENERAL = "general"


def anchor(name: str) -> str:
    """Returns the anchor of a setting's row."""
    return "setting-" + name.replace(".", "-").replace("_", "-")


def pages() -> dict[str, tuple[str, str]]:
    """Returns the page and the anchor of every setting, keyed by its dotted name."""
    found: dict[str, tuple[str, str]] = {}
    for which, model in MODELS.items():
        for row in settings_table(model):
            found.setdefault(row.name, (PAGES[which], anchor(row.name)))
    return found


def markdown(which: str) -> str:
    """Returns the sections that describe the settings of one student (`student`) or of a study (`study`)."""
    model = MODELS[which]
    classes, defaults = dict(_classes(model)), _defaults(model)
    parts: list[str] = []
    seen: set[str] = set()
    for (section, kind), rows in _grouped(model).items():
        if section not in parts_named(parts):
            parts.append(f"## {code(section)}" if section != GENERAL else "## General")
        if kind:
            parts.append(f"### {code(f'{section}.kind: {kind}')}")
            parts.append(escaped(summary(classes[section, kind])))
        parts.append(table(["setting", "default", "range", "meaning"], [_row(row, defaults, seen) for row in rows]))
    return "\n\n".join(parts)


def rows_of(model: type[BaseModel], section: str, kind: str) -> str:
    """Returns a table that describes the settings of one piece, without anchors."""
    rows = [row for row in settings_table(model) if row.name.startswith(f"{section}.") and row.kind == kind]
    cells = [[code(row.name), code(row.default), escaped(row.limits), escaped(row.sentence)] for row in rows]
    return table(["setting", "default", "range", "meaning"], cells) if cells else ""


def parts_named(parts: list[str]) -> set[str]:
    """Returns the names of the sections in `parts`."""
    return {part.removeprefix("## ").strip("`").replace("General", GENERAL) for part in parts if part[:3] == "## "}


def _grouped(model: type[BaseModel]) -> dict[tuple[str, str], list[SettingDoc]]:
    """Returns the rows, keyed by section and kind, in field order; settings without a section come first."""
    groups: dict[tuple[str, str], list[SettingDoc]] = {(GENERAL, ""): []}
    for row in settings_table(model):
        section = next((own for own in OWN_SECTION if row.name.startswith(f"{own}.")), row.name.split(".")[0])
        key = (section if "." in row.name else GENERAL, row.kind)
        groups.setdefault(key, []).append(row)
    return groups


def _row(row: SettingDoc, defaults: Mapping[str, Any], seen: set[str]) -> list[str]:
    """Returns the cells of a row; if several rows have the same name, only the first one contains the anchor."""
    name = code(row.name)
    if row.name not in seen:
        name = f"[{name}]{{#{anchor(row.name)}}}"
    seen.add(row.name)
    return [name, code(_default(row, defaults)), escaped(row.limits), escaped(row.sentence)]


def _default(row: SettingDoc, defaults: Mapping[str, Any]) -> str:
    """Returns the default of a setting in its section, which can differ from the default in its class."""
    section = ".".join(row.name.split(".")[:-1])
    fits = not row.kind or defaults.get(f"{section}.kind") == row.kind
    value = defaults.get(row.name) if fits else None
    if isinstance(value, float) and not isinstance(value, bool):
        return f"{value:.4g}"
    return row.default if value is None else str(value)


def _defaults(model: type[BaseModel]) -> dict[str, Any]:
    """Returns the default of every setting, keyed by its dotted name."""
    found: dict[str, Any] = {}

    def walk(value: Any, name: str) -> None:
        if isinstance(value, BaseModel):
            for field in type(value).model_fields:
                walk(getattr(value, field), f"{name}.{field}")
        else:
            found[name] = value

    for name, field in model.model_fields.items():
        if not field.is_required():
            walk(field.default, name)
    return found


def _classes(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[tuple[str, str], type[BaseModel]]]:
    """Yields the section, the kind and the class of every piece."""
    for name, field in model.model_fields.items():
        for piece in pieces_of(field):
            yield (f"{prefix}{name}", kind_of(piece)), piece
            yield from _classes(piece, f"{prefix}{name}.")
