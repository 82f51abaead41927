"""Semantic validation of a study: names, values and conditions."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ensdistill.config import Config, flatten, merge_settings, nest, presets, resolve
from ensdistill.errors import ConfigError, ConfigIssue, format_value
from ensdistill.evaluation.metrics import BUILT_IN
from ensdistill.methods.schedule import can_change
from ensdistill.settings.fields import own_pieces
from ensdistill.settings.pieces import Piece
from ensdistill.settings.validation import UNKNOWN, closest_match, did_you_mean, settings_table, validate
from ensdistill_tune.search.hyperparameter import Hyperparameter, as_list
from ensdistill_tune.search.search_space import topological_order
from ensdistill_tune.search.size import CONTINUOUS, distinct
from ensdistill_tune.study.objectives import COSTS, LATENCY
from ensdistill_tune.study.study_config import StudyConfig


def issues_of(study: StudyConfig) -> Iterator[ConfigIssue]:
    """Yields the issues of a study: first invalid names and conditions, then invalid values of valid settings.

    Args:
        study: The settings; their types and ranges must already be valid.
    """
    yield from _preset_issues(study)
    yield from _baselines_twice(study)
    yield from _objective_issues(study)
    yield from _first_issues(study)
    bad: set[str] = set()  # invalid axes
    for name, issue in [*_axis_issues(study), *_condition_issues(study)]:
        bad.add(name)
        yield issue
    if study.preset not in presets():
        return
    config_issues = list(_config_issues(study))
    yield from (issue.below("config") for issue in config_issues)
    sections = {_section(issue.name) for issue in config_issues}
    sound = study.model_copy(
        update={
            "config": {name: value for name, value in study.config.items() if name not in sections},
            "search": drop_dependents(
                study.search, bad | {name for name in study.search if _section(name) in sections}
            ),
        }
    )
    if list(_config_issues(sound)):
        return
    alone = list(_value_issues(sound))
    yield from alone or _pair_issues(sound)
    yield from _baseline_issues(sound)


def _preset_issues(study: StudyConfig) -> Iterator[ConfigIssue]:
    named: dict[tuple[str | int, ...], str] = {("preset",): study.preset}
    named |= {("baselines", n): name for n, name in enumerate(study.baselines)}
    for path, name in named.items():
        if name not in presets():
            near = closest_match(name, presets())
            rule = "{value} is not a preset" + ("" if near else f"; use one of {', '.join(presets())}")
            yield ConfigIssue(path, rule, name, did_you_mean(near))


def _baselines_twice(study: StudyConfig) -> Iterator[ConfigIssue]:
    for n, name in enumerate(study.baselines):
        if name in study.baselines[:n]:
            yield ConfigIssue(("baselines", n), f"{name} is already a baseline; remove it")


def _objective_issues(study: StudyConfig) -> Iterator[ConfigIssue]:
    """Yields issues with objectives, budgets and scheduler, and with axes that the `grid` searcher cannot search."""
    scheduler = study.scheduler
    yield from _metric_issues(study)
    if study.budget.gpu_hours is not None and not study.resources.gpus:
        rule = "has no effect, because trials have no GPU (resources.gpus is 0)"
        yield ConfigIssue(("budget", "gpu_hours"), rule, hint="remove it, or set budget.cpu_hours")
    for n, name in enumerate(study.secondary_objectives):
        if name in study.objectives[: n + 1]:
            yield ConfigIssue(("secondary_objectives", n), f"{name} is already an objective; remove it")
    if study.secondary_objectives and scheduler.kind not in ("asha", "none"):
        rule = f"{scheduler.kind} supports a single objective; with secondary_objectives use asha or none"
        yield ConfigIssue(("scheduler", "kind"), rule)
    if scheduler.kind == "pbt" and not any(map(can_change, study.search)):
        rule = "pbt requires an axis that can change during training, such as training.optimizer.lr"
        yield ConfigIssue(("scheduler", "kind"), rule)
    tolerance = getattr(scheduler, "tolerance", [])
    if tolerance and len(tolerance) != len(study.objectives):
        rule = f"must have one number for each of {len(study.objectives)} objectives, got {{value}}"
        yield ConfigIssue(("scheduler", "tolerance"), rule, len(tolerance))
    for n, name in enumerate(getattr(scheduler, "group_by", [])):
        path = ("scheduler", "group_by", n)
        if name not in study.search:
            yield ConfigIssue(path, f"{name} is not searched", hint=did_you_mean(closest_match(name, study.search)))
        elif study.search[name].finite_values is None:
            yield ConfigIssue(path, f"{name} differs in every trial; use axes with finitely many values")
    if study.searcher.kind == "grid":
        for axis_name, axis in study.search.items():
            if axis.finite_values is None:
                rule = f"the grid searcher requires finitely many values, got {axis.kind}; list them"
                yield ConfigIssue(("search", axis_name), rule)


def _metric_issues(study: StudyConfig) -> Iterator[ConfigIssue]:
    """Yields issues with objectives and constraints: metrics that are unknown or cannot be used in that role."""
    for path, name in _named_metrics(study):
        may_be_cost = path[0] != "objective"
        known = [metric for metric in study.directions if may_be_cost or metric not in COSTS]
        if name == LATENCY and path[0] == "constraints":
            continue
        if name == LATENCY:
            rule = f"{name} cannot be an objective, because it depends on the machine and its load"
            yield ConfigIssue(path, rule, hint=f"bound it (constraints: {{{name}: {{at_most: 2}}}})")
        elif name in COSTS and not may_be_cost:
            rule = f"{name} cannot be the primary objective"
            yield ConfigIssue(path, rule, hint="make it one of secondary_objectives")
        elif name not in known:
            near = closest_match(name, known) or closest_match(f"val/{name}", known)
            rule = f"no trial reports {name}" + ("" if near else f"; use one of {', '.join(known)}")
            yield ConfigIssue(path, rule, hint=did_you_mean(near))


def _named_metrics(study: StudyConfig) -> Iterator[tuple[tuple[str | int, ...], str]]:
    yield ("objective",), study.objective
    yield from ((("secondary_objectives", n), name) for n, name in enumerate(study.secondary_objectives))
    yield from ((("constraints", name), name) for name in study.constraints)


def study_warnings(study: StudyConfig) -> list[ConfigIssue]:
    """Returns warnings about settings that are allowed but rarely intended.

    Args:
        study: The settings.
    """
    path, found = ("searcher", "kind"), list[ConfigIssue]()
    if study.constraints and not study.searcher.uses_constraints:
        rule = f"{study.searcher.kind} ignores the constraints; they only decide which trials can win"
        found.append(ConfigIssue(path, rule, hint="use tpe, gp or nsga2, which search the feasible region"))
    conditional = [name for name, axis in study.search.items() if axis.when]
    if conditional and not study.searcher.uses_conditional:
        rule = f"{study.searcher.kind} samples conditional hyperparameters at random: {', '.join(conditional)}"
        found.append(ConfigIssue(path, rule, hint="use tpe, which models them"))
    return found


def class_issues(study: StudyConfig, classes: int) -> list[ConfigIssue]:
    """Returns issues with objectives and constraints whose metrics are undefined for this number of classes.

    Args:
        study: The settings.
        classes: Number of classes.
    """
    return [
        ConfigIssue(path, f"{name} requires at least {metric.min_classes} classes, got {classes}")
        for path, name in _named_metrics(study)
        if (metric := BUILT_IN.get(name.removeprefix("val/"))) and classes < metric.min_classes
    ]


def _first_issues(study: StudyConfig) -> Iterator[ConfigIssue]:
    for n, sample in enumerate(study.points_to_evaluate):
        yield from (issue.below("points_to_evaluate", n) for issue in _sample_issues(study, sample))


def _sample_issues(study: StudyConfig, sample: Mapping[str, Any]) -> Iterator[ConfigIssue]:
    for name, value in sample.items():
        if name not in study.search:
            yield ConfigIssue((name,), "not a searched setting", hint=did_you_mean(closest_match(name, study.search)))
        elif not study.search[name].contains(value):
            axis = study.search[name]
            rule = f"{{value}} is outside its domain: {axis.kind} {format_value(axis.values)}"
            yield ConfigIssue((name,), rule, value)


def enqueued_issues(study: StudyConfig, sample: Mapping[str, Any]) -> list[ConfigIssue]:
    """Returns issues with the settings of an enqueued trial; the searcher suggests the settings that are missing.

    If a setting has a condition, the settings in the condition must also be given; otherwise the searcher would suggest
    them, and the condition might not be met.

    Args:
        study: The settings of the study.
        sample: Values of searched settings, keyed by dotted name.
    """
    if issues := list(_sample_issues(study, sample)):
        return issues
    if not sample:
        return [ConfigIssue((), "give at least one of the searched settings")]
    for name in sample:
        if waits := [other for other in study.search[name].when if other not in sample]:
            issues.append(ConfigIssue((name,), f"depends on {', '.join(waits)}", hint="give both"))
        elif not study.search[name].is_active(sample):
            issues.append(ConfigIssue((name,), f"is active only if {_condition(study.search[name])}"))
    if not issues:
        try:
            study.trial_config(study.space.example(sample))
        except ConfigError as error:
            return error.issues
    return issues


def _condition(axis: Hyperparameter) -> str:
    return " and ".join(f"{other} is {format_value(wanted)}" for other, wanted in axis.when.items())


def _axis_issues(study: StudyConfig) -> Iterator[tuple[str, ConfigIssue]]:
    """Yields each axis that cannot be searched at all, with its issue."""
    known = {row.name for row in settings_table(Config, own=_own_pieces(study))}
    for name in study.search:
        path = ("search", name)
        if not any(is_under(name, setting) or is_under(setting, name) for setting in known):
            hint = did_you_mean(closest_match(name, known))
            yield name, ConfigIssue(path, "no such setting", hint=hint, code=UNKNOWN)
        elif _section(name) in ("data", "teachers") or name in ("training", "training.epochs"):
            rule = "all trials share the data, the teachers and the number of epochs; move this setting to config"
            yield name, ConfigIssue(path, rule)


def _own_pieces(study: StudyConfig) -> set[type[Piece]]:
    """Returns the custom pieces that a trial may use."""
    values = [(name, value) for name, axis in study.search.items() for value in axis.values]
    trees = [nest({name: value}) for name, value in values if isinstance(value, str | Mapping)]
    try:
        fixed = resolve({"preset": study.preset, **study.config})
    except ConfigError:  # another check reports the error
        return set()
    trees = [fixed, *(merge_settings(fixed, tree) for tree in trees)]
    return {piece for tree in trees for piece in own_pieces(Config, tree).values()}


def _condition_issues(study: StudyConfig) -> Iterator[tuple[str, ConfigIssue]]:
    """Yields each axis whose conditions can never be met, with the issue."""
    for name, axis in study.search.items():
        for other, wanted in axis.when.items():
            if issue := _condition_issue(study.search, other, as_list(wanted)):
                yield name, issue.below("search", name, "when")
    for circle in _circles(study.search):
        wait = "depend on each other; remove one of the conditions" if circle[1:] else "depends on itself; remove it"
        yield circle[0], ConfigIssue(("search", circle[0], "when"), f"{', '.join(circle)} {wait}")


def _condition_issue(search: Mapping[str, Hyperparameter], other: str, wanted: Sequence[Any]) -> ConfigIssue | None:
    if other not in search:
        near = did_you_mean(closest_match(other, search))
        return ConfigIssue((other,), "not a searched setting" + ("" if near else "; remove the condition"), hint=near)
    axis = search[other]
    drawn = f"{other} is {axis.kind} {format_value(axis.values)}"
    if axis.kind in CONTINUOUS:
        return ConfigIssue((other,), f"a condition requires an axis with finitely many values; {drawn}")
    if not wanted:
        return ConfigIssue((other,), f"must not be an empty list; {drawn}")
    never = [value for value in wanted if not axis.contains(value)]
    return ConfigIssue((other,), f"{{value}} is outside the domain; {drawn}", never[0]) if never else None


def _circles(search: Mapping[str, Hyperparameter]) -> list[list[str]]:
    """Returns the groups of axes whose conditions form a cycle; each cycle is returned only once."""
    order = topological_order(search)
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


def _config_issues(study: StudyConfig) -> Iterator[ConfigIssue]:
    """Yields issues with the fixed settings.

    If the kind of a piece is searched, the settings of this piece are checked only if the file sets them, because the
    other settings differ between trials.
    """
    misplaced = [name for name in ("preset", "search") if name in study.config]
    yield from (ConfigIssue((name,), "config has no such setting; move it out of config") for name in misplaced)
    own = {name: value for name, value in study.config.items() if name not in misplaced}
    searched = {_section(name) for name in study.search if name.endswith(".kind")}
    try:
        validate(Config, resolve({"preset": study.preset, **own}))
    except ConfigError as error:
        for issue in error.issues:
            if _section(issue.name) not in searched:
                yield issue
            elif any(is_under(issue.name, name) or is_under(name, issue.name) for name in flatten(own)):
                hint = f"; {_section(issue.name)}.kind is searched, so make this setting an axis with a condition"
                yield replace(issue, rule=issue.sentence + hint, hint=None) if issue.code == UNKNOWN else issue


def _value_issues(study: StudyConfig) -> Iterator[ConfigIssue]:
    """Yields issues with the choices or range ends of each axis; valid ends imply that the whole range is valid."""
    new_issues = _once(study)
    for name, axis in study.search.items():
        for value in distinct(axis.values):
            sampled = study.space.example({name: value})
            if name not in sampled:
                yield ConfigIssue(("search", name, "when"), "its conditions exclude each other")
                break
            for issue in new_issues(sampled):
                of_axis = issue.name in study.search
                yield issue.below("search") if of_axis else _at({name: value}, issue)


def _pair_issues(study: StudyConfig) -> Iterator[ConfigIssue]:
    """Yields issues with two values that are valid separately but not together; yields each issue once."""
    new_issues = _once(study)
    for (one, first), (two, second) in itertools.combinations(study.search.items(), 2):
        for a, b in itertools.product(distinct(first.values), distinct(second.values)):
            sampled = study.space.example({one: a, two: b})
            if (sampled.get(one), sampled.get(two)) == (a, b):  # their conditions do not exclude each other
                yield from (_at({one: a, two: b}, issue) for issue in new_issues(sampled))


def _at(values: Mapping[str, Any], issue: ConfigIssue) -> ConfigIssue:
    """Returns an issue for the first of these axes, which states that these values lead to the given issue."""
    given = tuple((f"search.{name}", value) for name, value in values.items())
    return ConfigIssue(("search", next(iter(values))), given=given, cause=issue)


def _once(study: StudyConfig) -> Callable[[Mapping[str, Any]], list[ConfigIssue]]:
    """Returns a function that validates sampled settings and returns only issues that no earlier call returned."""
    fixed = resolve({"preset": study.preset, **study.config})  # resolved only once, because resolving is slow
    seen: set[str] = set()

    def new_issues(sampled: Mapping[str, Any]) -> list[ConfigIssue]:
        try:
            validate(Config, merge_settings(fixed, nest(sampled)))
        except ConfigError as error:
            new = [issue for issue in error.issues if repr(issue) not in seen]
            seen.update(map(repr, new))
            return new
        return []

    return new_issues


def _baseline_issues(study: StudyConfig) -> Iterator[ConfigIssue]:
    for n, name in enumerate(study.baselines):
        if name in presets():
            try:
                study.baseline_config(name)
            except ConfigError as error:
                rule = f"{name} is not possible with this config"
                yield from (ConfigIssue(("baselines", n), rule, cause=issue) for issue in error.issues)


# --- names ------------------------------------------------------------------------------------------------------------


def is_under(name: str, part: str) -> bool:
    """Returns whether a dotted name equals `part` or is inside it."""
    return f"{name}.".startswith(f"{part}.")


def _section(name: str) -> str:
    """Returns the first part of a dotted name."""
    return name.split(".")[0]


def drop_dependents(search: Mapping[str, Any], bad: set[str]) -> dict[str, Any]:
    """Returns the valid axes whose conditions do not depend on invalid axes.

    Args:
        search: The axes, keyed by name.
        bad: Names of invalid axes.
    """
    if not bad:
        return dict(search)
    left = {name: axis for name, axis in search.items() if name not in bad}
    return drop_dependents(left, {name for name, axis in left.items() if bad & set(_conditions(axis))})


def _conditions(axis: Any) -> Mapping[str, Any]:
    found = axis.when if isinstance(axis, Hyperparameter) else axis.get("when") if isinstance(axis, Mapping) else None
    return found if isinstance(found, Mapping) else {}
