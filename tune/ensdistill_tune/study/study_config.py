"""The settings of a study, as in a study file. `ensdistill_tune.study.loading` reads and checks such a file.

preset: latentbe                    # base settings of every trial
config: {training: {epochs: 30}}    # fixed changes to these settings
search:
  loss.temperature: {log_uniform: [1, 10]}
  averaging.kind: {choice: [none, ema]}
  averaging.decay: {uniform: [0.8, 0.99], when: {averaging.kind: ema}}
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from ensdistill_tune.study.objectives import COSTS, LATENCY, PHOTO_LATENCY, directions_in_words, metric_directions

SHARED = (
    "seed",
    "data",
    "model",
    "teachers",
    "training",
    "metrics",
)  # sections that baselines take from the study


class Budget(Settings):
    """Limits of the search and of the study."""

    trials: int = setting(24, "Number of search trials, excluding baselines.", ge=1, le=1_000_000)
    epochs: int | None = setting(
        None, "Maximum total number of epochs of search trials; no further trial starts after this limit.", ge=1
    )
    minutes: float | None = setting(
        None, "Time budget in minutes, over all sessions; running trials are interrupted when it is spent.", gt=0
    )
    cpu_hours: float | None = setting(
        None,
        "Limit on the CPU hours (wall time multiplied by resources.cpus) of all trials, including replicates. No "
        "further search trial starts when the limit is reached. Teachers are not counted.",
        gt=0,
    )
    gpu_hours: float | None = setting(
        None,
        "Limit on the GPU hours (wall time multiplied by resources.gpus) of all trials, including replicates. No "
        "further search trial starts when the limit is reached. Teachers are not counted.",
        gt=0,
    )


class Resources(Settings):
    """Resources of one trial, and the number of parallel trials."""

    cpus: float = setting(1, "Number of CPU cores per trial.", ge=0.01)
    gpus: float = setting(
        0, "Number of GPUs per trial. Below 1, several trials share a GPU; each uses this fraction of GPU memory.", ge=0
    )
    max_concurrent: int | None = setting(
        None, "Maximum number of parallel trials; by default as many as the resources allow.", ge=1
    )
    max_retries: int = setting(
        1, "Maximum number of restarts of a trial from its last checkpoint after its process died.", ge=0, le=100
    )
    checkpoint_interval_s: float = setting(
        30, "Checkpoint interval in seconds: upper bound on training repeated after an interruption.", ge=0
    )
    num_to_keep: int | None = setting(
        None,
        "Number of top search trials whose students are kept on disk; by default all. Students of baselines, "
        "replicates and trials on the Pareto front are always kept.",
        ge=1,
    )


class WarmStart(Settings):
    """An earlier study whose best settings are evaluated first."""

    study: str = setting(..., "Name of the earlier study, which must be in the same studies folder.", min_length=1)
    top_k: int = setting(5, "Number of top trials of the earlier study whose settings are evaluated.", ge=1, le=1000)


class Tracking(Settings):
    """Logging to MLflow."""

    uri: str | None = setting(
        None, "Tracking URI of a store or server; by default sqlite:///<studies>/mlflow.db.", file=True
    )
    experiment: str = setting("ensdistill", "Name of the MLflow experiment.", min_length=1)

    @field_validator("uri")
    @classmethod
    def _public(cls, uri: str | None) -> str | None:
        """Removes credentials, because study files must not contain them."""
        return None if uri is None else public(uri)


class StudyConfig(Settings):
    """The settings of a study, as in a search space file.

    In Python: `StudyConfig(search={"loss.temperature": {"log_uniform": [1, 10]}})`. Names in `config` may be nested or
    dotted, and tuples are accepted in place of lists.
    """

    preset: str = setting("latentbe", "Preset with the base settings of every trial.")
    config: dict[str, Any] = setting({}, "Changes to the preset, the same in all trials.")
    search: dict[str, Hyperparameter] = setting(
        ..., "Distributions of the searched settings (axes), keyed by dotted name.", min_length=1
    )
    baselines: list[str] = setting(
        [], "Presets that run first; their published settings are combined with the study's data and training settings."
    )
    objective: str = setting(
        "val/nll",
        f"Validation metric that ranks the trials. {directions_in_words()}.",
        examples=list(metric_directions({})),  # for editors that read the schema
    )
    secondary_objectives: list[str] = setting(
        [],
        "Further objectives: validation metrics, cost/flops or cost/parameters. The search approximates the Pareto "
        "front of all objectives; `objective` still selects the student that is exported.",
    )
    constraints: dict[str, Constraint] = setting(
        {},
        "Bounds keyed by metric: validation metrics, cost/flops, cost/parameters or "
        f"{LATENCY}. A trial that breaks a bound never wins.",
    )
    measure_latency: bool = setting(
        False,
        f"Whether to measure {LATENCY} of every network (one image, one CPU thread or the GPU of the trials), and "
        f"{PHOTO_LATENCY} (the same, including resizing a photo). A constraint on the first of these metrics also "
        "enables the measurement.",
    )
    searcher: Searcher = setting(Tpe(), "Search algorithm that suggests settings.")
    scheduler: Scheduler = setting(Asha(), "Early-stopping scheduler.")
    points_to_evaluate: list[dict[str, Any]] = setting([], "Settings to evaluate first: values of some or all axes.")
    warm_start: WarmStart | None = setting(None, "An earlier study whose best settings are evaluated first.")
    budget: Budget = setting(Budget(), "Limits of the search and of the study.")
    confirmation: Confirmation = setting(Confirmation(), "Re-evaluation of the top trials with fresh seeds.")
    resources: Resources = setting(Resources(), "Resources of one trial.")
    tracking: Tracking = setting(Tracking(), "Logging to MLflow.")

    def __init__(self, **settings: Any) -> None:
        """Creates a study from settings that are given as keyword arguments.

        Raises:
            ConfigError: A name is unknown, or a value has the wrong type or is out of range. `check` finds issues that
                involve several settings.
        """
        settings = _plain(settings)
        try:
            super().__init__(**settings)
        except ValidationError as error:
            raise config_error(type(self), settings, error) from None

    @classmethod
    def from_yaml(cls, path: str | Path, overrides: Mapping[str, Any] | Sequence[str] = ()) -> StudyConfig:
        """Returns the study that a search space file defines.

        Args:
            path: The file.
            overrides: Settings to override, keyed by dotted name, or strings `a.b=value` as on the command line.

        Raises:
            ConfigError: The settings are invalid. The error contains all issues with their line numbers.
            DataError: The file cannot be read.
        """
        from ensdistill_tune.study.loading import load_study  # imported here to avoid a circular import

        return load_study(path, overrides)

    def check(self) -> list[ConfigIssue]:
        """Returns all issues of the study, errors first; empty if there are none.

        A warning has the code `warning` and does not prevent a launch. Issues with images and teachers are found only
        when these are loaded; see `results.warnings`.
        """
        from ensdistill_tune.study.loading import check_study  # imported here to avoid a circular import

        return check_study(self)

    @field_validator("config", mode="before")
    @classmethod
    def _nested(cls, config: Any) -> Any:
        """Nests settings with dotted names."""
        return nest(config) if isinstance(config, Mapping) and all(isinstance(name, str) for name in config) else config

    @property
    def objectives(self) -> list[str]:
        """All objectives, primary objective first."""
        return [self.objective, *self.secondary_objectives]

    @property
    def display_metrics(self) -> list[str]:
        """Metrics that are shown in tables."""
        own = [*self.objectives, *self.constraints, *([LATENCY] if self.measures_latency else [])]
        return list(dict.fromkeys([*METRICS, *own]))

    @property
    def modes(self) -> list[str]:
        """Direction of each objective: `min` or `max`."""
        return [self.mode_of(name) for name in self.objectives]

    @property
    def mode(self) -> str:
        """Direction of the primary objective: `min` or `max`."""
        return self.modes[0]

    @property
    def directions(self) -> dict[str, bool]:
        """For each metric that can be an objective, whether it is maximized."""
        return metric_directions(self.config) | dict.fromkeys(COSTS, False)

    def mode_of(self, metric: str) -> str:
        """Returns the direction of a metric, `max` or `min`."""
        return "max" if self.directions[metric] else "min"

    @property
    def measures_latency(self) -> bool:
        """True if the latency of exported networks is measured."""
        return self.measure_latency or LATENCY in self.constraints

    def violation(self, metrics: Mapping[str, float]) -> float:
        """Returns the amount by which the metrics violate the constraints; 0 if no constraint is violated."""
        return total_violation(self.constraints, metrics)

    def broken_by(self, metrics: Mapping[str, float]) -> list[str]:
        """Returns a description of each constraint that the metrics break."""
        return broken(self.constraints, metrics)

    def rank(self, trials: Iterable[TrialRecord]) -> list[TrialRecord]:
        """Returns the completed trials, best first.

        Trials that break a constraint come last, ordered by their violation. Among trials with equal values, the
        earlier one comes first.
        """
        order = rank_trials(trials, self.objective, self.mode)
        return sorted(order, key=lambda trial: self.violation(trial.last)) if self.constraints else order

    def feasible(self, trials: Iterable[TrialRecord]) -> list[TrialRecord]:
        """Returns the trials whose last report meets the constraints, in the given order."""
        return [trial for trial in trials if not self.violation(trial.last)]

    def compared_values(self, metrics: Mapping[str, float]) -> list[float]:
        """Returns the values for early stopping: the objectives, or penalty values if a constraint is broken."""
        return penalized([metrics[name] for name in self.objectives], self.modes, self.violation(metrics))

    def merit(self, metrics: Mapping[str, float]) -> float:
        """Returns the value that early stopping compares for the primary objective."""
        return self.compared_values(metrics)[0]

    def make_stopping_rule(self) -> StoppingRule:
        """Returns a new early-stopping rule, which has not received any report."""
        return self.scheduler(self.epochs, self.modes)

    @property
    def num_trials(self) -> int:
        """Number of planned trials, including baselines; fewer trials run if another budget is spent first."""
        trials = self.budget.trials
        if self.searcher.kind == "grid":
            cells = itertools.islice(self.space.combinations(), trials)
            trials = min(trials, len(self.points_to_evaluate) + sum(1 for _ in cells))
        return trials + len(self.baselines)

    @property
    def expected_replicates(self) -> int:
        """Maximum number of replicates, assuming that at least `confirmation.top_k` search trials complete."""
        candidates = min(self.confirmation.top_k, self.budget.trials) + len(self.baselines)
        return candidates * self.confirmation.seeds if self.confirmation.top_k else 0

    @property
    def space(self) -> SearchSpace:
        """The search space, which consists of all axes."""
        return SearchSpace(self.search)

    @property
    def logarithmic(self) -> list[str]:
        """Axes whose distribution is uniform in the logarithm."""
        return [name for name, axis in self.search.items() if axis.kind == "log_uniform"]

    @property
    def epochs(self) -> int:
        """Number of epochs per trial."""
        return self.base_config.training.epochs

    @property
    def base_config(self) -> Config:
        """Config of one possible trial; data, teachers and number of epochs are the same in all trials."""
        return self.trial_config(self.space.example({}))

    @property
    def max_search_seed(self) -> int:
        """Largest student seed in the search."""
        axis = self.search.get("seed")
        return max(axis.finite_values or axis.values) if axis else self.base_config.seed

    @property
    def representative_configs(self) -> list[Config]:
        """For each axis, one config per listed value (or per end of its range), plus one config per baseline."""
        searched = [(name, value) for name, axis in self.search.items() for value in axis.values]
        samples = [self.space.example({name: value}) for name, value in searched]
        return [self.trial_config(s) for s in samples] + [self.baseline_config(name) for name in self.baselines]

    @property
    def distinct_architectures(self) -> list[Config]:
        """Representative configs, one for each combination of model, student and training settings."""
        return list(
            {(repr(c.model), repr(c.student), repr(c.training)): c for c in self.representative_configs}.values()
        )

    def config_for(self, trial: TrialRecord) -> Config:
        """Returns the config of a trial, which contains its settings, its seed, and its schedule of changes."""
        own: dict[str, Any] = {} if trial.seed is None else {"seed": trial.seed}
        own |= {"schedule": trial.schedule} if trial.schedule else {}
        if trial.baseline:
            return self.baseline_config(trial.baseline, own)
        return self.trial_config({**trial.sampled, **own})

    def trial_config(self, sampled: Mapping[str, Any]) -> Config:
        """Returns the config of a trial from its sampled values."""
        return build_config({"preset": self.preset, **self.config}, sampled)

    def baseline_config(self, preset: str, own: Mapping[str, Any] | None = None) -> Config:
        """Returns the config of a preset with the data, model, teacher and training settings of the study."""
        shared = {name: self.config[name] for name in SHARED if name in self.config}
        return build_config({"preset": preset, **shared}, own)


def _plain(value: Any) -> Any:
    """Converts a value to plain YAML types: tuples to lists, objects to the settings that describe them."""
    value = settings_of(value)
    if isinstance(value, Settings):
        return value.model_dump(mode="json")
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value


def study_files(config: Mapping[str, Any] | None = None) -> frozenset[str]:
    """Returns the names of all settings that are file paths, including those in custom pieces and searched values.

    Args:
        config: The changes to the preset.
    """
    try:
        tree = nest(config or {})
    except ConfigError:  # validation reports the error
        tree = {}
    names = file_settings(StudyConfig) | files_in(Config, tree, "config.")
    return names.union(*(_searched_files(name.removeprefix("config.")) for name in names if name.startswith("config.")))


def _searched_files(name: str) -> Iterator[str]:
    """Yields name patterns for the values that a study lists for a setting, directly or within a listed block."""
    yield f"points_to_evaluate.*.{name}"
    parts = name.split(".")
    for n in range(1, len(parts) + 1):
        axis, inside = ".".join(parts[:n]), "".join(f".{part}" for part in parts[n:])
        yield from (f"search.{axis}.{kind}.*{inside}" for kind in ("choice", "grid"))
