"""Reads a search space file. All issues are reported together before the first trial, with line numbers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ensdistill.config import Config, merge_settings, nest, parse_overrides
from ensdistill.errors import ConfigError, ConfigIssue
from ensdistill.settings.paths import absolute
from ensdistill.settings.validation import UNKNOWN, closest_match, did_you_mean, same_name_elsewhere, validate
from ensdistill.settings.yaml_loader import LineIndex, YamlDict, parse_mapping, read_text
from ensdistill_tune.search.hyperparameter import Hyperparameter
from ensdistill_tune.search.size import size_of
from ensdistill_tune.study.study_config import StudyConfig, study_files
from ensdistill_tune.study.validation import drop_dependents, is_under, issues_of

WARNING = "warning"  # code of issues that do not prevent a launch
_NO_AXES = {"seed": {"choice": [0]}}  # used if no axis is valid, so that the other settings are still checked


Overrides = Mapping[str, Any] | Sequence[str]  # values keyed by dotted name, or strings `a.b=value`


def load_study(path: str | Path, overrides: Overrides = ()) -> StudyConfig:
    """Returns the study that a search space file defines.

    Args:
        path: The file.
        overrides: Settings to override, keyed by dotted name, or strings `a.b=value` as on the command line.

    Raises:
        ConfigError: The settings are invalid. The error contains all issues, ordered by line, each in the form
            `FILE, line 3: key: rule, value, fix`. An issue in an override begins with `--set` or `overrides:` instead.
        DataError: The file cannot be read.
    """
    text, changes = read_text(path), _parse_changes(overrides)
    tree = parse_mapping(text, str(path))
    config = tree.get("config")
    tree = absolute(tree, Path(path).parent, study_files(config if isinstance(config, Mapping) else None))
    study, issues = _judge(tree, changes)
    if study is None or issues:
        without_changes = _judge(tree, {})[1] if changes else issues
        blame = [(issue, _override_at_fault(issue, changes, without_changes)) for issue in issues]
        of_file = [issue for issue, name in blame if not name]
        of_overrides = [_of_override(issue, name, origin_of(overrides)) for issue, name in blame if name]
        raise ConfigError([*_by_line(of_file, str(path), LineIndex(text)), *of_overrides])
    return study


def check_study(study: StudyConfig) -> list[ConfigIssue]:
    """Returns all issues of a study: errors first, then warnings, whose code is `WARNING`."""
    return [*_judge(_tree_of(study), {})[1], *_warnings(study)]


def checked(study: StudyConfig) -> StudyConfig:
    """Validates the settings of a study, and returns the study with absolute paths.

    Args:
        study: The settings.

    Raises:
        ConfigError: The settings are invalid. The error contains all issues.
    """
    whole, issues = _judge(_tree_of(study), {})
    if whole is None or issues:
        raise ConfigError(issues)
    return whole


def _tree_of(study: StudyConfig) -> YamlDict:
    tree: YamlDict = absolute(study.model_dump(mode="json"), "", study_files(study.config))
    return tree


def _warnings(study: StudyConfig) -> Iterator[ConfigIssue]:
    size = size_of(study.search)
    if not size.continuous and size.combinations < study.budget.trials and study.searcher.kind != "grid":
        rule = f"must be at most {size.combinations}, the number of different settings; otherwise settings are repeated"
        yield ConfigIssue(("budget", "trials"), rule, study.budget.trials, code=WARNING)


def origin_of(overrides: Overrides) -> str:
    """Returns the prefix for issues in overrides: the option on the command line, or the argument in Python."""
    return "overrides: " if isinstance(overrides, Mapping) else "--set "


def change_study(study: StudyConfig, overrides: Overrides) -> StudyConfig:
    """Returns a study with overrides applied.

    Args:
        study: The settings.
        overrides: Settings to override, keyed by dotted name, or strings `a.b=value` as on the command line.

    Raises:
        ConfigError: The changed settings are invalid. The error contains all issues.
    """
    changes = _parse_changes(overrides)
    changed, issues = _judge(study.model_dump(mode="json"), changes)
    if changed is None or issues:
        raise ConfigError([replace(issue, origin=origin_of(overrides)) for issue in issues])
    return changed


def _parse_changes(overrides: Overrides) -> YamlDict:
    named = dict(overrides) if isinstance(overrides, Mapping) else parse_overrides(overrides)
    changes: YamlDict = absolute(named, "", study_files())
    return changes


def _override_at_fault(
    issue: ConfigIssue, changes: Mapping[str, Any], without_changes: Sequence[ConfigIssue]
) -> str | None:
    """Returns the name of the override that causes the issue; None if the file alone causes the issue."""
    is_new = repr(issue) not in map(repr, without_changes)
    whole = (name for name in changes if is_under(issue.name, name))
    parts = (name for name in changes if is_under(name, issue.name) and is_new)
    return next(whole, None) or next(parts, None)


def _of_override(issue: ConfigIssue, name: str, origin: str) -> ConfigIssue:
    """Returns a copy of an issue; the new message begins with the faulty override and names each setting once."""
    alone = issue.name == name and not issue.given
    return replace(issue, origin=origin if alone else f"{origin}{name}: ")


def _by_line(issues: Sequence[ConfigIssue], path: str, lines: LineIndex) -> list[ConfigIssue]:
    """Returns the issues, each with its file and line, ordered by line."""
    found = sorted(((lines.of(issue.name) or 0, issue) for issue in issues), key=lambda pair: pair[0])
    return [replace(issue, origin=f"{path}, line {line}: " if line else f"{path}: ") for line, issue in found]


# --- from the settings tree to a study -------------------------------------------------------------------------------


def _judge(tree: YamlDict, changes: Mapping[str, Any]) -> tuple[StudyConfig | None, list[ConfigIssue]]:
    """Returns the valid part of the study, if any, and all issues."""
    try:
        tree = _with_overrides(tree, changes)
    except ConfigError as error:
        return None, error.issues
    try:
        study: StudyConfig | None = validate(StudyConfig, tree)
        issues = []
    except ConfigError as error:  # the valid part is also checked, so that all issues are reported together
        issues = [_of_a_study(issue) for issue in error.issues]
        study = _sound_part(tree, issues)
    return study, [*issues, *(issues_of(study) if study else [])]


def _with_overrides(tree: YamlDict, changes: Mapping[str, Any]) -> YamlDict:
    """Applies overrides to the settings of a file; names that start with `search.` override axes or their parts."""
    axes, others = _axes_and_others(changes)
    more_axes, tree = _axes_and_others(tree)
    if isinstance(tree.get("config"), Mapping):
        tree = {**tree, "config": _nested(tree["config"])}
    tree = merge_settings(tree, others)
    search = tree.get("search") or {}
    if not isinstance(search, Mapping):
        return tree
    found = list(_flat_axes({**search}))
    found += [(name, axis) for name, axis in more_axes.items()]
    if twice := [name for n, (name, _) in enumerate(found) if name in dict(found[:n])]:
        raise ConfigError(ConfigIssue(("search", *twice[0].split(".")), "set twice"))
    own = dict(found)
    for name, value in axes.items():
        axis, _, part = name.rpartition(".")
        inside = axis and part in Hyperparameter.model_fields
        own |= {axis: {**own.get(axis, {}), part: value}} if inside else {name: value}
    return {**tree, "search": own} if own or search else tree


def _flat_axes(search: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the names and definitions of axes; the axes in a file may be nested like settings."""
    for name, value in search.items():
        nested = isinstance(value, Mapping) and value and all(isinstance(one, Mapping) for one in value.values())
        if nested and not value.keys() & Hyperparameter.model_fields.keys():
            yield from _flat_axes(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _axes_and_others(dotted: Mapping[str, Any]) -> tuple[YamlDict, YamlDict]:
    """Returns the axes, keyed by the name after `search.`, and all other settings as nested mappings."""
    axes = {name.removeprefix("search."): value for name, value in dotted.items() if name.startswith("search.")}
    return axes, nest({name: value for name, value in dotted.items() if not name.startswith("search.")})


def _nested(config: Mapping[str, Any]) -> YamlDict:
    try:
        return nest(config)
    except ConfigError as error:
        raise ConfigError([issue.below("config") for issue in error.issues]) from None


def _of_a_study(issue: ConfigIssue) -> ConfigIssue:
    """Returns the issue, with a hint if the unknown setting is a trial setting, which belongs under `config`."""
    name = issue.name
    if issue.code != UNKNOWN or "." in name or (issue.hint and name not in Config.model_fields):
        return issue
    near = closest_match(name, Config.model_fields) or same_name_elsewhere(Config, [name])
    return replace(issue, rule="no such setting of a study", hint=did_you_mean(f"config.{near}")) if near else issue


def _sound_part(tree: YamlDict, issues: Sequence[ConfigIssue]) -> StudyConfig | None:
    """Returns the study without invalid axes and settings; None if the remaining settings do not form a study."""
    names = [issue.name for issue in issues]
    search = tree.get("search")
    axes = search if isinstance(search, dict) else {}
    left = drop_dependents(axes, {axis for axis in axes if any(is_under(name, f"search.{axis}") for name in names)})
    rest = {name: value for name, value in tree.items() if not any(is_under(n, name) for n in names)}
    try:
        study = validate(StudyConfig, {**rest, "search": left or _NO_AXES})
    except ConfigError:
        return None
    return study if left else study.model_copy(update={"search": {}})
