"""The settings of a study, as a study file has them. `ensdistill_tune.study.loading` reads and checks one.

preset: latentbe                    # where every trial starts
config: {training: {epochs: 30}}    # fixed settings on top of it
search:
  loss.temperature: {log_uniform: [1, 10]}
  averaging.kind: {choice: [none, ema]}
  averaging.decay: {uniform: [0.8, 0.99], when: {averaging.kind: ema}}
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError, field_validator

from ensdistill.config import Config, build_config, nest, settings_of
from ensdistill.errors import ConfigError, ConfigIssue
from ensdistill.settings.base import Settings, setting
from ensdistill.settings.paths import file_settings, files_in
from ensdistill.settings.validation import config_error
from ensdistill_tune.credentials import public
from ensdistill_tune.records.trial_record import METRICS, TrialRecord, rank_trials
from ensdistill_tune.search.constraints import Constraint, broken, penalized, total_violation
from ensdistill_tune.search.hyperparameter import Hyperparameter
from ensdistill_tune.search.schedulers import Asha, Scheduler, StoppingRule
from ensdistill_tune.search.search_space import SearchSpace
from ensdistill_tune.search.searchers import Searcher, Tpe
from ensdistill_tune.study.confirmation_settings import Confirmation
from ensdistill_tune.study.objectives import COSTS, LATENCY, directions_in_words, metric_directions

SHARED = (
    "seed",
    "data",
    "model",
    "teachers",
    "training",
    "metrics",
)  # what baselines take over from the study's own settings


class Budget(Settings):
    """How much is tried."""

    trials: int = setting(24, "Searched trials, baselines not counted.", ge=1, le=1_000_000)
    epochs: int | None = setting(None, "No searched trial begins once all together have trained so many epochs.", ge=1)
    minutes: float | None = setting(None, "No trial goes on after so many minutes.", gt=0)
    cpu_hours: float | None = setting(
        None,
        "No searched trial begins once all trials, replicates included, have used so many CPU hours: wall time times "
        "resources.cpus. Teachers are not counted.",
        gt=0,
    )
    gpu_hours: float | None = setting(None, "The same for GPU hours: wall time times resources.gpus.", gt=0)


class Resources(Settings):
    """What one trial is given, and how many run side by side."""

    cpus: float = setting(1, "CPU cores.", ge=0.01)
    gpus: float = setting(
        0, "GPUs; a fraction lets several trials share one, each with that share of its memory.", ge=0
    )
    max_concurrent: int | None = setting(None, "How many run side by side; as many as fit if it is not given.", ge=1)
    max_retries: int = setting(
        1, "Maximum number of restarts of a trial from its last checkpoint after its process died.", ge=0, le=100
    )
    checkpoint_interval_s: float = setting(
        30, "Checkpoint interval in seconds: upper bound on training repeated after an interruption.", ge=0
    )


class WarmStart(Settings):
    """An earlier study whose best settings are tried first."""

    study: str = setting(..., "Its name, in the same folder of studies.", min_length=1)
    top_k: int = setting(5, "How many of its best trials.", ge=1, le=1000)


class Tracking(Settings):
    """MLflow."""

    uri: str | None = setting(None, "Store or server; sqlite:///<studies>/mlflow.db if it is not given.", file=True)
    experiment: str = setting("ensdistill", "The experiment in which the runs are.", min_length=1)

    @field_validator("uri")
    @classmethod
    def _public(cls, uri: str | None) -> str | None:
        """Without the credentials, which no file of a study may hold."""
        return None if uri is None else public(uri)


class StudyConfig(Settings):
    """The settings of a study: those of a search space file.

    `StudyConfig(search={"loss.temperature": {"log_uniform": [1, 10]}})` makes one in Python. `config` takes nested or
    dotted names, and tuples stand for lists.
    """

    preset: str = setting("latentbe", "The preset every trial starts from.")
    config: dict[str, Any] = setting({}, "Settings on top of the preset, the same in all trials.")
    search: dict[str, Hyperparameter] = setting(..., "The axes, by the dotted names of settings.", min_length=1)
    baselines: list[str] = setting([], "Presets that run first as published, on the study's own data and training.")
    objective: str = setting(
        "val/nll",
        f"The validation metric that decides. {directions_in_words()}.",
        examples=list(metric_directions({})),  # for editors that read the schema
    )
    secondary_objectives: list[str] = setting(
        [],
        "Further objectives, validation metrics or cost/flops, cost/parameters: the search looks for the Pareto front "
        "of all; the first one still decides what ships.",
    )
    constraints: dict[str, Constraint] = setting(
        {},
        "Bounds by metric: a trial that breaks one never wins. Validation metrics, cost/flops, cost/parameters, "
        f"{LATENCY}.",
    )
    measure_latency: bool = setting(
        False,
        f"Whether {LATENCY} of every shipped network is measured (one image, one CPU thread or the GPU of the trials); "
        "a constraint on it measures it, too.",
    )
    searcher: Searcher = setting(Tpe(), "Sampler that suggests settings.")
    scheduler: Scheduler = setting(Asha(), "Early-stopping scheduler.")
    points_to_evaluate: list[dict[str, Any]] = setting([], "Settings to try first: values of some axes, or of all.")
    warm_start: WarmStart | None = setting(None, "An earlier study whose best settings are tried first.")
    budget: Budget = setting(Budget(), "How much is tried.")
    confirmation: Confirmation = setting(Confirmation(), "Re-evaluation of the top trials with fresh seeds.")
    resources: Resources = setting(Resources(), "What one trial is given.")
    tracking: Tracking = setting(Tracking(), "Where MLflow keeps the runs.")

    def __init__(self, **settings: Any) -> None:
        """Takes the settings by name.

        Raises:
            ConfigError: A name, type or range is wrong. What needs more than one setting is found by `check`.
        """
        settings = _plain(settings)
        try:
            super().__init__(**settings)
        except ValidationError as error:
            raise config_error(type(self), settings, error) from None

    @classmethod
    def from_yaml(cls, path: str | Path, overrides: Mapping[str, Any] | Sequence[str] = ()) -> StudyConfig:
        """Returns the study of a search space file.

        Args:
            path: The file.
            overrides: Values by dotted names, or `a.b=value` texts as the command line has them.

        Raises:
            ConfigError: The settings cannot be used; holds all issues, with their lines.
            DataError: The file cannot be read.
        """
        from ensdistill_tune.study.loading import load_study  # here: it imports this module

        return load_study(path, overrides)

    def check(self) -> list[ConfigIssue]:
        """Returns everything that is wrong with the study, errors first; empty if it can be launched as it is.

        A warning, on which `launch` does not refuse the study, has the code `warning`. What is wrong with images or
        teachers is found when they are loaded: `results.warnings`.
        """
        from ensdistill_tune.study.loading import check_study  # here: it imports this module

        return check_study(self)

    @field_validator("config", mode="before")
    @classmethod
    def _nested(cls, config: Any) -> Any:
        """Nested settings, whose names may be given dotted."""
        return nest(config) if isinstance(config, Mapping) and all(isinstance(name, str) for name in config) else config

    @property
    def objectives(self) -> list[str]:
        """All objectives, the one that decides first."""
        return [self.objective, *self.secondary_objectives]

    @property
    def display_metrics(self) -> list[str]:
        """The metrics that tables show."""
        own = [*self.objectives, *self.constraints, *([LATENCY] if self.measures_latency else [])]
        return list(dict.fromkeys([*METRICS, *own]))

    @property
    def modes(self) -> list[str]:
        """For each objective whether less or more of it is better."""
        return [self.mode_of(name) for name in self.objectives]

    @property
    def mode(self) -> str:
        """Whether less or more of the objective that decides is better."""
        return self.modes[0]

    @property
    def directions(self) -> dict[str, bool]:
        """Whether each metric that can be an objective is maximized."""
        return metric_directions(self.config) | dict.fromkeys(COSTS, False)

    def mode_of(self, metric: str) -> str:
        """Returns `max` or `min`, whichever is better of a metric."""
        return "max" if self.directions[metric] else "min"

    @property
    def measures_latency(self) -> bool:
        """Whether the latency of the shipped networks is measured."""
        return self.measure_latency or LATENCY in self.constraints

    def violation(self, metrics: Mapping[str, float]) -> float:
        """Returns by how much metrics break the constraints; 0 if they are met, or if there are none."""
        return total_violation(self.constraints, metrics)

    def broken_by(self, metrics: Mapping[str, float]) -> list[str]:
        """Returns each constraint that metrics break, in words."""
        return broken(self.constraints, metrics)

    def rank(self, trials: Iterable[TrialRecord]) -> list[TrialRecord]:
        """Returns the finished trials, best first; those that break a constraint come last, the nearest of them first.

        Of equals the earlier one comes first.
        """
        order = rank_trials(trials, self.objective, self.mode)
        return sorted(order, key=lambda trial: self.violation(trial.last)) if self.constraints else order

    def feasible(self, trials: Iterable[TrialRecord]) -> list[TrialRecord]:
        """Returns the trials whose last report meets the constraints, in their order."""
        return [trial for trial in trials if not self.violation(trial.last)]

    def compared_values(self, metrics: Mapping[str, float]) -> list[float]:
        """Returns what early stopping compares of a report: the objectives, far worse if a constraint is broken."""
        return penalized([metrics[name] for name in self.objectives], self.modes, self.violation(metrics))

    def merit(self, metrics: Mapping[str, float]) -> float:
        """Returns the first of these values: that of the objective that decides."""
        return self.compared_values(metrics)[0]

    def make_stopping_rule(self) -> StoppingRule:
        """Who stops hopeless trials, before the first of them."""
        return self.scheduler(self.epochs, self.modes)

    @property
    def num_trials(self) -> int:
        """How many trials there will be, baselines included; fewer if another budget ends first."""
        trials = self.budget.trials
        if self.searcher.kind == "grid":
            cells = itertools.islice(self.space.combinations(), trials)
            trials = min(trials, len(self.points_to_evaluate) + sum(1 for _ in cells))
        return trials + len(self.baselines)

    @property
    def expected_replicates(self) -> int:
        """How many repeats there will be, unless fewer trials than are confirmed run to their end."""
        candidates = min(self.confirmation.top_k, self.budget.trials) + len(self.baselines)
        return candidates * self.confirmation.seeds if self.confirmation.top_k else 0

    @property
    def space(self) -> SearchSpace:
        """The axes as one search space."""
        return SearchSpace(self.search)

    @property
    def logarithmic(self) -> list[str]:
        """The axes that are drawn uniformly in their logarithm."""
        return [name for name, axis in self.search.items() if axis.kind == "log_uniform"]

    @property
    def epochs(self) -> int:
        """How long a trial is, in epochs."""
        return self.base_config.training.epochs

    @property
    def base_config(self) -> Config:
        """The settings of one possible trial; data, teachers and length are the same in all of them."""
        return self.trial_config(self.space.example({}))

    @property
    def max_search_seed(self) -> int:
        """The highest seed of a student in the search."""
        axis = self.search.get("seed")
        return max(axis.finite_values or axis.values) if axis else self.base_config.seed

    @property
    def representative_configs(self) -> list[Config]:
        """A trial for every choice of every axis, and every baseline."""
        searched = [(name, value) for name, axis in self.search.items() for value in axis.values]
        samples = [self.space.example({name: value}) for name, value in searched]
        return [self.trial_config(s) for s in samples] + [self.baseline_config(name) for name in self.baselines]

    @property
    def distinct_architectures(self) -> list[Config]:
        """The examples without those alike in what their students are."""
        return list(
            {(repr(c.model), repr(c.student), repr(c.training)): c for c in self.representative_configs}.values()
        )

    def config_for(self, trial: TrialRecord) -> Config:
        """All settings of a trial: those of a baseline or the sampled ones, its seed, and what changes on the way."""
        own: dict[str, Any] = {} if trial.seed is None else {"seed": trial.seed}
        own |= {"schedule": trial.schedule} if trial.schedule else {}
        if trial.baseline:
            return self.baseline_config(trial.baseline, own)
        return self.trial_config({**trial.sampled, **own})

    def trial_config(self, sampled: Mapping[str, Any]) -> Config:
        """The settings of one trial from the values of its axes."""
        return build_config({"preset": self.preset, **self.config}, sampled)

    def baseline_config(self, preset: str, own: Mapping[str, Any] | None = None) -> Config:
        """A preset's published method on the study's own data, model, teachers and training."""
        shared = {name: self.config[name] for name in SHARED if name in self.config}
        return build_config({"preset": preset, **shared}, own)


def _plain(value: Any) -> Any:
    """The value as YAML has it: a list in place of every tuple, settings in place of pieces and objects in memory."""
    value = settings_of(value)
    if isinstance(value, Settings):
        return value.model_dump(mode="json")
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value


def study_files(config: Mapping[str, Any] | None = None) -> frozenset[str]:
    """The settings of a study that name a file, with those of pieces that are not built in.

    Args:
        config: The settings on top of the preset.
    """
    try:
        tree = nest(config or {})
    except ConfigError:  # reported elsewhere
        tree = {}
    return file_settings(StudyConfig) | files_in(Config, tree, "config.")
