"""Settings to compare: presets, settings files, trials and winners of studies, on the same data and teachers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ensdistill.config import Config, build_config, load_config, parse_overrides, presets, resolve
from ensdistill.errors import ConfigError
from ensdistill.settings.paths import absolute, files_in
from ensdistill.settings.validation import closest_match
from ensdistill.settings.yaml_loader import read_yaml
from ensdistill_tune.analysis.results import StudyResults, read_facts
from ensdistill_tune.study.loading import load_study
from ensdistill_tune.study.study_config import SHARED

Given = str | Path | Config
# Data, training and teachers from search_spaces/cluttered_digits.yaml, used if all contenders are presets.
CLUTTERED_DIGITS: Mapping[str, Any] = {
    "data": {"kind": "cluttered_digits"},
    "training": {"epochs": 20, "batch_size": 64, "warmup_epochs": 5, "max_grad_norm": 5},
    "teachers": {"training": {"epochs": 20, "batch_size": 64}},
}


@dataclass(frozen=True)
class Contender:
    """One set of settings in a comparison.

    Attributes:
        name: Name of the settings in the output.
        config: The settings, with seed 0.
    """

    name: str
    config: Config

    def with_seed(self, seed: int) -> Config:
        """Returns the settings with another seed for the student; the seeds of data and teachers do not change."""
        return self.config.model_copy(update={"seed": seed})


def contenders_of(
    given: Sequence[Given], studies: Path, file: str | Path | None = None, overrides: Mapping[str, Any] | None = None
) -> list[Contender]:
    """Returns the settings to compare, all with the same data and teachers.

    Args:
        given: The contenders, each given as a preset, a settings file, a study (which stands for its best trial),
            `STUDY:TRIAL`, or a config.
        studies: The folder of all studies.
        file: Settings file or study file that sets the data and teachers for all contenders, and the model and training
            for presets. If None, these settings are taken from the first contender that is not a preset, or from
            `cluttered_digits` if all contenders are presets.
        overrides: Settings applied to all contenders, keyed by dotted name.

    Raises:
        ConfigError: A contender does not exist or is invalid, two contenders have equal settings, or their data or
            teachers differ.
        DataError: A study cannot be read.
    """
    if len(given) < 2:
        raise ConfigError(f"compare: requires at least two settings, got {len(given)}. Add a preset such as kd.")
    named = [(_name(one, n), _found(one, studies)) for n, one in enumerate(given, 1)]
    own = next((config for _, config in named if isinstance(config, Config)), None)
    base = _common(Path(file)) if file is not None else own
    tree = CLUTTERED_DIGITS if base is None else _sections(base, SHARED)
    forced = _sections(base, ("data", "teachers")) if file is not None and base is not None else {}
    made = [Contender(name, _config(found, tree, forced, overrides or {})) for name, found in named]
    _check(made)
    return made


def parsed(overrides: Mapping[str, Any] | Sequence[str]) -> Mapping[str, Any]:
    """Returns the overrides, keyed by dotted name; strings have the form `a.b=value`."""
    return overrides if isinstance(overrides, Mapping) else parse_overrides(overrides)


def _name(given: Given, position: int) -> str:
    return f"config {position}" if isinstance(given, Config) else str(given)


def _found(given: Given, studies: Path) -> Config | str:
    """Returns the config, or the name of the preset."""
    if isinstance(given, Config) or given in presets():
        return given if isinstance(given, Config) else str(given)
    name, colon, number = str(given).rpartition(":")
    if colon and (studies / name / "study.json").is_file():
        return _of_trial(read_facts(studies / name), str(given), number)
    if (studies / str(given) / "study.json").is_file():
        return read_facts(studies / str(given)).best_config
    if Path(given).is_file():
        return load_config(Path(given))
    known = [*presets(), *(home.parent.name for home in studies.glob("*/study.json"))]
    close = closest_match(str(given), known)
    hint = f"Did you mean {close}?" if close else f"Presets are {', '.join(presets())}."
    raise ConfigError(f"{given}: must be a preset, a settings file, a study in {studies} or STUDY:TRIAL. {hint}")


def _common(file: Path) -> Config:
    """Returns the settings of a settings file, or the baseline settings of a study file."""
    if "search" in read_yaml(file):
        return load_study(file).baseline_config("kd")
    return load_config(file)


def _of_trial(facts: StudyResults, given: str, number: str) -> Config:
    known = {str(trial.number): trial for trial in (*facts.trials, *facts.replicates)}
    if number.lstrip("0") not in known:
        raise ConfigError(f"{given}: {facts.name} has trials 1 to {len(known)}, got {number}. Choose one of them.")
    return facts.study.config_for(known[number.lstrip("0")])


def _sections(config: Config, names: Sequence[str]) -> dict[str, Any]:
    whole = config.model_dump(mode="json")
    return {name: whole[name] for name in names if name in whole}


def _config(
    found: Config | str, tree: Mapping[str, Any], forced: Mapping[str, Any], overrides: Mapping[str, Any]
) -> Config:
    whole = {"preset": found, **tree} if isinstance(found, str) else {**found.model_dump(mode="json"), **forced}
    changes = absolute(dict(overrides), "", files_in(Config, resolve(whole, overrides)))
    return build_config(whole, changes).model_copy(update={"seed": 0})


def _check(made: Sequence[Contender]) -> None:
    first, known = made[0], dict[str, str]()
    for one in made:
        for section in ("data", "teachers"):
            if getattr(one.config, section) != getattr(first.config, section):
                raise ConfigError(
                    f"{one.name}: {section} must be the same as for {first.name}, but differ. "
                    "Set data and teachers for all with --config FILE."
                )
        if one.config.hash in known:
            raise ConfigError(
                f"{one.name}: must differ from {known[one.config.hash]}, but has the same settings. Omit one of them."
            )
        known[one.config.hash] = one.name
