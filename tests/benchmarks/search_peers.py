"""Searches the rows of a table with other packages, in an environment without this one; search_speed.py starts it.

    python -m tests.benchmarks.search_peers PEER JOB OUT

JOB contains the table and the benchmark seeds. For each seed, OUT receives the completed trials: epochs of all trials
so far, and the row. Every peer uses its default settings, with two exceptions: a search begins with eight random
trials, as in this project, and the rungs are those of the study file. Trials run one after another, which gives the
peers an advantage over the searchers of this package, which run two trials at a time.
A suggestion is mapped to the nearest unused row (row_points.py), and the peer receives the value together with the
settings of this row. The peer confopt selects rows directly.
"""

import json
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.row_points import RowPoints

STARTUP = 8  # random trials


class Job:
    """One search: the table of one training seed, and the budget."""

    def __init__(self, job: dict[str, Any], seed: int) -> None:
        self.axes, self.settings, self.grace, self.factor = (job[k] for k in ("axes", "settings", "grace", "factor"))
        curves = np.array(job["curves"])
        self.curves = curves[:, seed % curves.shape[1]]
        self.epochs, self.seed = self.curves.shape[1], seed
        self._points, self._limit = RowPoints(self.axes, self.settings), job["trials"] * self.curves.shape[1]
        self.used, self.trained, self.story = list[int](), 0, list[tuple[int, int]]()

    @property
    def done(self) -> bool:
        """Whether no further trial can start, because the epochs are spent or all rows are used."""
        return self.trained >= self._limit or len(self.used) == len(self.settings)

    def take(self, suggested: dict[str, Any]) -> int:
        """Returns the nearest unused row and marks it as used."""
        return self.take_row(self._points.nearest(suggested, self.used))

    def take_row(self, row: int) -> int:
        """Marks a row as used and returns it."""
        self.used.append(row)
        return row

    def train(self, row: int) -> Iterator[tuple[int, float]]:
        """Yields epoch and value of a trial until the caller stops; records a trial that completes."""
        for epoch, value in enumerate(self.curves[row], 1):
            self.trained += 1
            yield epoch, float(value)
        self.story.append((self.trained, row))

    def train_to_end(self, row: int) -> float:
        """Returns the last value of a trial without early stopping."""
        *_, (_, value) = self.train(row)
        return value


def optuna(job: Job, kind: str) -> None:
    """Runs the sampler of Optuna with its default pruner, the median rule."""
    import optuna
    from optuna.trial import TrialState

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = {
        "tpe": lambda: optuna.samplers.TPESampler(seed=job.seed, n_startup_trials=STARTUP),
        "gp": lambda: optuna.samplers.GPSampler(seed=job.seed, n_startup_trials=STARTUP),
    }[kind]()
    pruner = optuna.pruners.MedianPruner(n_warmup_steps=job.grace - 1)
    study = optuna.create_study(sampler=sampler, pruner=pruner)

    def suggest(trial: Any) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, axis in job.axes.items():
            if all(found.get(other) in _listed(values) for other, values in axis["when"].items()):
                low, high = axis["values"][0], axis["values"][-1]
                if axis["kind"] == "choice":
                    found[name] = trial.suggest_categorical(name, axis["values"])
                elif axis["kind"] == "integer":
                    found[name] = trial.suggest_int(name, low, high)
                else:
                    found[name] = trial.suggest_float(name, low, high, log=axis["kind"] == "log_uniform")
        return found

    while not job.done:
        asked = study.ask()
        row = job.take(suggest(asked))
        study.tell(asked, state=TrialState.FAIL)  # ignored by the sampler; the trial of the row follows
        study.enqueue_trial(job.settings[row])
        trial = study.ask()
        suggest(trial)
        for epoch, value in job.train(row):
            trial.report(value, epoch)
            if epoch < job.epochs and trial.should_prune():
                study.tell(trial, state=TrialState.PRUNED)
                break
        else:
            study.tell(trial, value)


def syne_tune(job: Job) -> None:
    """ASHA with conformal quantile regression on the last values (ASHACQR)."""
    from datetime import datetime

    from syne_tune import config_space
    from syne_tune.backend.trial_status import Trial
    from syne_tune.optimizer.baselines import ASHACQR

    make = {
        "choice": lambda values: config_space.choice(values),
        "integer": lambda values: config_space.randint(*values),
        "uniform": lambda values: config_space.uniform(*values),
        "log_uniform": lambda values: config_space.loguniform(*values),
    }
    space = {name: make[axis["kind"]](axis["values"]) for name, axis in job.axes.items()}
    more = {"max_t": job.epochs, "grace_period": job.grace, "reduction_factor": job.factor, "random_seed": job.seed}
    scheduler = ASHACQR(space, metric="value", time_attr="epoch", **more)
    scheduler.searcher.num_init_random_draws = STARTUP
    while not job.done:
        row = job.take(_active(job.axes, scheduler.suggest().config))
        trial = Trial(len(job.used), filled(job.axes, job.settings[row]), datetime.now())
        scheduler.on_trial_add(trial)
        for epoch, value in job.train(row):
            if scheduler.on_trial_result(trial, {"value": value, "epoch": epoch}) == "STOP" and epoch < job.epochs:
                break


def smac(job: Job) -> None:
    """Random forest with expected improvement (HyperparameterOptimizationFacade), without early stopping."""
    from ConfigSpace import AndConjunction, CategoricalHyperparameter, ConfigurationSpace, InCondition
    from ConfigSpace import UniformFloatHyperparameter as Real
    from ConfigSpace import UniformIntegerHyperparameter as Integer
    from ConfigSpace.util import deactivate_inactive_hyperparameters
    from smac import HyperparameterOptimizationFacade as Facade
    from smac import Scenario
    from smac.runhistory.dataclasses import TrialInfo, TrialValue

    space = ConfigurationSpace(seed=job.seed)
    for name, axis in job.axes.items():
        if axis["kind"] == "choice":
            space.add(CategoricalHyperparameter(name, axis["values"]))
        else:
            more = {} if axis["kind"] == "integer" else {"log": axis["kind"] == "log_uniform"}
            space.add((Integer if axis["kind"] == "integer" else Real)(name, *axis["values"], **more))
    for name, axis in job.axes.items():
        when = [InCondition(space[name], space[other], _listed(v)) for other, v in axis["when"].items()]
        if when:
            space.add(when[0] if len(when) == 1 else AndConjunction(*when))
    with tempfile.TemporaryDirectory() as home:
        scenario = Scenario(space, deterministic=True, n_trials=10_000, seed=job.seed, output_directory=Path(home))
        design = Facade.get_initial_design(scenario, n_configs=STARTUP, max_ratio=1)
        facade = Facade(scenario, lambda config, seed=0: 0.0, initial_design=design, logging_level=False)
        while not job.done:
            info = facade.ask()
            row = job.take(dict(info.config))
            values = filled(job.axes, job.settings[row])
            config = deactivate_inactive_hyperparameters(values, space)
            facade.tell(TrialInfo(config, seed=info.seed), TrialValue(job.train_to_end(row)))


def confopt(job: Job) -> None:
    """Conformal quantile regression with a Thompson draw, without early stopping, on the rows as candidates."""
    from confopt import tuning, wrapping
    from confopt.utils import tracking

    ranges = {
        name: wrapping.CategoricalRange(choices=axis["values"])
        if axis["kind"] == "choice"
        else (wrapping.IntRange if axis["kind"] == "integer" else wrapping.FloatRange)(
            min_value=axis["values"][0], max_value=axis["values"][1], log_scale=axis["kind"] == "log_uniform"
        )
        for name, axis in job.axes.items()
    }
    rows = [filled(job.axes, settings) for settings in job.settings]

    def value(configuration: dict) -> float:  # type: ignore[type-arg]
        return job.train_to_end(job.take_row(rows.index(configuration)))

    value.__annotations__ = {"configuration": tuning.Dict, "return": float}
    tracking.get_tuning_configurations = lambda **_: rows
    tuner = tuning.ConformalTuner(value, ranges, n_candidates=len(rows), dynamic_sampling=False)
    trials = min(len(rows), job._limit // job.epochs)
    tuner.tune(max_searches=trials, n_random_searches=STARTUP, random_state=job.seed, verbose=False)


def _listed(values: Any) -> list[Any]:
    return values if isinstance(values, list) else [values]


def _active(axes: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Returns the values of the hyperparameters whose conditions are met."""
    found: dict[str, Any] = {}
    for name, axis in axes.items():
        if all(found.get(other) in _listed(wanted) for other, wanted in axis["when"].items()):
            found[name] = values[name]
    return found


def filled(axes: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Returns settings with a value for inactive hyperparameters: the middle of the range, or the first of the list."""
    found = {}
    for name, axis in axes.items():
        low, high = axis["values"][0], axis["values"][-1]
        middle = {
            "choice": lambda low, high: low,
            "integer": lambda low, high: (low + high) // 2,
            "uniform": lambda low, high: (low + high) / 2,
            "log_uniform": lambda low, high: (low * high) ** 0.5,
        }[axis["kind"]]
        found[name] = settings.get(name, middle(low, high))
    return found


PEERS: dict[str, Callable[[Job], None]] = {
    "optuna tpe + median": lambda job: optuna(job, "tpe"),
    "optuna gp + median": lambda job: optuna(job, "gp"),
    "syne tune asha-cqr": syne_tune,
    "smac3": smac,
    "confopt": confopt,
}


def main() -> None:
    """Runs one peer for all seeds of a job."""
    peer, source, target = sys.argv[1:]
    given, stories = json.loads(Path(source).read_text()), []
    for seed in given["seeds"]:
        random.seed(seed)
        np.random.seed(seed)
        job = Job(given, seed)
        PEERS[peer](job)
        stories.append(job.story)
    Path(target).write_text(json.dumps(stories))


if __name__ == "__main__":
    main()
