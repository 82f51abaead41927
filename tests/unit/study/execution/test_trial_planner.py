"""The order of trials does not change if a study is interrupted at any point. Trials are simulated without Ray."""

import contextlib
import hashlib
import json
from collections.abc import Collection
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch

from ensdistill.errors import DataError
from ensdistill.runtime.weights import STUDENT_FILE
from ensdistill.training.checkpoint import Checkpoint
from ensdistill_tune.analysis.confirmation import confirmation_of
from ensdistill_tune.analysis.trial_warnings import trial_warnings
from ensdistill_tune.execution.trial_planner import TrialPlanner
from ensdistill_tune.records.event_log import EventLog, read_journal
from ensdistill_tune.records.events import (
    EpochReported,
    Event,
    ReportWritten,
    SessionEnded,
    SessionStarted,
    TrialEnded,
    TrialResumed,
    TrialStarted,
)
from ensdistill_tune.records.study_directory import StudyDirectory
from ensdistill_tune.records.trial_record import CHECKPOINT, METRICS, active_seconds
from ensdistill_tune.search.decision import Decision
from ensdistill_tune.study.study_config import StudyConfig
from ensdistill_tune.study.study_state import StudyState

EPOCHS = 9
SPACE: dict[str, Any] = {
    "preset": "latentbe",
    "config": {"training": {"epochs": EPOCHS}},
    "search": {
        "loss.temperature": {"log_uniform": [1, 10]},
        "averaging.kind": {"choice": ["none", "ema"]},
        "averaging.decay": {"uniform": [0.5, 0.9], "when": {"averaging.kind": "ema"}},
    },
    "baselines": ["kd", "latentbe"],
    "budget": {"trials": 14},
    "confirmation": {"top_k": 2, "seeds": 2},
}
RULES = [
    {"kind": "asha", "grace_epochs": 1},
    {"kind": "median", "grace_epochs": 1, "min_trials": 2},
    {"kind": "none"},
    {"kind": "hyperband", "grace_epochs": 1},
    {"kind": "pbt", "population": 5, "interval_epochs": 2, "quantile": 0.5},
    {"kind": "asha", "grace_epochs": 1, "group_by": ["averaging.kind"]},
]


@pytest.fixture(autouse=True)
def synced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Replaces fsync, so that no test waits for a disk, and returns the list of calls."""
    calls: list[int] = []
    monkeypatch.setattr("os.fsync", calls.append)
    monkeypatch.setattr(StudyDirectory, "write_summary", lambda *_: None)
    return calls


class KilledError(Exception):
    """Raised at the simulated end of the process."""


def study(**more: Any) -> StudyConfig:
    return StudyConfig.model_validate(SPACE | more)


def value(suggestion: dict[str, Any], epoch: int) -> float:
    """Returns a point of a simulated learning curve, which is a function of the settings as in real training."""
    words = json.dumps([suggestion["baseline"], suggestion["sampled"], suggestion["seed"]], sort_keys=True)
    own = int.from_bytes(hashlib.sha256(words.encode()).digest()[:4], "big") / 2**32
    return own + (1.1 - own) / epoch


class Doomed(StudyState):
    """A study state that raises `KilledError` after the given number of events."""

    lives: int | None = None

    def append_event(self, event: Event) -> Any:
        record = super().append_event(event)
        if self.lives is not None:
            self.lives -= 1
            if self.lives < 0:
                raise KilledError
        return record


def work(
    of: StudyConfig, home: Path, slots: int = 1, lives: int | None = None, lost: Collection[int] = ()
) -> StudyState:
    """Runs one session: parallel trials, one epoch each in turn, as with Ray.

    Args:
        of: The study.
        home: The study folder.
        slots: Number of parallel trials.
        lives: Number of events until the process ends; None: never.
        lost: Trials whose process dies before their first start.
    """
    progress = Doomed(of, StudyDirectory(home), {}, trial_warnings)
    progress.lives = lives
    progress.append_event(SessionStarted())
    agenda, running = TrialPlanner(progress, slots), list[dict[str, Any]]()
    at: dict[int, int] = {}
    to_lose = set(lost)
    while not agenda.done:
        while isinstance(suggestion := agenda.next(), dict):
            if suggestion["number"] in to_lose:
                to_lose.remove(suggestion["number"])
                agenda.trial_lost(suggestion["number"])
                continue
            running.append(suggestion)
            at[suggestion["number"]] = 0  # without a checkpoint, it starts at its first epoch
        for suggestion in list(running):
            number = suggestion["number"]
            at[number] += 1
            if at[number] == EPOCHS:
                progress.folder.trial(number).mkdir(parents=True, exist_ok=True)
                (progress.folder.trial(number) / STUDENT_FILE).touch()
            metrics = {"epoch": at[number], "epochs": EPOCHS} | dict.fromkeys(METRICS, value(suggestion, at[number]))
            decision = agenda.report(number, metrics)
            if at[number] == EPOCHS or decision is Decision.STOP:
                agenda.end(number, "finished" if at[number] == EPOCHS else "pruned")
                running.remove(suggestion)
    return progress


def story(home: Path) -> list[tuple[Any, ...]]:
    """Returns the events of trials in order, without times and without the events that interruptions cause."""
    events, kinds = read_journal(home / "events.jsonl"), (TrialStarted, EpochReported, TrialEnded)
    kept = [e for e in events if isinstance(e, kinds) and getattr(e, "state", "") != "interrupted"]
    return [tuple(sorted(e.model_dump(exclude={"at"}).items())) for e in kept]


@pytest.mark.parametrize("every", [20, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: " ".join([rule["kind"], *rule.get("group_by", [])]))
def test_a_study_that_crashes_after_any_event_ends_like_an_undisturbed_study(
    rule: dict[str, Any], every: int, tmp_path: Path
) -> None:
    of = study(scheduler=rule, searcher={"kind": "tpe", "startup_trials": 4})
    (tmp_path / "plain").mkdir()
    work(of, tmp_path / "plain")
    events = story(tmp_path / "plain")
    assert any(dict(e).get("state") == "pruned" for e in events) == (rule["kind"] != "none")
    for lives in range(1 + RULES.index(rule), len(events), every):  # other events for each rule
        home = tmp_path / f"died{lives}"
        home.mkdir()
        with pytest.raises(KilledError):
            work(of, home, lives=lives)
        work(of, home)
        assert story(home) == events, f"died after {lives} events"


@pytest.mark.parametrize("kind", ["tpe", "nsga2", "qmc", "random"])
def test_a_study_that_crashes_repeatedly_ends_like_an_undisturbed_study(kind: str, tmp_path: Path) -> None:
    of = study(searcher={"kind": kind}, scheduler=RULES[0])
    for name, lives in (("plain", None), ("often", 5)):
        home = tmp_path / name
        home.mkdir()
        for _ in range(1000):
            try:
                work(of, home, lives=lives)
            except KilledError:
                continue
            break
    assert story(tmp_path / "often") == story(tmp_path / "plain")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: " ".join([rule["kind"], *rule.get("group_by", [])]))
def test_a_trial_whose_process_dies_before_the_trial_starts_runs_in_another_process(
    rule: dict[str, Any], tmp_path: Path
) -> None:
    of = study(scheduler=rule)
    for name in ("undisturbed", "disturbed"):
        (tmp_path / name).mkdir()
    work(of, tmp_path / "undisturbed")
    lost = range(1, 1 + len(work(of, tmp_path / "disturbed", lost=range(1, 100)).trials))
    assert story(tmp_path / "disturbed") == story(tmp_path / "undisturbed")
    events = read_journal(tmp_path / "disturbed" / "events.jsonl")
    assert [e.trial for e in events if isinstance(e, TrialResumed)] == list(lost)


@pytest.mark.parametrize(("slots", "lives"), [(3, None), (1, 31), (3, 31)])
def test_a_confirmation_has_the_same_result_for_any_number_of_slots_and_interruptions(
    slots: int, lives: int | None, tmp_path: Path
) -> None:
    of = study(scheduler={"kind": "none"}, searcher={"kind": "random"}, budget={"trials": 5}, confirmation={"top_k": 3})
    ends = []
    for name, number, left in (("plain", 1, None), ("other", slots, lives)):
        (tmp_path / name).mkdir()
        while True:
            with contextlib.suppress(KilledError):
                progress = work(of, tmp_path / name, number, left)
                break
        ends.append(confirmation_of(progress.primary_trials, progress.replicates, of))
    assert len(ends[0].stages) > 3
    assert sorted({len(c.replicates) for c in ends[0].candidates})[0] == 3
    assert ends[0].stages == ends[1].stages
    values = [[(c.trial.number, c.dropped_for, c.values("val/nll")) for c in end.candidates] for end in ends]
    assert values[0] == values[1]
    assert not ends[1].todo
    assert progress.replicates_planned == len(progress.replicates) == ends[1].planned <= 5 * 6


def test_with_parallel_trials_no_event_is_lost_or_duplicated(tmp_path: Path) -> None:
    of = study(scheduler=RULES[0])
    for _ in range(1000):
        try:
            progress = work(of, tmp_path, slots=3, lives=17)
        except KilledError:
            continue
        break
    records = progress.trials
    assert sorted(records) == list(range(1, len(records) + 1))
    assert sum(t.replicate_of is None for t in records.values()) == of.num_trials
    assert {t.state for t in records.values()} == {"finished", "pruned"}
    for t in records.values():
        assert [e["epoch"] for e in t.epochs] == list(range(1, len(t.epochs) + 1))
    assert len({(t.replicate_of, t.seed) for t in progress.replicates}) == len(progress.replicates) == 2 * (2 + 2)


def test_baselines_run_first_and_their_replicates_fill_free_slots_at_the_end_of_the_search(tmp_path: Path) -> None:
    progress = work(study(scheduler=RULES[2]), tmp_path, slots=3)
    order = sorted(progress.trials.values(), key=lambda t: t.number)
    assert [t.baseline for t in order[:2]] == ["kd", "latentbe"]
    assert {t.baseline for t in order[of_search(order) :][:2]} == {"kd", "latentbe"}


def of_search(order: list[Any]) -> int:
    return sum(t.replicate_of is None for t in order)


def test_a_finished_study_can_be_extended_and_keeps_its_trials(tmp_path: Path) -> None:
    work(study(scheduler=RULES[0]), tmp_path)
    before = story(tmp_path)
    progress = work(study(scheduler=RULES[0], budget={"trials": 20}), tmp_path)
    after = story(tmp_path)
    assert after[: len(before)] == before
    assert sum(t.replicate_of is None and not t.baseline for t in progress.trials.values()) == 20
    assert len({(t.replicate_of, t.seed) for t in progress.replicates}) == len(progress.replicates)


def test_trials_are_compared_only_within_their_group(tmp_path: Path) -> None:
    like = {"kind": "asha", "grace_epochs": 1, "group_by": ["averaging.kind"]}
    for name, scheduler, stopped in (("all", RULES[0], True), ("like", like, False)):
        (tmp_path / name).mkdir()
        agenda = TrialPlanner(
            StudyState(study(scheduler=scheduler, baselines=[]), StudyDirectory(tmp_path / name), {}, trial_warnings),
            slots=9,
        )
        for kind, good in (("ema", True), ("none", False)):
            while (suggestion := agenda.next())["sampled"]["averaging.kind"] != kind:  # type: ignore[call-overload, index]
                pass
            first = {"epoch": 1, "epochs": EPOCHS} | dict.fromkeys(METRICS, 0.1 if good else 0.9)
            decision = agenda.report(suggestion["number"], first)  # type: ignore[call-overload, index]
        assert decision is (Decision.STOP if stopped else Decision.CONTINUE)


def test_an_exhausted_epoch_budget_ends_the_search(tmp_path: Path) -> None:
    progress = work(study(scheduler=RULES[2], budget={"trials": 14, "epochs": 20}), tmp_path)
    searched = [t for t in progress.primary_trials if not t.baseline]
    assert [len(t.epochs) for t in searched] == [EPOCHS] * 3  # the third trial started after 18 of 20 epochs


def test_without_confirmation_the_study_ends_after_the_search(tmp_path: Path) -> None:
    progress = work(study(confirmation={"top_k": 0}), tmp_path)
    assert not progress.replicates


def test_an_incomplete_line_at_the_end_of_the_event_log_is_removed(tmp_path: Path) -> None:
    of = study(scheduler=RULES[0])
    work(of, tmp_path)
    file = tmp_path / "events.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) * 2 // 3])
    assert len(read_journal(file)) == file.read_bytes().count(b"\n") - 1  # without the format line
    work(of, tmp_path)
    (tmp_path / "plain").mkdir()
    work(of, tmp_path / "plain")
    assert story(tmp_path) == story(tmp_path / "plain")


def test_the_time_between_two_sessions_is_not_counted() -> None:
    session, report = SessionStarted(at=100), EpochReported(at=110, trial=1, metrics={})
    events = [session, TrialStarted(at=101, trial=1), report, SessionStarted(at=500)]
    events.append(report.model_copy(update={"at": 505}))
    assert active_seconds(events) == 10 + 5
    assert active_seconds([]) == 0


def test_regenerating_a_report_does_not_count_as_study_time() -> None:
    first = [SessionStarted(at=100), SessionEnded(at=110), ReportWritten(at=90_000)]
    events = [*first, SessionStarted(at=90_100), SessionEnded(at=90_101), ReportWritten(at=1_000_000)]
    assert active_seconds(events) == 10 + 1


def test_an_event_is_on_disk_before_observers_are_called(tmp_path: Path) -> None:
    journal = EventLog(tmp_path / "events.jsonl")
    for n in range(3):
        journal.append(EpochReported(trial=1, metrics={"epoch": n}))
        assert len(read_journal(tmp_path / "events.jsonl")) == n + 1


def test_every_event_except_an_epoch_report_is_synced_to_disk(tmp_path: Path, synced: list[int]) -> None:
    journal = EventLog(tmp_path / "events.jsonl")
    synced.clear()
    report = EpochReported(trial=1, metrics={})
    for event in (SessionStarted(), TrialStarted(trial=1), report, report, TrialEnded(trial=1, state="finished")):
        journal.append(event)
    assert len(synced) == 3


def test_an_event_log_that_cannot_be_written_causes_an_error_that_states_the_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    journal = EventLog(tmp_path / "events.jsonl")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DataError, match=r"events.jsonl: cannot be written \(No space left on device\)"):
        journal.append(TrialEnded(trial=1, state="finished"))


def test_reports_of_an_ended_trial_are_not_recorded(tmp_path: Path) -> None:
    agenda = TrialPlanner(StudyState(study(), StudyDirectory(tmp_path), {}, trial_warnings), slots=1)
    agenda.next()
    agenda.end(1, "failed", "its machine is gone")
    before = read_journal(tmp_path / "events.jsonl")
    report = {"epoch": 1.0, "epochs": float(EPOCHS)} | dict.fromkeys(METRICS, 1.0)
    assert agenda.report(1, report) is Decision.STOP
    assert read_journal(tmp_path / "events.jsonl") == before


def test_every_trial_whose_process_died_is_recorded_as_interrupted_even_if_it_does_not_resume(tmp_path: Path) -> None:
    of = study(scheduler=RULES[2])
    with pytest.raises(KilledError):
        work(of, tmp_path, slots=3, lives=12)
    progress = StudyState(of, StudyDirectory(tmp_path), {}, trial_warnings)
    assert len(progress.died) == 3
    TrialPlanner(progress, slots=1)
    ended = [e.trial for e in read_journal(tmp_path / "events.jsonl") if isinstance(e, TrialEnded)]
    assert set(ended) >= {trial.number for trial in progress.died}
    assert {trial.state for trial in progress.trials.values()} == {"interrupted"}


def test_a_checkpoint_ahead_of_the_event_log_is_not_used(tmp_path: Path) -> None:
    of = study(scheduler=RULES[2])
    with pytest.raises(KilledError):
        work(of, tmp_path, lives=4)  # session, start of the trial, two epochs, and the third
    checkpoint = StudyDirectory(tmp_path).trial(1) / CHECKPOINT
    checkpoint.parent.mkdir(parents=True)
    for epoch, stays in ((3, True), (4, False)):
        torch.save(dict.fromkeys(field.name for field in fields(Checkpoint)) | {"epoch": epoch}, checkpoint)
        TrialPlanner(StudyState(of, StudyDirectory(tmp_path), {}, trial_warnings), slots=1)
        assert checkpoint.exists() == stays
