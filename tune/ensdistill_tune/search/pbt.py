"""Population-based training: optimizes settings while the students are trained.

Each member of the population is a trial; its settings, including their changes during training, are fixed when the
trial starts. A stopped member becomes a pruned trial. A new trial replaces it and starts from the checkpoint of a
better trial. Up to the epoch of the checkpoint, the new trial has the settings of the better trial; after that epoch,
its settings change (`Config.schedule`). Training the new trial from the first epoch gives the same student, so the
trial can be replicated and exported like any other trial.

References:
    Jaderberg et al. 2017, Population based training of neural networks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal

from ensdistill.methods.schedule import can_change
from ensdistill.runtime.lazy import np
from ensdistill.settings.base import Settings, setting
from ensdistill_tune.records.trial_record import TrialRecord
from ensdistill_tune.search.decision import Decision
from ensdistill_tune.search.hyperparameter import Hyperparameter
from ensdistill_tune.search.search_space import SearchSpace

Merit = Callable[[Mapping[str, float]], float]
CHECKPOINT_AFTER = "checkpoint_epoch_{epoch:05d}.pt"  # checkpoint file from which other trials start


class Pbt(Settings):
    """Population-based training: the worst trials are stopped and replaced by perturbed copies of the best ones.

    A copy continues from the checkpoint of a trial in the top quantile. Only settings that can change during training
    are perturbed.

    References:
        Jaderberg et al. 2017.
    """

    kind: Literal["pbt"] = "pbt"
    population: int = setting(8, "Population size: number of trials that the searcher suggests.", ge=2)
    interval_epochs: int = setting(10, "Number of epochs between two comparisons of the trials.", ge=1)
    quantile: float = setting(
        0.25,
        "Fraction of the trials in the bottom quantile (stopped) and in the top quantile (copied).",
        gt=0,
        le=0.5,
    )
    resample: float = setting(
        0.25, "Probability that a setting is drawn from its range instead of being perturbed.", ge=0, le=1
    )
    factor: float = setting(1.25, "Perturbation factor: a numeric value is multiplied or divided by it.", gt=1)
    seed: int = setting(0, "Seed for selecting the trials to copy and perturbing their settings.", ge=0)

    def __call__(self, epochs: int, modes: Sequence[str]) -> _PbtRule:
        """Returns a rule for trials of `epochs` epochs; `modes` is `min` or `max` for each objective."""
        return _PbtRule(self, epochs, -1.0 if modes[0] == "max" else 1.0)

    def decision_epochs(self, epochs: int) -> Collection[int]:
        """Returns the epochs after which the rule can stop a trial of `epochs` epochs."""
        return range(self.interval_epochs, epochs, self.interval_epochs)

    def exploit_and_explore(
        self, space: SearchSpace, merit: Merit, mode: str, searched: Sequence[TrialRecord]
    ) -> dict[str, Any] | None:
        """Returns the record of a trial that replaces a stopped trial.

        Args:
            space: The search space.
            merit: Function that maps the metrics of a report to the value by which trials are compared.
            mode: `min` or `max`: the direction in which this value improves.
            searched: The trials so far.

        Returns:
            Fields of a trial record; None if every stopped trial has been replaced.
        """
        taken = {trial.replaces for trial in searched}
        for trial in sorted(searched, key=lambda trial: trial.number):
            if trial.state == "pruned" and trial.number not in taken:
                return self._make_replacement(trial, space, merit, mode, searched)
        return None

    def _make_replacement(
        self, trial: TrialRecord, space: SearchSpace, merit: Merit, mode: str, searched: Sequence[TrialRecord]
    ) -> dict[str, Any]:
        chance, epoch = np.random.default_rng([self.seed, trial.number]), int(trial.last["epoch"])
        sign = -1 if mode == "max" else 1
        came = {t.number: merit(report) for t in searched if t.kind == "search" and (report := t.report_after(epoch))}
        del came[trial.number]
        order = sorted(came, key=lambda number: (sign * came[number], number))
        best = order[: max(1, int(len(order) * self.quantile))]
        chosen = best[chance.integers(len(best))]
        parent = next(t for t in searched if t.number == chosen)
        now = parent.settings_at_last
        drawn = {name: self._perturb_value(space.axes[name], now[name], chance) for name in now if can_change(name)}
        settings = {name: value for name, value in drawn.items() if space.axes[name].is_active(now | drawn)}
        changes = [*parent.schedule, {"after_epoch": epoch, "set": settings}]
        return {"sampled": parent.sampled, "schedule": changes, "parent": parent.number, "replaces": trial.number}

    def _perturb_value(self, axis: Hyperparameter, value: Any, chance: np.random.Generator) -> Any:
        """Returns a new value of a setting: resampled, scaled by the factor, or moved to a neighboring value."""
        if chance.random() < self.resample:
            return axis.from_unit_interval(chance.random())
        up = bool(chance.random() < 0.5)
        if axis.is_categorical:
            place = axis.values.index(value) + (1 if up else -1)
            return axis.values[min(max(place, 0), len(axis.values) - 1)]
        low, high = axis.values
        if axis.kind == "integer":
            return min(max(value + (1 if up else -1), low), high)
        return min(max(value * self.factor if up else value / self.factor, low), high)


class _PbtRule:
    def __init__(self, settings: Pbt, epochs: int, sign: float) -> None:
        self._settings, self._epochs, self._sign = settings, epochs, sign
        self._came: dict[int, dict[int, float]] = {}  # values, keyed by comparison epoch, then by trial number

    def decide(self, number: int, epoch: int, values: Sequence[float]) -> Decision:
        if epoch % self._settings.interval_epochs or epoch >= self._epochs:
            return Decision.CONTINUE
        came: Mapping[int, float] = self._came.setdefault(epoch, {})
        self._came[epoch].setdefault(number, self._sign * values[0])
        order = sorted(came, key=lambda other: (came[other], other))
        return Decision.stop_if(number in order[len(order) - int(len(order) * self._settings.quantile) :])
