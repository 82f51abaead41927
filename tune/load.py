"""Reads a search space file. Every fault is found before the first trial; all are told at once, with their lines."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ensdistill.config import Config, merge, nest, parse_overrides
from ensdistill.errors import ConfigError
from ensdistill.faults import elsewhere, nearest, validate
from ensdistill.reading import Lines, Tree, parse_mapping, read_text
from tune.faults import faults_of, key_of, within, without
from tune.space import Study

_NO_AXES = {"seed": {"choice": [0]}}  # stands in where no axis is sound, so that the rest of the file can be judged


def load_study(path: str | Path, overrides: Sequence[str] = ()) -> Study:
    """The study of a search space file with `a.b=value` overrides. Raises ConfigError with every fault found.

    Each fault is `FILE, line 3: key: rule, value, way out`, in the order of lines; one of an override begins with it.
    """
    text, changes = read_text(path), parse_overrides(overrides)
    study, faults = _judge(parse_mapping(text, str(path)), changes)
    if study is None or faults:
        raise ConfigError(_placed(faults, str(path), Lines(text), list(changes)))
    return study


def _placed(faults: Sequence[str], path: str, lines: Lines, overrides: Sequence[str]) -> list[str]:
    """The faults with their places: those of the file by line, then those of overrides."""
    of_file, of_overrides = [], []
    for fault in faults:
        key = key_of(fault)
        by = next((name for name in overrides if within(key, name) or within(name, key)), None)
        if by is not None:
            of_overrides.append(f"--set {by}: {fault.removeprefix(f'{by}: ')}")
        elif line := lines.of(key):
            of_file.append((line, f"{path}, line {line}: {fault}"))
        else:
            of_file.append((0, f"{path}: {fault}"))
    return [fault for _, fault in sorted(of_file, key=lambda found: found[0])] + of_overrides


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
    if axes:
        tree["search"] = {**(tree.get("search") or {}), **axes}
    return tree


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
