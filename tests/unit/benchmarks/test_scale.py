"""The simulated trials of `make scale` take the place of real ones."""

import inspect

import pytest

from ensdistill_tune.execution import ray_trainable, worker
from tests.benchmarks import made_up_trials


@pytest.mark.parametrize("real", [ray_trainable.run_in_worker, worker.run_trial])
def test_a_simulated_trial_accepts_the_arguments_of_a_real_trial(real: object) -> None:
    simulated = getattr(made_up_trials, real.__name__)  # type: ignore[attr-defined]
    assert list(inspect.signature(simulated).parameters) == list(inspect.signature(real).parameters)  # type: ignore[arg-type]
