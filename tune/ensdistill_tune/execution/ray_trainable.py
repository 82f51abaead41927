"""Runs one trial inside a Ray worker."""

from typing import Any

from ray import tune

from ensdistill.errors import MachineError
from ensdistill_tune.execution.environment import configure_process
from ensdistill_tune.execution.ray_nodes import StudyMachine
from ensdistill_tune.execution.shared_inputs import SharedInputs
from ensdistill_tune.execution.worker import run_trial
from ensdistill_tune.records.trial_record import EPOCHS, FAILURE, FAILURE_KIND


def run_in_worker(suggestion: dict[str, Any], inputs: SharedInputs, machine: StudyMachine) -> None:
    """Runs a trial that reports to Ray. If the trial is stopped, its last report call does not return.

    Args:
        suggestion: The trial, as `TrialPlanner.next` returns it.
        inputs: Settings, data and teachers, shared by all trials.
        machine: Requirements that this machine must meet.
    """
    configure_process()
    try:
        machine.check_this_machine()
    except MachineError as error:
        tune.report({EPOCHS: [], FAILURE: str(error), FAILURE_KIND: MachineError.__name__})
    run_trial(suggestion, inputs, tune.report)
