"""What is wrong with the names, values and conditions of a study, as lines that begin with the name at fault."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ensdistill.changes import can_change
from ensdistill.config import Config, complete, flatten, merge, nest, presets
from ensdistill.errors import ConfigError, shown
from ensdistill.faults import did_you_mean, nearest, settings_table, validate
from ensdistill_tune.axis import Axis, as_list
from ensdistill_tune.size import CONTINUOUS, distinct
from ensdistill_tune.space import Study, example, ordered


def faults_of(study: Study) -> Iterator[str]:
    """One line each: first what can be said of single names, then what needs all other names to be sound."""
    yield from _preset_faults(study)
    yield from _baselines_twice(study)
    yield from _objective_faults(study)
    yield from _first_faults(study)
    bad: set[str] = set()  # axes
    for name, fault in [*_axis_faults(study), *_condition_faults(study)]:
        bad.add(name)
        yield fault
    if study.preset not in presets():
        return
    config_faults = list(_config_faults(study))
    yield from (f"config.{fault}" for fault in config_faults)
    sections = {_section(fault) for fault in config_faults}
    sound = study.model_copy(
        update={
            "config": {name: value for name, value in study.config.items() if name not in sections},
            "search": without(study.search, bad | {name for name in study.search if _section(name) in sections}),
        }
    )
    if list(_config_faults(sound)):
        return
    alone = list(_value_faults(sound))
    yield from alone or _pair_faults(sound)
    yield from _baseline_faults(sound)


def _preset_faults(study: Study) -> Iterator[str]:
    named = {"preset": study.preset} | {f"baselines.{n}": name for n, name in enumerate(study.baselines)}
    for key, name in named.items():
        if name not in presets():
            way_out = did_you_mean(nearest(name, presets())) or f" (there are {', '.join(presets())})"
            yield f"{key}: {name!r} is no preset{way_out}"


def _baselines_twice(study: Study) -> Iterator[str]:
    for n, name in enumerate(study.baselines):
        if name in study.baselines[:n]:
            yield f"baselines.{n}: {name} is a baseline already; leave it out"


def _objective_faults(study: Study) -> Iterator[str]:
    """What several objectives ask of the scheduler, and `grid` of the axes."""
    for n, name in enumerate(study.against):
        if name in study.objectives[: n + 1]:
            yield f"against.{n}: {name} is an objective already; leave it out"
    if study.against and study.scheduler.kind not in ("asha", "none"):
        yield f"scheduler.kind: {study.scheduler.kind} knows one objective only; with against it is asha or none"
    if study.scheduler.kind == "pbt" and not any(map(can_change, study.search)):
        yield "scheduler.kind: pbt needs an axis that may change while a student is trained, such as training.lr"
    tolerance = getattr(study.scheduler, "tolerance", [])
    if tolerance and len(tolerance) != len(study.objectives):
        yield f"scheduler.tolerance: one number for each of {len(study.objectives)} objectives, not {len(tolerance)}"
    for n, name in enumerate(getattr(study.scheduler, "within", [])):
        if name not in study.search:
            yield f"scheduler.within.{n}: {name} is not searched{did_you_mean(nearest(name, study.search))}"
        elif study.search[name].every is None:
            yield f"scheduler.within.{n}: {name} has no two trials alike; name axes whose values can be listed"
    if study.searcher.kind == "grid":
        for axis_name, axis in study.search.items():
            if axis.every is None:
                yield f"search.{axis_name}: searcher grid needs values that can be listed, not {axis.way}; list them"


def _first_faults(study: Study) -> Iterator[str]:
    for n, sample in enumerate(study.first):
        for name, value in sample.items():
            if name not in study.search:
                yield f"first.{n}.{name}: not a searched setting{did_you_mean(nearest(name, study.search))}"
            elif not study.search[name].allows(value):
                axis = study.search[name]
                yield f"first.{n}.{name}: {shown(value)} can never occur; it is {axis.way} {shown(axis.values)}"


def _axis_faults(study: Study) -> Iterator[tuple[str, str]]:
    """The axes that cannot be searched whatever their values, with the fault."""
    known = {row.name for row in settings_table(Config)}
    for name in study.search:
        if not any(within(name, setting) or within(setting, name) for setting in known):
            yield name, f"search.{name}: no such setting{did_you_mean(nearest(name, known))}"
        elif _section(name) in ("data", "teachers") or name in ("training", "training.epochs"):
            rule = "all trials of a study share their data, teachers and length"
            yield name, f"search.{name}: {rule}; set it under config"


def _condition_faults(study: Study) -> Iterator[tuple[str, str]]:
    """The axes whose conditions are at fault, with the fault."""
    for name, axis in study.search.items():
        for other, wanted in axis.when.items():
            if fault := _condition_fault(study.search, other, as_list(wanted)):
                yield name, f"search.{name}.when.{other}: {fault}"
    for circle in _circles(study.search):
        wait = "wait for each other; drop one of the conditions" if circle[1:] else "waits for itself; drop it"
        yield circle[0], f"search.{circle[0]}.when: {', '.join(circle)} {wait}"


def _condition_fault(search: Mapping[str, Axis], other: str, wanted: Sequence[Any]) -> str | None:
    if other not in search:
        return f"not a searched setting{did_you_mean(nearest(other, search)) or '; drop the condition'}"
    axis = search[other]
    drawn = f"{other} is {axis.way} {shown(axis.values)}"
    if axis.way in CONTINUOUS:
        return f"a condition needs another axis of single values; {drawn}"
    if not wanted:
        return f"an empty list can never be met; {drawn}"
    never = [value for value in wanted if not axis.allows(value)]
    return f"{shown(never[0])} can never occur; {drawn}" if never else None


def _circles(search: Mapping[str, Axis]) -> list[list[str]]:
    """The axes whose conditions lead back to themselves, each circle once."""
    order = ordered(search)
    waiting = {
        name: next(o for o in axis.when if o in search and o not in order)
        for name, axis in search.items()
        if name not in order
    }
    circles: dict[frozenset[str], list[str]] = {}
    for name in waiting:
        walk = [name]
        while (after := waiting[walk[-1]]) not in walk:
            walk.append(after)
        circle = walk[walk.index(after) :]
        circles.setdefault(frozenset(circle), circle)
    return list(circles.values())


def _config_faults(study: Study) -> Iterator[str]:
    """Faults of the fixed settings alone.

    Where the kind of a piece is searched, only what the file itself says of that piece counts: the rest changes.
    """
    misplaced = [name for name in ("preset", "search") if name in study.config]
    yield from (f"{name}: no such setting of config; it stands beside config" for name in misplaced)
    own = {name: value for name, value in study.config.items() if name not in misplaced}
    searched = {_section(name) for name in study.search if name.endswith(".kind")}
    try:
        validate(Config, complete({"preset": study.preset, **own}))
    except ConfigError as error:
        for fault in error.faults:
            if _section(fault) not in searched:
                yield fault
            elif any(within(key_of(fault), name) or within(name, key_of(fault)) for name in flatten(own)):
                hint = f"; {_section(fault)}.kind is searched, so give it as an axis with a condition"
                yield fault + (hint if ": no such setting" in fault else "")


def _value_faults(study: Study) -> Iterator[str]:
    """Faults of each axis at its choices or the ends of its range; between them the rules of all settings hold."""
    new_faults = _told_once(study)
    for name, axis in study.search.items():
        for value in distinct(axis.values):
            sampled = example(study, {name: value})
            if name not in sampled:
                yield f"search.{name}.when: its conditions can never hold together"
                break
            for fault in new_faults(sampled):
                yield f"search.{fault}" if key_of(fault) in study.search else f"search.{name} = {shown(value)}: {fault}"


def _pair_faults(study: Study) -> Iterator[str]:
    """Values that are sound alone and not beside each other, each pair of values of two axes once."""
    new_faults = _told_once(study)
    for (one, first), (two, second) in itertools.combinations(study.search.items(), 2):
        for a, b in itertools.product(distinct(first.values), distinct(second.values)):
            sampled = example(study, {one: a, two: b})
            if (sampled.get(one), sampled.get(two)) == (a, b):  # their conditions do not exclude each other
                for fault in new_faults(sampled):
                    yield f"search.{one} = {shown(a)} with search.{two} = {shown(b)}: {fault}"


def _told_once(study: Study) -> Callable[[Mapping[str, Any]], list[str]]:
    """What says of one trial after the other which faults it has that none had before."""
    fixed = complete({"preset": study.preset, **study.config})  # once: reading the preset is the slow part of a trial
    seen: set[str] = set()

    def new_faults(sampled: Mapping[str, Any]) -> list[str]:
        try:
            validate(Config, merge(fixed, nest(sampled)))
        except ConfigError as error:
            new = [fault for fault in error.faults if fault not in seen]
            seen.update(new)
            return new
        return []

    return new_faults


def _baseline_faults(study: Study) -> Iterator[str]:
    for n, name in enumerate(study.baselines):
        if name in presets():
            try:
                study.baseline_config(name)
            except ConfigError as error:
                yield from (f"baselines.{n}: {name} cannot hold with this config: {fault}" for fault in error.faults)


# --- names ------------------------------------------------------------------------------------------------------------


def key_of(fault: str) -> str:
    """The dotted name that a fault begins with."""
    return fault.split(": ")[0].split(" = ")[0]


def within(name: str, part: str) -> bool:
    """Whether a dotted name is this part or lies below it."""
    return f"{name}.".startswith(f"{part}.")


def _section(name: str) -> str:
    """The first part of a dotted name, or of the name that a fault begins with."""
    return key_of(name).split(".")[0]


def without(search: Mapping[str, Any], bad: set[str]) -> dict[str, Any]:
    """The axes without these and all whose conditions hang on them."""
    if not bad:
        return dict(search)
    left = {name: axis for name, axis in search.items() if name not in bad}
    return without(left, {name for name, axis in left.items() if bad & set(_conditions(axis))})


def _conditions(axis: Any) -> Mapping[str, Any]:
    found = axis.when if isinstance(axis, Axis) else axis.get("when") if isinstance(axis, Mapping) else None
    return found if isinstance(found, Mapping) else {}
