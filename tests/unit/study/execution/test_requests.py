"""Requests to a running study are accepted or refused, and interruptions do not change the result."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensdistill.errors import ConfigError, DataError
from ensdistill_tune import steering
from ensdistill_tune.analysis.trial_warnings import trial_warnings
from ensdistill_tune.execution import requests
from ensdistill_tune.execution.requests import StudyRequests
from ensdistill_tune.execution.trial_planner import TrialPlanner
from ensdistill_tune.records.event_log import read_journal
from ensdistill_tune.records.events import RequestRefused, SettingsEnqueued, StopRequested, TrialStarted
from ensdistill_tune.records.inbox import EnqueueRequest, Inbox, StopRequest
from ensdistill_tune.records.study_directory import StudyDirectory
from ensdistill_tune.records.trial_record import METRICS
from ensdistill_tune.search.decision import Decision
from ensdistill_tune.steering import enqueue, stop
from ensdistill_tune.study.study_config import StudyConfig
from ensdistill_tune.study.study_state import StudyState

EPOCHS = 4
SPACE: dict[str, Any] = {
    "preset": "latentbe",
    "config": {"training": {"epochs": EPOCHS}},
    "search": {
        "loss.temperature": {"log_uniform": [1, 10]},
        "averaging.kind": {"choice": ["none", "ema"]},
        "averaging.decay": {"uniform": [0.5, 0.9], "when": {"averaging.kind": "ema"}},
    },
    "baselines": ["kd"],
    "scheduler": {"kind": "none"},
    "budget": {"trials": 6},
    "confirmation": {"top_k": 1, "seeds": 2},
}
GIVEN = {"loss.temperature": 3.0, "averaging.kind": "ema", "averaging.decay": 0.75}
FIRST = {"epoch": 1.0, "epochs": float(EPOCHS)} | dict.fromkeys(METRICS, 0.0)  # a report


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The inbox is read in every iteration, and no test waits for a disk."""
    monkeypatch.setattr("os.fsync", lambda _: None)
    monkeypatch.setattr(requests, "INTERVAL_SECONDS", 0.0)


class Driver:
    """A session with one slot and simulated trials."""

    def __init__(self, home: Path, **more: Any) -> None:
        self.study = StudyConfig.model_validate(SPACE | more)
        header = {"study": self.study.model_dump(mode="json"), "name": "mine"}
        self.state = StudyState(self.study, StudyDirectory(home), header, trial_warnings)
        self.state.save("running")
        self.inbox = self.state.folder.inbox
        self.planner = TrialPlanner(self.state, slots=1)
        self.requests = StudyRequests(self.planner)

    def run(self, trials: int = 100) -> list[int]:
        """Runs trials to their end and returns their numbers; the inbox is read in every iteration."""
        begun: list[int] = []
        while len(begun) < trials and not self.requests.stop_study():
            if isinstance(suggestion := self.planner.next(), str):
                break
            begun.append(suggestion["number"])
            self._train(suggestion)
        return begun

    def begin(self) -> int:
        """Starts one trial and returns its number."""
        suggestion = self.planner.next()
        assert isinstance(suggestion, dict)
        return int(suggestion["number"])

    def _train(self, suggestion: dict[str, Any]) -> None:
        number, words = suggestion["number"], json.dumps([suggestion["sampled"], suggestion["seed"]], sort_keys=True)
        value = int.from_bytes(hashlib.sha256(words.encode()).digest()[:4], "big") / 2**32
        for epoch in range(1, EPOCHS + 1):
            self.planner.report(number, FIRST | {"epoch": float(epoch)} | dict.fromkeys(METRICS, value))
        self.planner.end(number, "finished")

    @property
    def sampled(self) -> list[dict[str, Any]]:
        return [trial.sampled for trial in self.state.primary_trials if not trial.baseline]

    def answers(self) -> list[Any]:
        kinds = (SettingsEnqueued, StopRequested, RequestRefused)
        return [event for event in read_journal(self.state.folder.journal) if isinstance(event, kinds)]


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Driver]:
    made = Driver(tmp_path)
    with made.state.folder.held():
        yield made


def test_enqueued_settings_are_used_by_the_next_search_trial_and_count_towards_the_budget(driver: Driver) -> None:
    driver.run(2)
    driver.inbox.send(EnqueueRequest(settings=GIVEN))
    driver.run()
    assert driver.sampled[1] == GIVEN
    assert len(driver.sampled) == 6


def test_settings_missing_from_a_request_are_suggested_by_the_searcher(driver: Driver) -> None:
    driver.inbox.send(EnqueueRequest(settings={"loss.temperature": 3.0}))
    driver.run()
    assert driver.sampled[0]["loss.temperature"] == 3.0
    assert driver.sampled[0]["averaging.kind"] in ("none", "ema")


def test_the_queue_is_first_in_first_out_and_precedes_points_to_evaluate(tmp_path: Path) -> None:
    driver = Driver(tmp_path, points_to_evaluate=[{"loss.temperature": 9.0}])
    for temperature in (2.0, 3.0):
        driver.inbox.send(EnqueueRequest(settings={"loss.temperature": temperature}))
    driver.run()
    assert [sampled["loss.temperature"] for sampled in driver.sampled][:3] == [2.0, 3.0, 9.0]


def test_a_grid_search_visits_all_cells_in_addition_to_enqueued_settings(tmp_path: Path) -> None:
    search = {"seed": {"choice": [1, 2, 3]}, "student.subnetworks": {"integer": [1, 2]}}
    driver = Driver(tmp_path, search=search, searcher={"kind": "grid"}, budget={"trials": 7})
    driver.inbox.send(EnqueueRequest(settings={"seed": 2, "student.subnetworks": 2}))
    driver.run()
    cells = [(sampled["seed"], sampled["student.subnetworks"]) for sampled in driver.sampled]
    assert cells[0] == (2, 2)
    assert sorted(cells[1:]) == [(a, b) for a in (1, 2, 3) for b in (1, 2)]


@pytest.mark.parametrize("trials", [0, 1, 2, 5])
def test_an_interruption_after_settings_were_enqueued_does_not_affect_the_study(trials: int, tmp_path: Path) -> None:
    found = []
    for name, interrupted in (("plain", False), ("interrupted", True)):
        (tmp_path / name).mkdir()
        driver = Driver(tmp_path / name)
        driver.run(2)
        driver.inbox.send(EnqueueRequest(settings=GIVEN))
        driver.requests.stop_study()
        if interrupted:
            driver.run(trials)
            driver = Driver(tmp_path / name)
        driver.run()
        found.append([(trial.number, trial.sampled, trial.state) for trial in driver.state.trials.values()])
    assert found[0] == found[1]


def test_a_request_whose_file_still_exists_after_a_crash_is_handled_once(driver: Driver) -> None:
    file = driver.inbox.folder / f"{driver.inbox.send(EnqueueRequest(settings=GIVEN))}.json"
    content = file.read_bytes()
    driver.run(3)
    file.write_bytes(content)
    again = Driver(driver.state.folder.path)
    again.run()
    assert again.sampled.count(GIVEN) == 1
    assert not file.exists()


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"loss.temprature": 2.0}, "loss.temprature: not a searched setting (did you mean loss.temperature?)"),
        ({"loss.temperature": 20.0}, "loss.temperature: 20.0 is outside its domain: log_uniform [1.0, 10.0]"),
        ({"averaging.decay": 0.6}, "averaging.decay: depends on averaging.kind. Give both."),
        ({"averaging.decay": 0.6, "averaging.kind": "none"}, "averaging.decay: is active only if averaging.kind is"),
        ({}, "give at least one of the searched settings"),
    ],
    ids=str,
)
def test_impossible_settings_are_refused_by_the_command_and_by_the_driver(
    settings: dict[str, Any], reason: str, driver: Driver
) -> None:
    with pytest.raises(ConfigError) as caught:
        enqueue(driver.state.folder.path, settings)
    assert str(caught.value).startswith(reason)
    driver.inbox.send(EnqueueRequest(settings=settings))
    driver.requests.stop_study()
    assert driver.answers()[-1].reason.startswith(reason)


def test_enqueued_settings_are_refused_once_the_search_starts_no_more_trials(driver: Driver) -> None:
    driver.run(7)
    driver.inbox.send(EnqueueRequest(settings=GIVEN))
    driver.run()
    assert "starts no more trials (budget.trials is 6)" in driver.answers()[-1].reason
    assert GIVEN not in driver.sampled


def test_no_more_settings_are_enqueued_than_the_budget_allows(driver: Driver) -> None:
    for _ in range(7):
        driver.inbox.send(EnqueueRequest(settings=GIVEN))
    driver.requests.stop_study()
    assert [type(event) for event in driver.answers()] == [SettingsEnqueued] * 6 + [RequestRefused]


def test_an_invalid_request_is_refused_and_removed(driver: Driver) -> None:
    driver.inbox.folder.mkdir()
    for name, text in (("a.json", "{"), ("b.json", '{"kind": "shutdown"}'), ("c.txt", ""), (".d.json", "{")):
        (driver.inbox.folder / name).write_text(text)
    driver.requests.stop_study()
    assert [event.request for event in driver.answers()] == ["a", "b"]
    assert sorted(file.name for file in driver.inbox.folder.iterdir()) == [".d.json", "c.txt"]


def test_a_request_whose_file_cannot_be_removed_is_answered_once(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(self: Path, missing_ok: bool = False) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "unlink", denied)
    driver.inbox.folder.mkdir()
    (driver.inbox.folder / "folder.json").mkdir()
    (driver.inbox.folder / "a.json").write_text("{")
    for _ in range(3):
        assert not driver.requests.stop_study()
    assert [event.request for event in driver.answers()] == ["a"]


def test_a_stopped_trial_is_pruned_at_its_next_report_and_the_study_continues(driver: Driver) -> None:
    driver.run(2)
    trial = driver.begin()
    driver.inbox.send(StopRequest(trial=trial))
    driver.requests.stop_study()
    assert driver.planner.report(trial, FIRST) is Decision.STOP
    driver.planner.end(trial, "pruned")
    driver.run()
    assert [t.state for t in driver.state.primary_trials] == ["finished"] * 2 + ["pruned"] + ["finished"] * 4


def test_a_trial_whose_process_dies_after_a_stop_request_is_stopped_in_the_next_session(driver: Driver) -> None:
    trial = driver.begin()
    driver.planner.report(trial, FIRST)
    driver.inbox.send(StopRequest(trial=trial))
    driver.requests.stop_study()
    assert Driver(driver.state.folder.path).state.trials[trial].state == "pruned"


def test_only_running_trials_that_are_not_replicates_can_be_stopped(driver: Driver) -> None:
    driver.run(7)
    for trial in (1, 99, driver.begin()):
        driver.inbox.send(StopRequest(trial=trial))
    assert not driver.requests.stop_study()
    assert [event.reason.partition(";")[0] for event in driver.answers()] == [
        "trial 1: must be running, got finished",
        "trial 99 does not exist",
        "trial 8: must not be a replicate, because the confirmation requires every replicate",
    ]


def test_a_stopped_study_starts_no_trial_and_continues_in_the_next_session(driver: Driver) -> None:
    driver.run(2)
    driver.inbox.send(StopRequest())
    assert driver.run() == []
    assert Driver(driver.state.folder.path).run() == [3, 4, 5, 6, 7, 8, 9, 10, 11]


def test_a_stop_request_is_discarded_at_the_end_of_its_session(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path)
    inbox.send(StopRequest())
    kept = inbox.send(EnqueueRequest(settings=GIVEN))
    inbox.drop_stops()
    assert list(inbox.pending()) == [(kept, EnqueueRequest(settings=GIVEN))]


def test_a_study_that_is_not_running_cannot_be_stopped_and_keeps_enqueued_settings(tmp_path: Path) -> None:
    driver = Driver(tmp_path)
    with pytest.raises(DataError, match="no process is running this one"):
        stop(tmp_path)
    assert enqueue(tmp_path, GIVEN) == "waiting"
    driver.run(2)
    assert driver.sampled == [GIVEN]


def test_enqueued_numpy_values_are_converted_to_plain_values(tmp_path: Path) -> None:
    driver = Driver(tmp_path, search={"student.subnetworks": {"integer": [1, 4]}})
    enqueue(tmp_path, {"student.subnetworks": np.int64(3)})
    driver.run(2)
    assert driver.sampled == [{"student.subnetworks": 3}]


def test_the_log_links_a_trial_to_its_request(driver: Driver) -> None:
    name = driver.inbox.send(EnqueueRequest(settings=GIVEN))
    driver.run(2)
    started = [event for event in read_journal(driver.state.folder.journal) if isinstance(event, TrialStarted)]
    assert [event.memory.get("request") for event in started] == [None, name]


def test_a_request_sent_at_the_end_of_a_trial_is_handled_before_the_next_trial_ends(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "INTERVAL_SECONDS", 3600.0)
    assert driver.run(trials=1) == [1]
    driver.inbox.send(StopRequest())
    assert driver.run(trials=1) == []


def test_the_command_waits_for_the_answer_of_the_study(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    path = driver.state.folder.path
    monkeypatch.setattr(steering.time, "sleep", lambda _: driver.requests.stop_study())  # the study reads its inbox
    assert enqueue(path, GIVEN) == "accepted"
    number = driver.begin()
    assert stop(path, number) == "accepted"
    with pytest.raises(ConfigError, match="99"):
        stop(path, 99)
    assert stop(path) == "accepted"


def test_a_request_that_the_study_does_not_answer_in_time_stays_pending(driver: Driver) -> None:
    path = driver.state.folder.path
    assert enqueue(path, GIVEN, wait_s=0.0) == "waiting"
    assert stop(path, wait_s=0.0) == "waiting"
    assert len(list(driver.inbox.pending())) == 2
