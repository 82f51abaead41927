"""Reads a search space file. Every fault is found before the first trial; all are told at once, with their lines."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ensdistill.config import Config, merge, nest, parse_overrides
from ensdistill.errors import ConfigError
from ensdistill.faults import elsewhere, nearest, validate
from ensdistill.paths import absolute
from ensdistill.reading import Lines, Tree, parse_mapping, read_text
from ensdistill_tune.faults import faults_of, key_of, within, without
from ensdistill_tune.space import Study, study_files

_NO_AXES = {"seed": {"choice": [0]}}  # stands in where no axis is sound, so that the rest of the file can be judged


def load_study(path: str | Path, overrides: Sequence[str] = ()) -> Study:
    """The study of a search space file with `a.b=value` overrides. Raises ConfigError with every fault found.

    Each fault is `FILE, line 3: key: rule, value, way out`, in the order of lines; one of an override begins with it.
    """
    text, changes = read_text(path), _parse_changes(overrides)
    tree = absolute(parse_mapping(text, str(path)), Path(path).parent, study_files())
    study, faults = _judge(tree, changes)
    if study is None or faults:
        without_changes = _judge(tree, {})[1] if changes else faults
        blame = {fault: _override_at_fault(fault, changes, without_changes) for fault in faults}
        of_file = [fault for fault in faults if not blame[fault]]
        told = [f"--set {name}: {fault.removeprefix(f'{name}: ')}" for fault, name in blame.items() if name]
        raise ConfigError([*_by_line(of_file, str(path), Lines(text)), *told])
    return study


def change_study(study: Study, overrides: Sequence[str]) -> Study:
    """A study with `a.b=value` overrides. Raises ConfigError with every fault found."""
    changes = _parse_changes(overrides)
    changed, faults = _judge(study.model_dump(mode="json"), changes)
    if changed is None or faults:
        raise ConfigError([f"--set {fault}" for fault in faults])
    return changed


def _parse_changes(overrides: Sequence[str]) -> Tree:
    changes: Tree = absolute(parse_overrides(overrides), "", study_files())
    return changes


def _override_at_fault(fault: str, changes: Mapping[str, Any], without_changes: Sequence[str]) -> str | None:
    """The override that gives the value at fault, or a part of a value that is not at fault without it."""
    key = key_of(fault)
    whole = (name for name in changes if within(key, name))
    parts = (name for name in changes if within(name, key) and fault not in without_changes)
    return next(whole, None) or next(parts, None)


def _by_line(faults: Sequence[str], path: str, lines: Lines) -> list[str]:
    """The faults of a file with its name and their lines, in the order of lines."""
    found = sorted(((lines.of(key_of(fault)) or 0, fault) for fault in faults), key=lambda pair: pair[0])
    return [f"{path}, line {line}: {fault}" if line else f"{path}: {fault}" for line, fault in found]


# --- from the tree of a file to a study ------------------------------------------------------------------------------


def _judge(tree: Tree, changes: Mapping[str, Any]) -> tuple[Study | None, list[str]]:
    """The study, as far as it is sound, and all that is wrong with it."""
    try:
        tree = _with_overrides(tree, changes)
    except ConfigError as error:
        return None, error.faults
    try:
        study: Study | None = validate(Study, tree)
        faults = []
    except ConfigError as error:  # the rest is looked at too, so that all faults are told at once
        faults = [_of_a_study(fault) for fault in error.faults]
        study = _sound_part(tree, faults)
    return study, [*faults, *(faults_of(study) if study else [])]


def _with_overrides(tree: Tree, changes: Mapping[str, Any]) -> Tree:
    """The file's settings with dotted ones on top; `search.` is followed by the dotted name of one axis."""
    axes = {name.removeprefix("search."): value for name, value in changes.items() if name.startswith("search.")}
    others = nest({name: value for name, value in changes.items() if not name.startswith("search.")})
    if isinstance(tree.get("config"), Mapping):
        tree = {**tree, "config": _nested(tree["config"])}
    tree = merge(tree, others)
    search = tree.get("search") or {}
    return {**tree, "search": {**search, **axes}} if axes and isinstance(search, Mapping) else tree


def _nested(config: Mapping[str, Any]) -> Tree:
    try:
        return nest(config)
    except ConfigError as error:
        raise ConfigError([f"config.{fault}" for fault in error.faults]) from None


def _of_a_study(fault: str) -> str:
    """The fault, with the way out for a setting of trials that stands beside `config`, not in it."""
    name = key_of(fault)
    if name in Study.model_fields or "." in name or ("did you mean" in fault and name not in Config.model_fields):
        return fault
    hint = nearest(name, Config.model_fields) or elsewhere(Config, [name])
    return f"{name}: no such setting of a study (did you mean config.{hint}?)" if hint else fault


def _sound_part(tree: Tree, faults: Sequence[str]) -> Study | None:
    """The study without the axes and settings at fault; None if that is none."""
    names = [key_of(fault) for fault in faults]
    search = tree.get("search")
    axes = search if isinstance(search, dict) else {}
    left = without(axes, {axis for axis in axes if any(within(name, f"search.{axis}") for name in names)})
    rest = {name: value for name, value in tree.items() if not any(within(n, name) for n in names)}
    try:
        study = validate(Study, {**rest, "search": left or _NO_AXES})
    except ConfigError:
        return None
    return study if left else study.model_copy(update={"search": {}})
