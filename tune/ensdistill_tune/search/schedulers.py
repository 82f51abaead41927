"""Who stops hopeless trials early. To add one: one class, one line in `Scheduler`.

A rule hears every report of every searched trial, in the order of the journal, and says whether the trial stops. That
is all it knows, so reading the journal once more to a new rule gives the rungs and decisions of the old one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import TYPE_CHECKING, Annotated, Literal, Protocol

from pydantic import Field

from ensdistill.runtime.lazy import np
from ensdistill.runtime.randomness import temporary_numpy_seed
from ensdistill.settings.base import Settings, setting
from ensdistill_tune.search.decision import Decision
from ensdistill_tune.search.pareto import ParetoRungs, rungs, to_minimization
from ensdistill_tune.search.pbt import Pbt

if TYPE_CHECKING:
    from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler


class StoppingRule(Protocol):
    """Decides after each report whether a trial continues."""

    def decide(self, number: int, epoch: int, values: Sequence[float]) -> Decision:
        """Returns what happens to this trial after this epoch with these values of the objectives."""


class EarlyStoppingSettings(Settings):
    group_by: list[str] = setting(
        [],
        "Axes by whose values trials are told apart: each is compared only with those that have the same. For "
        "averaging.kind, say, since averaged weights look better early than they end.",
    )


class NoScheduler(Settings):
    """Every trial runs to its end."""

    kind: Literal["none"] = "none"

    def decision_epochs(self, epochs: int) -> Collection[int]:
        """The epochs after which it may stop a trial of so many."""
        return ()

    def __call__(self, epochs: int, modes: Sequence[str]) -> StoppingRule:
        """A rule for trials of so many epochs and objectives of these modes (`min` or `max`)."""
        return _NeverStop()


class Asha(EarlyStoppingSettings):
    """Asynchronous successive halving: at each rung only the best share goes on. Li et al. 2020, MLSys.

    With several objectives a trial stops only if others dominate it, and so many that the best share lies in better
    fronts than its own (`ensdistill_tune.search.pareto`): nothing of the Pareto front is cut off.
    """

    kind: Literal["asha"] = "asha"
    grace_epochs: int = setting(10, "No trial is stopped before this epoch, the first rung.", ge=1)
    reduction_factor: float = setting(
        2, "At each rung, one in `reduction_factor` trials continues; rungs are spaced by the same factor.", gt=1
    )

    tolerance: list[float] = setting(
        [], "For several objectives: who would not be dominated if better by this share, one for each, goes on too."
    )

    def decision_epochs(self, epochs: int) -> Collection[int]:
        """The epochs after which it may stop a trial of so many: the rungs."""
        return rungs(min(self.grace_epochs, epochs), self.reduction_factor, epochs)

    def __call__(self, epochs: int, modes: Sequence[str]) -> StoppingRule:
        """A rule for trials of so many epochs and objectives of these modes (`min` or `max`)."""
        if len(modes) > 1:
            places = rungs(min(self.grace_epochs, epochs), self.reduction_factor, epochs)
            return _ParetoRule(ParetoRungs(places, self.reduction_factor, self.tolerance or [0.0] * len(modes)), modes)
        return _RayAshaRule(_asha(self.grace_epochs, self.reduction_factor, 1, epochs, modes[0]))


class Hyperband(EarlyStoppingSettings):
    """Asynchronous HyperBand: brackets of `asha` side by side, each with a later first rung than the one before.

    For when nobody knows how early a trial shows what it is worth. Li et al. 2018, JMLR, section 3; Li et al. 2020.
    """

    kind: Literal["hyperband"] = "hyperband"
    grace_epochs: int = setting(2, "The first rung of the first bracket.", ge=1)
    reduction_factor: float = setting(
        3, "At each rung, one in `reduction_factor` trials continues; rungs are spaced by the same factor.", gt=1
    )
    brackets: int = setting(3, "How many brackets; fewer if the trials are too short for so many.", ge=1, le=20)
    seed: int = setting(0, "Seed by which trials are dealt to brackets.", ge=0)

    def decision_epochs(self, epochs: int) -> Collection[int]:
        """The epochs after which it may stop a trial of so many: the rungs of the first bracket hold all others."""
        return rungs(min(self.grace_epochs, epochs), self.reduction_factor, epochs)

    def __call__(self, epochs: int, modes: Sequence[str]) -> StoppingRule:
        """A rule for trials of so many epochs and objectives of these modes (`min` or `max`)."""
        fit = 1 + int(np.log(max(1, epochs / self.grace_epochs)) / np.log(self.reduction_factor))
        return _RayAshaRule(
            _asha(self.grace_epochs, self.reduction_factor, min(self.brackets, fit), epochs, modes[0]), self.seed
        )


class Median(EarlyStoppingSettings):
    """A trial stops when the best it has reached is below the median of what others had reached in the mean by then.

    Golovin et al. 2017 (Vizier), section 3.2.2.
    """

    kind: Literal["median"] = "median"
    grace_epochs: int = setting(5, "No trial is stopped before this epoch.", ge=1)
    min_trials: int = setting(3, "How many others must have come so far.", ge=1)

    def decision_epochs(self, epochs: int) -> Collection[int]:
        """The epochs after which it may stop a trial of so many."""
        return range(min(self.grace_epochs, epochs), epochs)

    def __call__(self, epochs: int, modes: Sequence[str]) -> StoppingRule:
        """A rule for trials of so many epochs and objectives of these modes (`min` or `max`)."""
        return _MedianRule(min(self.grace_epochs, epochs), self.min_trials, -1.0 if modes[0] == "max" else 1.0)


class _NeverStop:
    def decide(self, number: int, epoch: int, values: Sequence[float]) -> Decision:
        return Decision.CONTINUE


class _MedianRule:
    """Ray's own rule pauses trials, and takes a time for each report that grows with all reports before it."""

    def __init__(self, grace: int, trials: int, sign: float) -> None:
        self._grace, self._trials, self._sign = grace, trials, sign
        self._values: dict[int, list[float]] = {}  # of each trial from the grace on
        self._means: dict[int, dict[int, float]] = {}  # of these values, by epoch and trial
        self._best: dict[int, float] = {}

    def decide(self, number: int, epoch: int, values: Sequence[float]) -> Decision:
        value = self._sign * values[0]
        best = self._best[number] = min(value, self._best.get(number, value))
        if epoch < self._grace:
            return Decision.CONTINUE
        own = self._values.setdefault(number, [])
        own.append(value)
        means = self._means.setdefault(epoch, {})
        others = [mean for other, mean in means.items() if other != number]
        means[number] = fmean(own)
        return Decision.stop_if(len(others) >= self._trials and best > median(others))


_EPOCH, _OBJECTIVE = "epoch", "objective"


def _asha(grace: int, factor: float, brackets: int, epochs: int, mode: str) -> AsyncHyperBandScheduler:
    from ray.tune.schedulers import AsyncHyperBandScheduler  # here: a slow import that few commands need

    grace = min(grace, epochs)
    return AsyncHyperBandScheduler(_EPOCH, _OBJECTIVE, mode, epochs, grace, factor, brackets, stop_last_trials=False)


@dataclass(frozen=True)
class _Trial:
    """As much of a trial as Ray's schedulers look at; known by its number, which a restart does not change."""

    trial_id: int


class _ParetoRule:
    """The Pareto rule for objectives of which more may be better."""

    def __init__(self, rungs: ParetoRungs, modes: Sequence[str]) -> None:
        self._rungs, self._modes = rungs, modes

    def decide(self, number: int, epoch: int, values: Sequence[float]) -> Decision:
        return Decision.stop_if(self._rungs.report(number, epoch, to_minimization(values, self._modes)))


class _RayAshaRule:
    """A scheduler of Ray's as a rule."""

    def __init__(self, scheduler: TrialScheduler, seed: int = 0) -> None:
        self._scheduler, self._seed = scheduler, seed
        self._known: dict[int, _Trial] = {}
        self._stopped: set[int] = set()

    def decide(self, number: int, epoch: int, values: Sequence[float]) -> Decision:
        if number not in self._known:
            self._known[number] = _Trial(number)
            with temporary_numpy_seed([self._seed, number]):  # from which Ray draws the bracket of a trial
                self._scheduler.on_trial_add(None, self._known[number])  # type: ignore[arg-type]
        if number in self._stopped:
            return Decision.STOP
        result = {_EPOCH: epoch, _OBJECTIVE: values[0]}
        answer = self._scheduler.on_trial_result(None, self._known[number], result)  # type: ignore[arg-type]
        if answer == self._scheduler.STOP:
            self._stopped.add(number)
        return Decision.stop_if(number in self._stopped)


Scheduler = Annotated[Asha | Hyperband | Median | Pbt | NoScheduler, Field(discriminator="kind")]
