"""Who suggests settings. To add one: one class, one line in `Searcher`."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import optuna
from pydantic import Field
from ray.tune.search import Searcher as RaySearcher
from ray.tune.search.optuna import OptunaSearch

from ensdistill.settings import Settings, setting
from tune.axis import Axis
from tune.record import FAILURE

optuna.logging.set_verbosity(optuna.logging.WARNING)


class _Seeded(Settings):
    seed: int = setting(0, "Seed of the suggestions.", ge=0)


class _Learning(_Seeded):
    startup_trials: int = setting(8, "Random trials before the model is asked.", ge=1)


class Tpe(_Learning):
    """Tree-structured Parzen estimator. Bergstra et al. 2011; Watanabe 2023."""

    kind: Literal["tpe"] = "tpe"

    def sampler(self) -> optuna.samplers.BaseSampler:
        """Optuna's sampler; running trials count as bad, so that neighbours in time do not suggest the same."""
        return optuna.samplers.TPESampler(
            seed=self.seed, n_startup_trials=self.startup_trials, constant_liar=True, multivariate=False
        )


class Random(_Seeded):
    """Independent draws."""

    kind: Literal["random"] = "random"

    def sampler(self) -> optuna.samplers.BaseSampler:
        """Optuna's sampler."""
        return optuna.samplers.RandomSampler(seed=self.seed)


class Gp(_Learning):
    """Gaussian process with expected improvement: for few, long trials of few settings. Optuna's GPSampler."""

    kind: Literal["gp"] = "gp"

    def sampler(self) -> optuna.samplers.BaseSampler:
        """Optuna's sampler; the same settings twice may give other values, as they do between seeds."""
        return optuna.samplers.GPSampler(
            seed=self.seed, n_startup_trials=self.startup_trials, deterministic_objective=False
        )


class Qmc(_Seeded):
    """Scrambled Sobol points: random search that leaves no holes. Bergstra and Bengio 2012, section 2.

    Settings under a condition are drawn at random.
    """

    kind: Literal["qmc"] = "qmc"

    def sampler(self) -> optuna.samplers.BaseSampler:
        """Optuna's sampler."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.samplers.QMCSampler(
                seed=self.seed, scramble=True, warn_independent_sampling=False, warn_asynchronous_seeding=False
            )


class Suggest:
    """One sample of the search space, axis by axis; an object of its own because Ray keeps it on disk."""

    def __init__(self, search: Mapping[str, Axis], order: Sequence[str]) -> None:
        self.search, self.order = dict(search), list(order)

    def __call__(self, trial: optuna.Trial) -> None:
        """Draws every axis whose condition is met."""
        for name in self.order:
            axis = self.search[name]
            if not axis.holds(trial.params):
                continue
            if axis.way == "choice":
                trial.suggest_categorical(name, axis.values)
            elif axis.way == "integer":
                trial.suggest_int(name, *axis.values)
            else:
                trial.suggest_float(name, *axis.values, log=axis.way == "log_uniform")


class StudySearch(OptunaSearch):
    """Optuna through Ray, with the baselines first and honest states.

    A suggestion is {"number": 7, "baseline": "kd" or None, "sampled": {dotted name: value}}. Baselines are no
    suggestions of Optuna's and it never hears of them. A trial that was stopped early is told as PRUNED (Ray's own
    class tells an early value as if it were final), a failed one as FAIL.
    """

    def __init__(
        self, suggest: Suggest, baselines: Sequence[str], sampler: optuna.samplers.BaseSampler, metric: str, mode: str
    ) -> None:
        super().__init__(space=suggest, sampler=sampler, metric=metric, mode=mode)
        self._baselines = list(baselines)
        self._count = 0
        self._own: set[str] = set()

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """The next baseline, or Optuna's next suggestion."""
        self._count += 1
        if self._count <= len(self._baselines):
            return {"number": self._count, "baseline": self._baselines[self._count - 1], "sampled": {}}
        self._own.add(trial_id)
        return {"number": self._count, "baseline": None, "sampled": super().suggest(trial_id)}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Passes an intermediate value on."""
        if trial_id in self._own and FAILURE not in result:
            super().on_trial_result(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Passes the end on: complete, pruned or failed."""
        if trial_id in self._own:
            result = result or {}
            failed = error or FAILURE in result
            whole = not failed and "epoch" in result and result["epoch"] == result["epochs"]
            super().on_trial_complete(trial_id, result if whole else None, failed)


class InOrder(RaySearcher):
    """A list of suggestions, one after the other."""

    def __init__(self, suggestions: Sequence[dict[str, Any]]) -> None:
        super().__init__()
        self._left = list(suggestions)

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """The next one; Ray asks for no more than there are."""
        return self._left.pop(0)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing is learnt from it."""


Searcher = Annotated[Tpe | Gp | Qmc | Random, Field(discriminator="kind")]
