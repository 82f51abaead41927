"""CPU and GPU hours are computed from the times in the event log and the resources of each session."""

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ensdistill_tune.analysis.trial_warnings import trial_warnings
from ensdistill_tune.execution.trial_planner import TrialPlanner
from ensdistill_tune.records.events import EpochReported, SessionStarted, TrialEnded, TrialResumed, TrialStarted
from ensdistill_tune.records.study_directory import StudyDirectory
from ensdistill_tune.records.trial_index import TrialIndex
from ensdistill_tune.records.trial_record import METRICS, HoursUsed, Trials, apply_event
from ensdistill_tune.study.study_config import StudyConfig
from ensdistill_tune.study.study_state import StudyState
from ensdistill_tune.tracking.run_fields import RunUpdate, totals_of

HOUR = 3600.0
SPACE: dict[str, Any] = {
    "config": {"training": {"epochs": 2}},
    "search": {"loss.temperature": {"uniform": [1, 10]}},
    "baselines": ["kd"],
    "scheduler": {"kind": "none"},
    "searcher": {"kind": "random"},
    "resources": {"cpus": 4, "gpus": 0.5},
}
STORY = [
    SessionStarted(at=0),
    TrialStarted(at=0, trial=1, cpus=4, gpus=0.5),
    EpochReported(at=1 * HOUR, trial=1, metrics={"epoch": 1, "epochs": 3}),
    TrialStarted(at=1 * HOUR, trial=2, cpus=4, gpus=0.5),
    TrialEnded(at=2 * HOUR, trial=2, state="failed"),
    SessionStarted(at=10 * HOUR),  # the previous session was killed: the last event of trial 1 is after one hour
    TrialEnded(at=10 * HOUR, trial=1, state="interrupted"),
    TrialResumed(at=11 * HOUR, trial=1, cpus=2, gpus=0),  # with different resources
    EpochReported(at=12 * HOUR, trial=1, metrics={"epoch": 2, "epochs": 3}),
    TrialEnded(at=14 * HOUR, trial=1, state="finished"),
]


def test_hours_are_the_recorded_time_multiplied_by_the_resources_and_summed_over_sessions() -> None:
    trials: Trials = {}
    for event in STORY:
        apply_event(trials, event)
    assert HoursUsed.of([trials[1]]) == HoursUsed(cpu=1 * 4 + 3 * 2, gpu=0.5)
    assert HoursUsed.of(trials.values()) == HoursUsed(cpu=10 + 4, gpu=1)
    assert str(HoursUsed.of(trials.values())) == "14 CPU hours and 1 GPU hours"


def test_setting_the_clock_back_does_not_reduce_the_recorded_hours() -> None:
    trials: Trials = {}
    apply_event(trials, TrialStarted(at=5 * HOUR, trial=1, cpus=1))
    apply_event(trials, TrialEnded(at=4 * HOUR, trial=1, state="failed"))
    assert HoursUsed.of(trials.values()) == HoursUsed(0, 0)


def test_mlflow_receives_the_hours_of_each_trial_and_of_the_study() -> None:
    study, update = StudyConfig.model_validate(SPACE), None
    index = TrialIndex(study.rank)
    for event in STORY:
        update = RunUpdate.of(event, index, {}, study)
    assert update is not None
    assert (update.parent["time/cpu_hours"], update.parent["time/gpu_hours"]) == (14, 1)
    totals = totals_of(index.trials[1], "finished", study)
    assert (totals["time/cpu_hours"], totals["time/gpu_hours"]) == (10, 0.5)


def searched(budget: dict[str, float], home: Path, events: int | None = None) -> StudyState:
    """Runs a study in which every event takes 0.01 hours; with `events`, the process dies after that many events."""
    state = StudyState(
        StudyConfig.model_validate(SPACE | {"budget": {"trials": 50} | budget}),
        StudyDirectory(home),
        {},
        trial_warnings,
    )
    state.append_event(SessionStarted())
    planner = TrialPlanner(state, slots=1)
    for _ in range(10_000 if events is None else events):
        request = planner.next()
        if not isinstance(request, dict):
            break
        for epoch in (1, 2):
            if state.trials[request["number"]].last.get("epoch", 0) < epoch:
                planner.report(request["number"], {"epoch": epoch, "epochs": 2} | dict.fromkeys(METRICS, 0.5))
        planner.end(request["number"], "finished")
    return state


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count()
    monkeypatch.setattr("ensdistill_tune.records.events.time", SimpleNamespace(time=lambda: 36.0 * next(ticks)))


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(("budget", "per_trial"), [({"cpu_hours": 1.0}, 0.12), ({"gpu_hours": 0.25}, 0.015)])
def test_no_search_trial_starts_once_the_hour_budget_is_used_up(
    budget: dict[str, float], per_trial: float, tmp_path: Path
) -> None:
    state = searched(budget, tmp_path)  # each trial takes 0.03 hours; the baseline is included
    (limit,) = budget.values()
    assert len(state.primary_trials) == -(-limit // per_trial)
    assert all(trial.state == "finished" for trial in state.primary_trials)
    assert len(state.replicates) > 0, "the confirmation is not cut short"


@pytest.mark.usefixtures("clock")
def test_a_resumed_study_continues_counting_hours(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    searched({"cpu_hours": 1.0}, tmp_path / "a", events=4)
    resumed = searched({"cpu_hours": 1.0}, tmp_path / "a")
    assert len(resumed.primary_trials) == len(searched({"cpu_hours": 1.0}, tmp_path / "b").primary_trials)
