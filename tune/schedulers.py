"""Who stops hopeless trials early. To add one: one class, one line in `Scheduler`."""

from typing import Annotated, Any, Literal

from pydantic import Field
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from ensdistill.settings import Settings, setting
from tune.record import FAILURE


class NoScheduler(Settings):
    """Every trial runs to its end."""

    kind: Literal["none"] = "none"

    def __call__(self, epochs: int) -> TrialScheduler:
        """A scheduler for trials of so many epochs."""
        return FIFOScheduler()  # type: ignore[no-untyped-call]


class Asha(Settings):
    """Asynchronous successive halving: at each rung only the best share goes on. Li et al. 2020, MLSys."""

    kind: Literal["asha"] = "asha"
    grace_epochs: int = setting(5, "No trial is stopped before this epoch, the first rung.", ge=1)
    reduction_factor: float = setting(3, "One in so many goes on from a rung; rungs lie so much apart.", gt=1)

    def __call__(self, epochs: int) -> TrialScheduler:
        """A scheduler for trials of so many epochs."""
        return _AshaSparingBaselines(
            time_attr="epoch",
            max_t=epochs,
            grace_period=min(self.grace_epochs, epochs),
            reduction_factor=self.reduction_factor,
            stop_last_trials=False,
        )


class Median(Settings):
    """A trial stops when the best it has reached is below the median of what others had reached in the mean by then.

    Golovin et al. 2017 (Vizier), section 3.2.2.
    """

    kind: Literal["median"] = "median"
    grace_epochs: int = setting(5, "No trial is stopped before this epoch.", ge=1)
    trials: int = setting(3, "How many others must have come so far.", ge=1)

    def __call__(self, epochs: int) -> TrialScheduler:
        """A scheduler for trials of so many epochs."""
        return _MedianSparingBaselines(
            time_attr="epoch",
            grace_period=min(self.grace_epochs, epochs),
            min_samples_required=self.trials,
        )


class _AshaSparingBaselines(AsyncHyperBandScheduler):
    """Published settings always run to their end, and no searched trial is measured against them."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if trial.config.get("baseline"):
            return str(TrialScheduler.CONTINUE)
        return str(super().on_trial_result(tune_controller, trial, result))


class _MedianSparingBaselines(MedianStoppingRule):
    """Published settings always run to their end, and no searched trial is measured against them."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if trial.config.get("baseline") or FAILURE in result:
            return str(TrialScheduler.CONTINUE)
        return str(super().on_trial_result(tune_controller, trial, result))

    def _on_insufficient_samples(self, tune_controller: Any, trial: Any, time: float) -> str:
        return str(TrialScheduler.CONTINUE)  # Ray's would pause it, and it would begin again at its last checkpoint

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Nothing to add: every result of it has come through `on_trial_result`."""


Scheduler = Annotated[Asha | Median | NoScheduler, Field(discriminator="kind")]
