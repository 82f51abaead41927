"""One trial inside a Ray worker."""

import os
from typing import Any

# What a stopped trial may need to free its memory before its process serves the next one. Ray would give it 2 s and
# let the next one fail.
os.environ.setdefault("TUNE_FUNCTION_THREAD_TIMEOUT_S", "600")

from ray import tune

from ensdistill_tune.execution.shared_inputs import SharedInputs
from ensdistill_tune.execution.worker import run_trial


def run_in_worker(suggestion: dict[str, Any], inputs: SharedInputs) -> None:
    """Runs a trial that reports to Ray; a report does not return if the trial is stopped."""
    run_trial(suggestion, inputs, tune.report)
