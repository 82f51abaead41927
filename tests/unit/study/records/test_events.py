"""The event log: each event is a class, the first line states the format, and other formats are rejected."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest

from ensdistill.errors import DataError
from ensdistill.version import __version__
from ensdistill_tune.analysis import labels
from ensdistill_tune.console.follower import StudyFollower
from ensdistill_tune.records.event_log import EventLog, read_journal
from ensdistill_tune.records.events import (
    FORMAT,
    EpochReported,
    Event,
    LatencyMeasured,
    ReportWritten,
    RequestRefused,
    SessionEnded,
    SessionStarted,
    SettingsEnqueued,
    StopRequested,
    TeachersReady,
    TestEvaluated,
    TrialEnded,
    TrialResumed,
    TrialStarted,
)
from ensdistill_tune.records.log_records import LogEnd
from ensdistill_tune.records.result_rows import Diagnostics, NetworkDiagnostics, TestMetrics
from ensdistill_tune.records.study_directory import StudyDirectory
from ensdistill_tune.records.trial_record import TrialRecord, row_of, trial_of
from ensdistill_tune.report import findings
from ensdistill_tune.report import summary as words
from ensdistill_tune.report.figures.diagnostics import reliability
from ensdistill_tune.study.study_config import StudyConfig
from tests.tiny import TinyStudy
from tests.unit.report.synthetic import facts

SAMPLED = {"a": 1, "b": 1.0, "c": True, "d": "x", "e": [1, {"f": None}], "g": 0.1 + 0.2}
ROW = TestMetrics(kind="candidate", trial=2, metrics=[{"nll": 0.1 + 0.2}])
DRAWN = NetworkDiagnostics(kind="ensemble", ece=0.1, reliability=[(0.5, 0.4, 3)], entropy=[0.3])
EVENTS: list[Event] = [
    SessionStarted(versions={"torch": "2"}),
    TeachersReady(ensemble={"nll": 0.1}, teacher_mean={"nll": 0.2}, hashes={"data_hash": "x"}),
    TrialStarted(trial=1, sampled=SAMPLED, schedule=[{"after_epoch": 1, "set": {"a": 2}}], parent=3, memory={"k": [1]}),
    TrialResumed(trial=1, cpus=2.0),
    LatencyMeasured(architecture="a", machine="b", milliseconds=0.5),
    EpochReported(trial=1, metrics={"epoch": 1, "val/nll": 1e-17}),
    TrialEnded(trial=1, state="failed", error="no memory", error_kind="OutOfMemoryError"),
    TestEvaluated(who=[[1, 2]], results=[ROW], diagnostics=Diagnostics(split="test", images=3, networks=[DRAWN])),
    SessionEnded(state="finished", metrics={"best/nll": 0.1}, confirmed={2: {"mean": 0.1}}, best=2, files=["a"]),
    ReportWritten(note="text", files=["report.html"]),
    SettingsEnqueued(request="1-a", settings=SAMPLED),
    StopRequested(request="2-b", trial=3),
    RequestRefused(request="3-c", reason="no such trial"),
]


def written(home: Path, *lines: Any) -> Path:
    """Writes a log of these records."""
    home.mkdir(exist_ok=True)
    end, content = LogEnd(), b""
    for line in lines:
        content += (record := end.encode(line))
        end = end.after(record) or end
    (home / "events.jsonl").write_bytes(content)
    return home / "events.jsonl"


def test_every_event_is_read_back_unchanged(tmp_path: Path) -> None:
    assert {type(event) for event in EVENTS} == set(get_args(get_args(Event)[0]))
    log = EventLog(tmp_path / "events.jsonl")
    for event in EVENTS:
        log.append(event)
    read = read_journal(tmp_path / "events.jsonl")
    assert read == EVENTS
    assert repr(read[2]) == repr(EVENTS[2])  # 1, 1.0 and true are three different values


def test_the_first_line_of_the_log_states_the_format_and_is_written_once(tmp_path: Path) -> None:
    for _ in range(2):
        EventLog(tmp_path / "events.jsonl").append(SessionStarted())
    lines = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert {name: lines[0][name] for name in ("seq", "format", "product")} == {
        "seq": 0,
        "format": FORMAT,
        "product": __version__,
    }
    assert [line.get("event") for line in lines[1:]] == ["session_started"] * 2


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        ({"format": FORMAT + 1}, f"must have format {FORMAT}, got {FORMAT + 1}"),
        ({"event": "session", "at": 0.0}, "the file has no format number"),
    ],
    ids=str,
)
def test_a_log_in_a_different_format_is_refused_with_a_one_line_error(first: Any, reason: str, tmp_path: Path) -> None:
    file = written(tmp_path / "s", first, {"event": "session_started", "at": 0.0})
    study = StudyConfig.model_validate({"search": {"seed": {"choice": [1, 2]}}})
    folder = StudyDirectory(tmp_path / "s")
    folder.write_summary({"study": study.model_dump(mode="json"), "state": "finished"})
    for reader in (read_journal, lambda _: StudyFollower(folder, "").snapshot()):
        with pytest.raises(DataError) as caught:
            reader(file)
        assert str(caught.value).startswith(f"{file}: {reason}")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"format": 1}', "must have format 2, got 1"),
        ("[1]", "the file has no format number"),
        ("3", "the file has no format number"),
        ("gone", "damaged"),
        ('{"crc": "00000000", "seq": 0, "format": 1}', "damaged"),
    ],
)
def test_a_first_line_without_a_checksum_is_refused(line: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text(line + "\n")
    with pytest.raises(DataError, match=reason):
        read_journal(tmp_path / "events.jsonl")
    with pytest.raises(DataError, match=reason):
        EventLog(tmp_path / "events.jsonl")
    assert (tmp_path / "events.jsonl").read_text() == line + "\n"


@pytest.mark.parametrize(
    "line",
    [
        {"event": "trial_strated", "at": 0.0, "trial": 1},
        {"event": "trial_started", "at": 0.0},
        {"event": "trial_resumed", "at": 0.0, "trial": 1, "more": 2},
        {"event": "epoch_reported", "at": 0.0, "trial": 1, "metrics": {"val/nll": "low"}},
    ],
    ids=str,
)
def test_the_error_states_the_line_of_a_record_that_is_not_an_event(line: Any, tmp_path: Path) -> None:
    file = written(tmp_path, {"format": FORMAT}, {"event": "session_started", "at": 0.0}, line)
    with pytest.raises(DataError, match=r"events\.jsonl, line 3: unknown event; use the version"):
        read_journal(file)


def test_numbers_that_json_cannot_represent_are_not_written(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    with pytest.raises(ValueError, match="finite"):
        log.append(EpochReported(trial=1, metrics={"val/nll": float("nan")}))


def test_the_label_of_a_trial_is_restored_from_its_result_row() -> None:
    change = {"after_epoch": 3, "set": {"training.optimizer.lr": 0.1}}
    trial = TrialRecord(
        4, None, {"seed": 3}, "hash", "finished", [{"epoch": 1.0}], replicate_of=2, seed=7, schedule=[change]
    )
    again = trial_of(json.loads(json.dumps(row_of(trial))))
    assert (again.name, again.settings, again.last) == (trial.name, trial.settings, trial.last)


def test_study_files_contain_metric_rows_but_no_display_labels(tiny: TinyStudy) -> None:
    summary = tiny.summary
    assert {"replicates_done", "replicates_planned"} < summary.keys()
    assert summary["best"].keys() == row_of(TrialRecord(1, None, {}, "")).keys()
    for name in ("study.json", "confirmation.json", "diagnostics.json"):
        text = (tiny.home / name).read_text()
        for label in ("ensemble of", "one teacher", "baseline kd", f'"{summary["best"]["trial"]:03d}'):
            assert label not in text.replace(json.loads((tiny.home / "confirmation.json").read_text())["verdict"], "")


def test_display_labels_do_not_affect_decisions(monkeypatch: pytest.MonkeyPatch) -> None:
    known = facts(30)
    before = [findings.metrics_beside_teachers(known), words.worth(known)]
    names = [trace.name.split(", ")[-1] for trace in reliability(known).data]  # type: ignore[union-attr]
    for label in ("ensemble_label", "trial_label"):
        monkeypatch.setattr(labels, label, lambda _: "something else")
    monkeypatch.setattr(labels, "TEACHER_MEAN", "something else")
    assert [findings.metrics_beside_teachers(known), words.worth(known)] == before
    assert [trace.name.split(", ")[-1] for trace in reliability(known).data] == names  # type: ignore[union-attr]
    assert set(known.tested_rows) == {"something else"}
    assert replace(known, tested=()).teachers_beside
