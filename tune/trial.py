"""One trial inside a Ray worker: sampled values -> settings -> `ensdistill.distill` -> reports and checkpoints."""

import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ray import tune

from ensdistill import Data, Ensemble, Epoch, distill
from ensdistill.ensemble_metrics import deep_ensemble_equivalent
from ensdistill.errors import DivergedError, EnsdistillError
from ensdistill.weights import STUDENT_FILE, save_weights
from tune.memory import own_memory
from tune.placement import SharedData
from tune.record import FAILURE
from tune.space import Study

WORST = 1e30  # stands in for the objective of a trial that has none
CHECKPOINT = "checkpoint.pt"
CHECKPOINT_EVERY = 5  # epochs; a resumed trial gives the same numbers, so this only decides how much is done again


@dataclass(frozen=True)
class Inputs:
    """What all trials share, put into Ray's object store once."""

    study: Study
    data: SharedData
    ensemble: Ensemble
    curve: Sequence[float]  # calibrated NLL on validation of 1, 2, ..., M teachers

    @classmethod
    def of(cls, study: Study, data: Data, ensemble: Ensemble, curve: Sequence[float]) -> "Inputs":
        """Packs what `unpack` gives back."""
        return cls(study, SharedData.of(data), ensemble.cpu(), curve)

    def unpack(self, device: torch.device) -> tuple[Data, Ensemble]:
        """Data and ensemble on the device."""
        return self.data.to(device), self.ensemble.to(device)


def run_trial(suggestion: dict[str, Any], inputs: Inputs) -> None:
    """Trains one student and reports every epoch; goes on from Ray's checkpoint if there is one.

    suggestion: {"number", "baseline", "sampled"} as `tune.searchers.StudySearch` makes it; a repeat has a "seed" too.
    """
    study = inputs.study
    try:
        with own_memory(study.trial.gpu):
            _run(suggestion, inputs)
    except EnsdistillError as error:
        # Told as a result, not raised: Ray would start the trial again, to fail at the same place.
        worst = -WORST if study.mode == "max" else WORST
        epoch = error.epoch if isinstance(error, DivergedError) else 0
        tune.report({"epoch": epoch, "epochs": study.epochs, study.objective: worst, FAILURE: str(error)})


def _run(suggestion: dict[str, Any], inputs: Inputs) -> None:
    study = inputs.study
    config = study.config_of(suggestion["baseline"], suggestion["sampled"], suggestion.get("seed"))
    data, ensemble = inputs.unpack(torch.device("cuda" if study.trial.gpu else "cpu"))
    metadata = {"settings": config.hash, "data": data.identity, "ensemble": ensemble.identity}
    before = tune.get_checkpoint()
    with before.as_directory() if before else nullcontext() as folder:
        run = distill(config, ensemble, data, resume=Path(folder) / CHECKPOINT if folder else None)
    for epoch in run:
        _report(epoch, inputs.curve, metadata)


def _report(epoch: Epoch, curve: Sequence[float], metadata: dict[str, str]) -> None:
    metrics: dict[str, Any] = {"epoch": epoch.number, "epochs": epoch.epochs, "train/loss": epoch.loss}
    metrics |= {f"val/{name}": value for name, value in epoch.val.items()}
    metrics["val/dee"] = deep_ensemble_equivalent(epoch.val["cnll"], curve)
    metrics |= {f"subnetworks/{name}": value for name, value in epoch.subnetworks.items()}
    metrics["cost/epoch_seconds"] = epoch.seconds
    if not epoch.last and epoch.number % CHECKPOINT_EVERY:
        tune.report(metrics)
        return
    with tempfile.TemporaryDirectory() as folder:
        epoch.save(Path(folder) / CHECKPOINT)
        if epoch.last:
            save_weights(Path(folder) / STUDENT_FILE, epoch.student(), metadata)
        tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(folder))
