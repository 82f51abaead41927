"""Trials without training: a simulated learning curve and the student of another trial. Does not import torch.

A Ray worker imports this module instead of the real trial, so that a benchmark measures only the driver.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STUDENT = "student.safetensors"  # in the studies folder: the student that every trial "trains"
SECONDS = "MADE_UP_TRIAL_SECONDS"  # environment variable with the duration of a trial
NAMES = (
    *(f"{what}/{name}" for what in ("val", "subnetworks") for name in ("nll", "accuracy", "brier", "ece", "cnll")),
    *("train/loss", "val/cbrier", "val/cece", "val/dee", "val/kl_to_ensemble", "val/top1_agreement"),
    *("cost/parameters", "cost/flops"),
)


@dataclass(frozen=True)
class MadeUpInputs:
    """Inputs of a simulated trial: the study folder and the number of epochs."""

    home: str
    epochs: int


def curve(suggestion: dict[str, Any], epochs: int) -> Iterator[dict[str, float]]:
    """Returns the metrics after each epoch as a function of the settings, as in a real trial.

    Args:
        suggestion: The trial, as returned by the planner.
        epochs: Number of epochs.
    """
    words = json.dumps([suggestion["baseline"], suggestion["sampled"], suggestion["seed"]], sort_keys=True)
    own = int.from_bytes(hashlib.sha256(words.encode()).digest()[:4], "big") / 2**32
    for epoch in range(1, epochs + 1):
        value = own + (1.1 - own) / epoch
        counted = {"epoch": epoch, "epochs": epochs, "time/epoch_seconds": 0.01}
        yield counted | dict.fromkeys(NAMES, value)


def run_trial(suggestion: dict[str, Any], inputs: MadeUpInputs, report: Callable[[dict[str, Any]], None]) -> None:
    """Writes the student of a trial, and then reports its learning curve in one message.

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


def run_in_worker(suggestion: dict[str, Any], inputs: MadeUpInputs, machine: Any) -> None:
    """Runs a simulated trial in a Ray worker, with the arguments of `ray_trainable.run_in_worker`."""
    from ray import tune

    run_trial(suggestion, inputs, tune.report)
