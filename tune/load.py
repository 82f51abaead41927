"""Reads a search space file. Every fault is found before the first trial, and all are told at once."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ensdistill.config import Config, complete, merge, nest, parse_overrides, presets
from ensdistill.errors import ConfigError
from ensdistill.faults import nearest, validate
from ensdistill.reading import Tree, read_yaml
from tune.axis import Axis, as_list
from tune.space import Study, example, ordered


def load_study(path: str | Path, overrides: Sequence[str] = ()) -> Study:
    """The study of a search space file with `a.b=value` overrides. Raises ConfigError with every fault found."""
    tree = _with_overrides(read_yaml(path), parse_overrides(overrides))
    try:
        study = validate(Study, tree)
    except ConfigError as error:  # the rest is looked at too, so that all faults are told at once
        sound = _sound_part(tree, error.faults)
        raise ConfigError([*error.faults, *(_faults(sound) if sound else [])]) from None
    if faults := list(_faults(study)):
        raise ConfigError(faults)
    return study


def change_study(study: Study, overrides: Sequence[str]) -> Study:
    """A study with `a.b=value` overrides. Raises ConfigError with every fault found."""
    changed = validate(Study, _with_overrides(study.model_dump(mode="json"), parse_overrides(overrides)))
    if faults := list(_faults(changed)):
        raise ConfigError(faults)
    return changed


def _sound_part(tree: Tree, faults: Sequence[str]) -> Study | None:
    """The study without the axes and settings at fault; None if that is none."""
    names = [fault.split(":")[0] for fault in faults]
    search = tree.get("search")
    axes = search if isinstance(search, dict) else {}
    bad = {axis for axis in axes for name in names if f"{name}.".startswith(f"search.{axis}.")}
    rest = {name: value for name, value in tree.items() if not any(f"{n}.".startswith(f"{name}.") for n in names)}
    try:
        return validate(Study, {**rest, "search": _without(axes, bad)})
    except ConfigError:
        return None


def _without(search: Mapping[str, Any], bad: set[str]) -> dict[str, Any]:
    """The axes without these and all whose conditions hang on them."""
    if not bad:
        return dict(search)
    left = {name: axis for name, axis in search.items() if name not in bad}
    return _without(left, {name for name, axis in left.items() if bad & set(_conditions(axis))})


def _conditions(axis: Any) -> Mapping[str, Any]:
    found = axis.when if isinstance(axis, Axis) else axis.get("when") if isinstance(axis, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _with_overrides(tree: Tree, overrides: Mapping[str, Any]) -> Tree:
    """The file's settings with dotted ones on top; `search.` is followed by the dotted name of one axis."""
    axes = {name.removeprefix("search."): value for name, value in overrides.items() if name.startswith("search.")}
    others = nest({name: value for name, value in overrides.items() if not name.startswith("search.")})
    if own := [name for name in others if name not in Study.model_fields and name in Config.model_fields]:
        raise ConfigError([f"--set {name}: no such setting of a study (did you mean config.{name}?)" for name in own])
    tree = merge(tree, others)
    if isinstance(tree.get("config"), Mapping):
        tree["config"] = nest(tree["config"])
    if axes:
        tree["search"] = {**(tree.get("search") or {}), **axes}
    return tree


def _faults(study: Study) -> Iterator[str]:
    """All that is wrong with the names, values and conditions of a study, one line each."""
    for name in [study.preset, *study.baselines]:
        if name not in presets():
            hint = nearest(name, presets())
            yield f"{name}: no such preset" + (f" (did you mean {hint}?)" if hint else f"; there are {presets()}")
    if study.preset not in presets():
        return
    try:
        fixed = complete({"preset": study.preset, **study.config})
        conditional = {name.split(".")[0] for name in study.search if name.endswith(".kind")}
        if not conditional & set(study.config):
            validate(Config, fixed)
    except ConfigError as error:
        yield from (f"config.{fault}" for fault in error.faults)
        return
    for name in study.search:
        if name.split(".")[0] in ("data", "teachers") or name == "training.epochs":
            yield f"search.{name}: all trials of a study share their data, teachers and length; set it under config"
    conditions = list(_condition_faults(study))
    yield from (fault for _, fault in conditions)
    sound = study.model_copy(update={"search": _without(study.search, {name for name, _ in conditions})})
    if sound.search:
        alone = list(_value_faults(sound))
        yield from alone or _pair_faults(sound)
    for name in study.baselines:
        if name in presets():
            try:
                study.baseline_config(name)
            except ConfigError as error:
                yield from (f"baseline {name}: {fault}" for fault in error.faults)


def _condition_faults(study: Study) -> Iterator[tuple[str, str]]:
    """The axes whose conditions are at fault, with the fault."""
    for name, axis in study.search.items():
        for other, wanted in axis.when.items():
            where = f"search.{name}.when.{other}"
            if other not in study.search:
                hint = nearest(other, study.search)
                way_out = f" (did you mean {hint}?)" if hint else "; drop the condition"
                yield name, f"{where}: not a searched setting{way_out}"
            elif never := [value for value in as_list(wanted) if not _can_be(study.search[other], value)]:
                drawn = f"{study.search[other].way} {study.search[other].values}"
                yield name, f"{where}: {never[0]!r} can never occur; {other} is {drawn}"
    if circle := _circle(study.search):
        yield circle[0], f"search: the conditions of {', '.join(circle)} wait for each other"


def _can_be(axis: Axis, value: Any) -> bool:
    if axis.way == "choice":
        return value in axis.values
    low, high = axis.values
    return axis.way == "integer" and isinstance(value, int) and low <= value <= high


def _pair_faults(study: Study) -> Iterator[str]:
    """Values that are sound alone and not beside each other, each pair of values of two axes once."""
    seen: set[str] = set()
    for (one, first), (two, second) in itertools.combinations(study.search.items(), 2):
        for a, b in itertools.product(first.values, second.values):
            sampled = example(study, {one: a, two: b})
            if (sampled.get(one), sampled.get(two)) != (a, b):
                continue  # their conditions exclude each other
            try:
                study.trial_config(sampled)
            except ConfigError as error:
                new = [fault for fault in error.faults if fault not in seen]
                seen.update(new)
                yield from (f"search.{one} = {a!r} with search.{two} = {b!r}: {fault}" for fault in new)


def _value_faults(study: Study) -> Iterator[str]:
    """Faults of each axis at its choices or the ends of its range; between them the rules of all settings hold."""
    seen: set[str] = set()
    for name, axis in study.search.items():
        for value in axis.values:
            sampled = example(study, {name: value})
            if name not in sampled:
                yield f"search.{name}.when: its conditions can never hold together"
                break
            try:
                study.trial_config(sampled)
            except ConfigError as error:
                new = [fault for fault in error.faults if fault not in seen]
                seen.update(new)
                named = [fault for fault in new if fault.split(":")[0] in study.search]
                yield from (f"search.{fault}" for fault in named)
                yield from (f"search.{name} = {value!r}: {fault}" for fault in new if fault not in named)


def _circle(search: Mapping[str, Axis]) -> list[str]:
    order = ordered(search)
    return [name for name in search if name not in order]
