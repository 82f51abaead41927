"""Who stops hopeless trials early. To add one: one class, one line in `Scheduler`."""

from typing import Annotated, Any, Literal

from pydantic import Field
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler

from ensdistill.settings import Settings, setting


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


class _AshaSparingBaselines(AsyncHyperBandScheduler):
    """Published settings always run to their end, and no searched trial is measured against them."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if trial.config.get("baseline"):
            return str(TrialScheduler.CONTINUE)
        return str(super().on_trial_result(tune_controller, trial, result))


Scheduler = Annotated[Asha | NoScheduler, Field(discriminator="kind")]
