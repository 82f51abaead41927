"""How the end of a trial in Ray is passed to the planner, with simulated trials and without Ray."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.tune.utils.object_cache import _ObjectCache

from ensdistill_tune.analysis.trial_warnings import trial_warnings
from ensdistill_tune.execution.executor import TrialReports
from ensdistill_tune.execution.ray_executor import worker_environment
from ensdistill_tune.execution.ray_runner import _keep_workers, _PlannerCallback, _worker_error
from ensdistill_tune.execution.trial_planner import TrialPlanner
from ensdistill_tune.records.study_directory import StudyDirectory
from ensdistill_tune.study.study_config import Resources, StudyConfig
from ensdistill_tune.study.study_state import StudyState


class InRay:
    """The part of a Ray trial that end callbacks use; the process of the trial dies immediately before its start."""

    status = ERROR = "ERROR"
    error_file: Path | None = None

    def __init__(self, number: int, trial_id: str = "first") -> None:
        self.config = {"number": number}
        self.trial_id = trial_id

    def should_recover(self) -> bool:
        return True


@pytest.mark.parametrize("max_retries", [0, 2])
def test_a_trial_whose_process_dies_before_it_starts_is_restarted_up_to_the_limit(
    max_retries: int, tmp_path: Path
) -> None:
    space = {"preset": "kd", "search": {"training.optimizer.lr": {"uniform": [0.1, 0.2]}}, "baselines": ["kd"]}
    study = StudyConfig.model_validate(space | {"resources": {"max_retries": max_retries}})
    agenda = TrialPlanner(StudyState(study, StudyDirectory(tmp_path), {}, trial_warnings), slots=1)
    ends, begun, lost = _PlannerCallback(TrialReports(agenda)), 0, list[InRay]()
    while isinstance(suggestion := agenda.next(), dict) and suggestion["number"] == 1:
        begun += 1
        lost.append(InRay(1, f"{begun}"))
        ends.on_step_end(0, lost[:-1])  # Ray reports abandoned trials again in every iteration
        assert agenda.progress.trials[1].state == "running"
        ends.on_trial_error(0, [], lost[-1])
    assert begun == 1 + max_retries
    trial = agenda.progress.trials[1]
    assert (trial.state, trial.error) == ("failed", "the worker process died")


def test_an_ended_trial_is_not_restarted_if_its_process_dies(tmp_path: Path) -> None:
    space = {"preset": "kd", "search": {"training.optimizer.lr": {"uniform": [0.1, 0.2]}}, "baselines": ["kd"]}
    agenda = TrialPlanner(
        StudyState(StudyConfig.model_validate(space), StudyDirectory(tmp_path), {}, trial_warnings), slots=1
    )
    agenda.next()
    agenda.end(1, "pruned")
    _PlannerCallback(TrialReports(agenda)).on_trial_error(0, [], InRay(1))
    assert agenda.progress.trials[1].state == "pruned"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("ray.exceptions.ActorDiedError: The actor died: its worker process has died.", "it crashed, or was killed"),
        ("The actor a1 is unavailable: The actor is temporarily unavailable: Rpc", "is no longer reachable"),
        ("ensdistill.errors.DataError: disk full", "DataError: disk full"),
    ],
)
def test_a_ray_error_is_reported_in_plain_words(line: str, words: str, tmp_path: Path) -> None:
    trial = InRay(1)
    assert _worker_error(trial) == "the worker process died"
    trial.error_file = tmp_path / "error.txt"
    trial.error_file.write_text(f"Traceback\n  somewhere\n{line}\n\n")
    assert words in _worker_error(trial)


def test_tune_keeps_the_processes_of_all_trials_that_end_at_the_same_time() -> None:
    cache, trial = _ObjectCache(may_keep_one=True), SimpleNamespace(placement_group_factory="one CPU")
    assert [cache.cache_object("one CPU", number) for number in range(3)] == [True, False, False]
    _keep_workers(SimpleNamespace(_actor_cache=cache), trial)
    assert all(cache.cache_object("one CPU", number) for number in range(1, 3))
    assert list(cache.flush_cached_objects()) == []
    _keep_workers(SimpleNamespace(), trial)  # another version of Ray


@pytest.mark.parametrize(
    ("given", "cpus", "in_advance", "threads"),
    [
        ({}, 8, "1", "1"),
        ({"max_concurrent": 5}, 8, "1", "1"),
        ({"max_concurrent": 4}, 8, "0", "1"),
        ({"cpus": 4}, 8, "0", "4"),
        ({"cpus": 0.5}, 2, "1", "1"),
    ],
)
def test_workers_are_started_in_advance_only_if_most_of_them_will_be_used(
    given: dict[str, float], cpus: int, in_advance: str, threads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: cpus)
    found = worker_environment(Resources.model_validate(given))
    assert (found["RAY_prestart_worker_first_driver"], found["OMP_NUM_THREADS"]) == (in_advance, threads)


def test_workers_on_gpus_import_nothing_before_they_have_a_gpu() -> None:
    assert worker_environment(Resources(gpus=1)) == {"RAY_prestart_worker_first_driver": "0"}
