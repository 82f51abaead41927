"""Latency is measured once per architecture and machine, stored in the event log, and part of every trial report."""

from pathlib import Path
from typing import Any

import pytest
import torch

from ensdistill import DataSplits, load_data
from ensdistill.evaluation import latency
from ensdistill.training.new_student import new_student
from ensdistill_tune.analysis.trial_warnings import trial_warnings
from ensdistill_tune.execution import latency_meter as module
from ensdistill_tune.execution.latency_meter import latency_meter
from ensdistill_tune.execution.trial_planner import TrialPlanner
from ensdistill_tune.records.event_log import read_journal
from ensdistill_tune.records.events import LatencyMeasured, SessionStarted
from ensdistill_tune.records.study_directory import StudyDirectory
from ensdistill_tune.records.trial_record import METRICS
from ensdistill_tune.study.objectives import LATENCY, PHOTO_LATENCY
from ensdistill_tune.study.study_config import StudyConfig
from ensdistill_tune.study.study_state import StudyState

SPACE: dict[str, Any] = {
    "config": {
        "data": {"kind": "digits", "train_size": 40, "val_size": 30},
        "model": {"kind": "convnet", "blocks": 2},
        "teachers": {"count": 2, "training": {"batch_size": 10}},
        "training": {"epochs": 1, "batch_size": 10},
    },
    "search": {"model.width": {"integer": [2, 4]}, "student.subnetworks": {"integer": [1, 3]}},
    "searcher": {"kind": "random", "seed": 1},
    "baselines": ["kd"],
    "budget": {"trials": 6},
    "confirmation": {"top_k": 0},
    "constraints": {LATENCY: {"at_most": 3}},
}


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Returns the parameter counts of the timed networks; the n-th network takes n simulated milliseconds."""
    networks: list[int] = []

    def milliseconds(network: torch.nn.Module, *_: Any) -> float:
        networks.append(sum(p.numel() for p in network.parameters()))
        return float(len(networks))

    monkeypatch.setattr(module, "latency_ms", milliseconds)
    monkeypatch.setattr(module, "photo_latency_ms", lambda *_: len(networks) + 0.5)
    return networks


def session(home: Path, trials: int, data: DataSplits, **more: Any) -> StudyState:
    """Runs the given number of trials, which report one epoch each."""
    state = StudyState(StudyConfig.model_validate(SPACE | more), StudyDirectory(home), {}, trial_warnings)
    state.append_event(SessionStarted())
    planner = TrialPlanner(state, 1, latency_meter(state, data))
    for _ in range(trials):
        request = planner.next()
        if not isinstance(request, dict):
            break
        planner.report(request["number"], {"epoch": 1, "epochs": 1} | dict.fromkeys(METRICS, 0.5))
        planner.end(request["number"], "finished")
    return state


@pytest.fixture(scope="module")
def data() -> DataSplits:
    return load_data(StudyConfig.model_validate(SPACE).base_config.data)


def test_the_latency_of_each_architecture_is_measured_once_over_all_sessions(
    tmp_path: Path, timed: list[int], data: DataSplits
) -> None:
    session(tmp_path, 3, data)
    before = list(timed)
    state = session(tmp_path, 100, data)
    assert before[:2] == [timed[0], timed[1]], "the ends of the axis and the baseline come before the first trial"
    assert len(set(timed)) == len(timed), "no architecture twice: subnetworks are merged into one network"
    widths = {state.study.config_for(trial).model.width for trial in state.primary_trials}
    assert len(timed) >= len(widths) > 1
    events = [e for e in read_journal(tmp_path / "events.jsonl") if isinstance(e, LatencyMeasured)]
    assert [e.milliseconds for e in events] == [float(n) for n in range(1, len(timed) + 1)]
    by_width = {(state.study.config_for(t).model.width, t.last[LATENCY]) for t in state.primary_trials}
    assert len(by_width) == len(widths), "trials of one architecture have one latency"
    with_resize = [(t.last[LATENCY], t.last[PHOTO_LATENCY]) for t in state.primary_trials]
    assert all(photo == bare + 0.5 for bare, photo in with_resize), "both of one measurement"


def test_on_another_machine_latency_is_measured_only_for_new_trials(
    tmp_path: Path, timed: list[int], data: DataSplits, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {t.number: t.last[LATENCY] for t in session(tmp_path, 3, data).primary_trials}
    count = len(timed)
    monkeypatch.setattr(module, "machine_name", lambda _: "another")
    state = session(tmp_path, 100, data)
    assert {number: state.trials[number].last[LATENCY] for number in before} == before
    assert all(t.last[LATENCY] > count for t in state.primary_trials if t.number not in before)


def test_latency_is_not_measured_unless_requested(tmp_path: Path, timed: list[int], data: DataSplits) -> None:
    state = session(tmp_path, 2, data, constraints={})
    assert timed == []
    assert all(LATENCY not in trial.last for trial in state.primary_trials)
    (tmp_path / "asked").mkdir()
    asked = session(tmp_path / "asked", 2, data, constraints={}, measure_latency=True)
    assert all(LATENCY in trial.last for trial in asked.primary_trials)


def test_a_trial_that_exceeds_the_latency_bound_is_not_ranked_first(
    tmp_path: Path, timed: list[int], data: DataSplits
) -> None:
    state = session(tmp_path, 100, data, constraints={LATENCY: {"at_most": 1.0}})
    assert {trial.last[LATENCY] for trial in state.study.feasible(state.primary_trials)} == {1.0}
    assert state.best is not None
    assert state.best.last[LATENCY] == 1.0


def test_larger_networks_have_a_higher_latency_and_weights_do_not_affect_the_architecture_key(data: DataSplits) -> None:
    study, cpu = StudyConfig.model_validate(SPACE), torch.device("cpu")
    configs = [study.trial_config({"model.width": w, "seed": seed}) for w, seed in ((2, 0), (2, 1), (128, 0))]
    small, again, large = (new_student(config, data).merged() for config in configs)
    shape = tuple(data.train.images.shape[1:])
    assert latency.architecture_of(small) == latency.architecture_of(again) != latency.architecture_of(large)
    assert 0 < latency.latency_ms(small, shape, cpu) < latency.latency_ms(large, shape, cpu)


def test_latency_with_resizing_is_measured_on_a_uint8_photo_of_500x375_pixels() -> None:
    seen: list[torch.Tensor] = []

    class Recorder(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen.append(images)
            return images

    assert latency.photo_latency_ms(Recorder(), 3, torch.device("cpu")) > 0
    assert {(tuple(images.shape), images.dtype) for images in seen} == {((1, 375, 500, 3), torch.uint8)}
