"""Trials that train nothing: a made-up learning curve and the student of another trial. Imports no torch.

A worker of Ray imports this module instead of the real trial, so that a benchmark measures the driver alone.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STUDENT = "student.safetensors"  # in the folder of all studies: the student that every trial "trains"
SECONDS = "MADE_UP_TRIAL_SECONDS"  # environment variable: how long a trial waits
NAMES = (
    *(f"{what}/{name}" for what in ("val", "subnetworks") for name in ("nll", "accuracy", "brier", "ece", "cnll")),
    *("train/loss", "val/cbrier", "val/cece", "val/dee", "val/agreement", "val/kl_to_ensemble", "val/top1_agreement"),
    *("cost/parameters", "cost/flops"),
)


@dataclass(frozen=True)
class MadeUpInputs:
    """What such a trial needs: the folder of its study and the number of epochs."""

    home: str
    epochs: int


def curve(suggestion: dict[str, Any], epochs: int) -> Iterator[dict[str, float]]:
    """The metrics after each epoch: a function of the settings, as those of a real trial.

    Args:
        suggestion: The trial, as the planner returns it.
        epochs: Number of epochs.
    """
    words = json.dumps([suggestion["baseline"], suggestion["sampled"], suggestion["seed"]], sort_keys=True)
    own = int.from_bytes(hashlib.sha256(words.encode()).digest()[:4], "big") / 2**32
    for epoch in range(1, epochs + 1):
        value = own + (1.1 - own) / epoch
        counted = {"epoch": epoch, "epochs": epochs, "time/epoch_seconds": 0.01}
        yield counted | dict.fromkeys(NAMES, value)


def run_trial(suggestion: dict[str, Any], inputs: MadeUpInputs, report: Callable[[dict[str, Any]], None]) -> None:
    """Reports the curve of a trial in one message, after its student.

    Args:
        suggestion: The trial.
        inputs: Folder and epochs.
        report: Sends the message.
    """
    time.sleep(float(os.environ.get(SECONDS, "0")))
    home = Path(inputs.home, "trials", f"{suggestion['number']:05d}")
    home.mkdir(parents=True, exist_ok=True)
    (home / STUDENT).unlink(missing_ok=True)
    os.link(Path(inputs.home).parent / STUDENT, home / STUDENT)
    report({"reported": list(curve(suggestion, inputs.epochs))})


def run_in_worker(suggestion: dict[str, Any], inputs: MadeUpInputs) -> None:
    """Runs such a trial in a worker of Ray."""
    from ray import tune

    run_trial(suggestion, inputs, tune.report)
