"""Early-stopping schedulers. To add a scheduler, write a class and list it in `Scheduler`.

A rule receives every report of every search trial, in the order of the event log, and returns whether the trial
continues. It has no other input, so any instance that receives the same events makes the same decisions.
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
        """Returns whether a trial continues.

        Args:
            number: Trial number.
            epoch: Number of completed epochs of the trial.
            values: Objectives of the trial after that epoch.
        """


class EarlyStoppingSettings(Settings):
    group_by: list[str] = setting(
        [],
        "Searched settings by which trials are grouped: a trial is compared only with trials that have the same "
        "values. An example is averaging.kind, because averaged weights look better early in training than at the end.",
    )


class NoScheduler(Settings):
    """No early stopping: every trial completes."""

    kind: Literal["none"] = "none"

    def decision_epochs(self, epochs: int) -> Collection[int]:
        """Returns the epochs after which the rule can stop a trial of `epochs` epochs: none."""
        return ()

    def __call__(self, epochs: int, modes: Sequence[str]) -> StoppingRule:
        """Returns a rule for trials of `epochs` epochs; `modes` is `min` or `max` for each objective."""
        return _NeverStop()


class Asha(EarlyStoppingSettings):
    """Asynchronous successive halving: at each rung only the best fraction of the trials continues.

    Trials are compared by their best values up to the rung. With several objectives, the values at the rung are used,
    and a trial stops only if enough other trials lie in better fronts, so no trial on the Pareto front of a rung is
    stopped (`ensdistill_tune.search.pareto`).

    References:
        Li et al. 2020, MLSys.
    """

    kind: Literal["asha"] = "asha"
    grace_epochs: int = setting(10, "First rung: the epoch before which no trial is stopped.", ge=1)
    reduction_factor: float = setting(
        2, "At each rung, one in `reduction_factor` trials continues; rungs are spaced by the same factor.", gt=1
    )

    tolerance: list[float] = setting(
        [],
        "With several objectives: relative margin for each objective; a trial within this margin of the front is not "
        "stopped.",
    )

    def decision_epochs(self, epochs: int) -> Collection[int]:
        """Returns the epochs after which the rule can stop a trial of `epochs` epochs: the rungs."""
        return rungs(min(self.grace_epochs, epochs), self.reduction_factor, epochs)

    def __call__(self, epochs: int, modes: Sequence[str]) -> StoppingRule:
        """Returns a rule for trials of `epochs` epochs; `modes` is `min` or `max` for each objective."""
        if len(modes) > 1:
            places = rungs(min(self.grace_epochs, epochs), self.reduction_factor, epochs)
            return _ParetoRule(ParetoRungs(places, self.reduction_factor, self.tolerance or [0.0] * len(modes)), modes)
        return _RayAshaRule(_asha(self.grace_epochs, self.reduction_factor, 1, epochs, modes[0]), modes[0])


class Hyperband(EarlyStoppingSettings):
    """Asynchronous HyperBand: parallel brackets of `asha`, each with a later first rung than the previous one.

    Suitable if it is unknown how many epochs must pass before the metrics of a trial predict its final quality.

    References:
        Li et al. 2018, JMLR, section 3. Li et al. 2020, MLSys.
    """

    kind: Literal["hyperband"] = "hyperband"
    grace_epochs: int = setting(2, "First rung of the first bracket, in epochs.", ge=1)
    reduction_factor: float = setting(
        3, "At each rung, one in `reduction_factor` trials continues; rungs are spaced by the same factor.", gt=1
    )
    brackets: int = setting(3, "Maximum number of brackets; short trials allow fewer brackets.", ge=1, le=20)
    seed: int = setting(0, "Seed for assigning trials to brackets.", ge=0)

    def decision_epochs(self, epochs: int) -> Collection[int]:
        """Returns the epochs after which the rule can stop a trial of `epochs` epochs: the rungs of the first bracket.

        These epochs include the rungs of all other brackets.
        """
        return rungs(min(self.grace_epochs, epochs), self.reduction_factor, epochs)

    def __call__(self, epochs: int, modes: Sequence[str]) -> StoppingRule:
        """Returns a rule for trials of `epochs` epochs; `modes` is `min` or `max` for each objective."""
        fit = 1 + int(np.log(max(1, epochs / self.grace_epochs)) / np.log(self.reduction_factor))
        scheduler = _asha(self.grace_epochs, self.reduction_factor, min(self.brackets, fit), epochs, modes[0])
        return _RayAshaRule(scheduler, modes[0], self.seed)


class Median(EarlyStoppingSettings):
    """Median rule: a trial stops if its best value so far is worse than the median of other trials' running means.

    References:
        Golovin et al. 2017 (Vizier), section 3.2.2.
    """

    kind: Literal["median"] = "median"
    grace_epochs: int = setting(5, "Epoch before which no trial is stopped.", ge=1)
    min_trials: int = setting(
        3,
        "Number of other trials that must have reached an epoch before the rule can stop a trial at that epoch.",
        ge=1,
    )

    def decision_epochs(self, epochs: int) -> Collection[int]:
        """Returns the epochs after which the rule can stop a trial of `epochs` epochs."""
        return range(min(self.grace_epochs, epochs), epochs)

    def __call__(self, epochs: int, modes: Sequence[str]) -> StoppingRule:
        """Returns a rule for trials of `epochs` epochs; `modes` is `min` or `max` for each objective."""
        return _MedianRule(min(self.grace_epochs, epochs), self.min_trials, -1.0 if modes[0] == "max" else 1.0)


class _NeverStop:
    def decide(self, number: int, epoch: int, values: Sequence[float]) -> Decision:
        return Decision.CONTINUE


class _MedianRule:
    """The median rule. It replaces Ray's rule, which pauses trials and becomes slower with every report."""

    def __init__(self, grace: int, trials: int, sign: float) -> None:
        self._grace, self._trials, self._sign = grace, trials, sign
        self._values: dict[int, list[float]] = {}  # values of each trial from the grace epoch on
        self._means: dict[int, dict[int, float]] = {}  # running means of these values, keyed by epoch and trial
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
    from ray.tune.schedulers import AsyncHyperBandScheduler  # imported here, because it loads slowly and is rarely used

    grace = min(grace, epochs)
    return AsyncHyperBandScheduler(_EPOCH, _OBJECTIVE, mode, epochs, grace, factor, brackets, stop_last_trials=False)


@dataclass(frozen=True)
class _Trial:
    """Trial attributes that Ray's schedulers use. The identifier is the trial number, even after a restart."""

    trial_id: int


class _ParetoRule:
    """The Pareto rule, for any mix of minimized and maximized objectives."""

    def __init__(self, rungs: ParetoRungs, modes: Sequence[str]) -> None:
        self._rungs, self._modes = rungs, modes

    def decide(self, number: int, epoch: int, values: Sequence[float]) -> Decision:
        return Decision.stop_if(self._rungs.report(number, epoch, to_minimization(values, self._modes)))


class _RayAshaRule:
    """Adapts a Ray scheduler to the interface of a stopping rule; the scheduler receives best values so far."""

    def __init__(self, scheduler: TrialScheduler, mode: str, seed: int = 0) -> None:
        self._scheduler, self._best_of, self._seed = scheduler, max if mode == "max" else min, seed
        self._best: dict[int, float] = {}
        self._known: dict[int, _Trial] = {}
        self._stopped: set[int] = set()

    def decide(self, number: int, epoch: int, values: Sequence[float]) -> Decision:
        if number not in self._known:
            self._known[number] = _Trial(number)
            with temporary_numpy_seed(
                [self._seed, number]
            ):  # Ray draws the bracket of a trial with NumPy's global random generator
                self._scheduler.on_trial_add(None, self._known[number])  # type: ignore[arg-type]
        if number in self._stopped:
            return Decision.STOP
        best = self._best[number] = self._best_of(values[0], self._best.get(number, values[0]))
        result = {_EPOCH: epoch, _OBJECTIVE: best}
        answer = self._scheduler.on_trial_result(None, self._known[number], result)  # type: ignore[arg-type]
        if answer == self._scheduler.STOP:
            self._stopped.add(number)
        return Decision.stop_if(number in self._stopped)


Scheduler = Annotated[Asha | Hyperband | Median | Pbt | NoScheduler, Field(discriminator="kind")]
