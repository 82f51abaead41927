"""Runs one trial inside a Ray worker."""

from typing import Any

from ray import tune

from ensdistill_tune.execution.environment import configure_process
from ensdistill_tune.execution.shared_inputs import SharedInputs
from ensdistill_tune.execution.worker import run_trial


def run_in_worker(suggestion: dict[str, Any], inputs: SharedInputs) -> None:
    """Runs a trial that reports to Ray. If the trial is stopped, the call that reports does not return.

    Args:
        suggestion: The trial, as `TrialPlanner.next` returns it.
        inputs: Settings, data and teachers, shared by all trials.
    """
    configure_process()
    run_trial(suggestion, inputs, tune.report)
