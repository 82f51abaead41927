"""Who suggests settings. To add one: one class, one line in `Searcher`.

What is suggested to the n-th trial is a function of the searcher's seed, of n, and of what is known by then: every
suggestion has a random stream of its own. So a searcher has no state to save; told again what is known, it goes on.
"""

import itertools
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState, create_trial
from pydantic import Field

from ensdistill.settings import Settings, setting
from ensdistill_tune.axis import Axis, draw
from ensdistill_tune.naming import choice_of, choices_of
from ensdistill_tune.record import TrialRecord

if TYPE_CHECKING:
    from ensdistill_tune.space import Study

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)

Sampled = dict[str, Any]  # values by the dotted names of axes


class _Seeded(Settings):
    seed: int = setting(0, "Seed of the suggestions.", ge=0)

    def sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        """Optuna's sampler for one suggestion, by a seed of its own."""
        return optuna.samplers.RandomSampler(seed=seed)

    def given(self, study: "Study", place: int) -> Sampled | None:
        """Values that are not left to the sampler for the suggestion at a place (0 is the first); None: no more."""
        return {}


class _Learning(_Seeded):
    startup_trials: int = setting(8, "Random trials before the model is asked.", ge=1)


class Tpe(_Learning):
    """Tree-structured Parzen estimator, for one objective or several. Bergstra et al. 2011; Watanabe 2023."""

    kind: Literal["tpe"] = "tpe"

    def sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        """Optuna's sampler; running trials count as bad, so that neighbours in time do not suggest the same."""
        return optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=self.startup_trials, constant_liar=True, multivariate=False
        )


class Random(_Seeded):
    """Independent draws."""

    kind: Literal["random"] = "random"


class Gp(_Learning):
    """Gaussian process with expected improvement: for few, long trials of few settings. Optuna's GPSampler."""

    kind: Literal["gp"] = "gp"

    def sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        """Optuna's sampler; the same settings twice may give other values, as they do between seeds."""
        return optuna.samplers.GPSampler(seed=seed, n_startup_trials=self.startup_trials, deterministic_objective=False)


class Nsga2(_Seeded):
    """Genetic algorithm with non-dominated sorting, for several objectives. Deb et al. 2002 (NSGA-II)."""

    kind: Literal["nsga2"] = "nsga2"
    population: int = setting(16, "Trials that ran to their end before a generation is bred from them.", ge=2)

    def sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        """Optuna's sampler."""
        return optuna.samplers.NSGAIISampler(seed=seed, population_size=self.population)


class Qmc(_Seeded):
    """Scrambled Sobol points: random search that leaves no holes. Bergstra and Bengio 2012, section 2."""

    kind: Literal["qmc"] = "qmc"

    def given(self, study: "Study", place: int) -> Sampled | None:
        """The point at this place, its coordinates turned into values of all axes."""
        from scipy.stats.qmc import Sobol  # here: a slow import that few commands need

        points = Sobol(len(study.order), scramble=True, rng=np.random.default_rng(self.seed))
        if place:
            points.fast_forward(place)
        coordinates = dict(zip(study.order, points.random(1)[0], strict=True))
        return draw(study.search, study.order, lambda name, axis: axis.at(coordinates[name]))


class Grid(_Seeded):
    """Every combination of values once: for axes whose values can be listed."""

    kind: Literal["grid"] = "grid"

    def given(self, study: "Study", place: int) -> Sampled | None:
        """The combination at this place; None after the last."""
        return next(itertools.islice(combinations(study.search, study.order), place, None), None)


Searcher = Annotated[Tpe | Gp | Nsga2 | Qmc | Random | Grid, Field(discriminator="kind")]


def combinations(search: Mapping[str, Axis], order: Sequence[str], chosen: Sampled | None = None) -> Iterator[Sampled]:
    """Every different sample of axes whose values can be listed, the last axis fastest."""
    chosen = chosen or {}
    if not order:
        yield chosen
        return
    name, rest = order[0], order[1:]
    if not search[name].holds(chosen):
        yield from combinations(search, rest, chosen)
        return
    for value in search[name].every or []:
        yield from combinations(search, rest, {**chosen, name: value})


class Suggester:
    """The searcher of one study at work: asks Optuna for settings and tells it what came of them."""

    def __init__(self, study: "Study") -> None:
        self._study, self._settings = study, study.searcher
        self._optuna = optuna.create_study(
            directions=["maximize" if mode == "max" else "minimize" for mode in study.modes]
        )
        self._distributions = {name: _distribution(axis) for name, axis in study.search.items()}
        self._storage = self._optuna._storage  # Optuna's samplers keep their notes by way of it too
        self._noted: set[str] = set()
        self._trials: dict[int, optuna.Trial] = {}  # by the number of ours

    def suggest(self, number: int) -> tuple[Sampled, dict[str, Any]] | None:
        """Settings for the trial of this number, and what `remember` must be given of it; None if there are no more."""
        place = len(self._trials)
        given = self._given(place)
        if given is None:
            return None
        if given:
            self._optuna.enqueue_trial(self._as_choices(given))
        self._optuna.sampler = self._settings.sampler(_seed(self._settings.seed, place))
        trial = self._optuna.ask()
        sampled = draw(self._study.search, self._study.order, lambda name, axis: _suggest(trial, name, axis))
        self._trials[number] = trial
        return sampled, self._memory(place)

    def remember(self, trial: TrialRecord) -> None:
        """A suggestion that was made before this process began."""
        self._optuna.add_trial(
            create_trial(
                state=TrialState.RUNNING,
                params=self._as_choices(trial.sampled),
                distributions={name: self._distributions[name] for name in trial.sampled},
                system_attrs=trial.memory.get("trial", {}),
            )
        )
        for name, value in trial.memory.get("study", {}).items():
            self._storage.set_study_system_attr(self._optuna._study_id, name, value)
        known = self._optuna.get_trials(deepcopy=False)[-1]
        self._trials[trial.number] = optuna.Trial(self._optuna, known._trial_id)
        for epoch in trial.epochs:
            self._report(trial, epoch)
        if trial.state not in ("running", "interrupted"):
            self.ended(trial)

    def reported(self, trial: TrialRecord) -> None:
        """A trial has a new last report."""
        self._report(trial, trial.last)

    def ended(self, trial: TrialRecord) -> None:
        """A trial is over: complete, pruned or failed. (Ray's own class tells an early value as if it were final.)"""
        asked = self._trials[trial.number]
        if trial.state == "finished":
            self._optuna.tell(asked, [trial.last[name] for name in self._study.objectives])
        elif trial.state != "interrupted":
            self._optuna.tell(asked, state=TrialState.PRUNED if trial.state == "pruned" else TrialState.FAIL)

    def _memory(self, place: int) -> dict[str, Any]:
        """What Optuna has noted with the latest suggestion: of the trial, and (of generations, say) of the study."""
        noted = self._storage.get_study_system_attrs(self._optuna._study_id)
        new = {name: value for name, value in noted.items() if name not in self._noted}
        self._noted |= new.keys()
        memory = {"trial": dict(self._known()[place].system_attrs), "study": new}
        return {whose: what for whose, what in memory.items() if what}

    def _as_choices(self, sampled: Sampled) -> Sampled:
        """The values as Optuna knows them."""
        return {name: choice_of(self._study.search[name], value) for name, value in sampled.items()}

    def _known(self) -> list[optuna.trial.FrozenTrial]:
        return self._optuna.get_trials(deepcopy=False)

    def _report(self, trial: TrialRecord, epoch: Mapping[str, float]) -> None:
        if len(self._study.objectives) == 1:  # Optuna knows of no intermediate values for several
            self._trials[trial.number].report(epoch[self._study.objective], int(epoch["epoch"]))

    def _given(self, place: int) -> Sampled | None:
        """The settings to try first; after them the cells of the axes that are a grid, in turn; or the searcher's."""
        if place < len(self._study.first):
            return dict(self._study.first[place])
        given = self._settings.given(self._study, place - len(self._study.first))
        return given if given is None or given else _cell(self._study.search, place - len(self._study.first))


def _cell(search: Mapping[str, Axis], place: int) -> Sampled:
    """One value of each axis that is a grid: all combinations in turn, and then again from the first."""
    grids = {name: axis.values for name, axis in search.items() if axis.way == "grid"}
    place %= math.prod(len(values) for values in grids.values())
    cell: Sampled = {}
    for name, values in reversed(grids.items()):
        place, n = divmod(place, len(values))
        cell[name] = values[n]
    return cell


def _seed(seed: int, place: int) -> int:
    return int(np.random.SeedSequence([seed, place]).generate_state(1)[0])


def _suggest(trial: optuna.Trial, name: str, axis: Axis) -> Any:
    if axis.listed:
        choices = choices_of(axis)
        chosen = trial.suggest_categorical(name, choices)
        return chosen if choices is axis.values else axis.values[choices.index(chosen)]
    if axis.way == "integer":
        return trial.suggest_int(name, *axis.values)
    return trial.suggest_float(name, *axis.values, log=axis.way == "log_uniform")


def _distribution(axis: Axis) -> BaseDistribution:
    if axis.listed:
        return CategoricalDistribution(choices_of(axis))
    if axis.way == "integer":
        return IntDistribution(*axis.values)
    low, high = axis.values
    return FloatDistribution(low, high, log=axis.way == "log_uniform")
