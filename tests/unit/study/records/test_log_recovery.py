"""The event log with every truncation and every flipped bit; recovery by `fsck`."""

import errno
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from ensdistill.errors import DataError
from ensdistill_tune.records.event_log import EventLog, read_journal
from ensdistill_tune.records.events import EpochReported, Event, SessionStarted, TrialEnded, TrialStarted
from ensdistill_tune.records.log_records import scan
from ensdistill_tune.records.log_recovery import examine
from ensdistill_tune.records.study_directory import StudyDirectory
from ensdistill_tune.session import open_study
from ensdistill_tune.study.study_config import StudyConfig
from ensdistill_tune.study.study_location import StudyLocation
from tests.commands import Done, call

EVENTS: list[Event] = [
    SessionStarted(at=1.0),
    TrialStarted(at=2.0, trial=1, sampled={"a": 0.1}),
    EpochReported(at=3.0, trial=1, metrics={"val/nll": 0.5}),
    TrialEnded(at=4.0, trial=1, state="finished"),
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    log = EventLog(tmp_path / "events.jsonl")
    for event in EVENTS:
        log.append(event)
    return tmp_path / "events.jsonl"


@pytest.fixture
def study(file: Path) -> StudyDirectory:
    folder = StudyDirectory(file.parent)
    folder.write_summary({"state": "finished", "study": {}})
    return folder


def fsck(study: StudyDirectory, *words: str) -> Done:
    return call("ensdistill-tune", "fsck", study.path.name, "--studies-dir", study.path.parent, *words)


def test_a_log_truncated_at_any_byte_still_contains_the_complete_records_before_that_byte(file: Path) -> None:
    whole = file.read_bytes()
    ends = [n + 1 for n, byte in enumerate(whole) if byte == ord("\n")]
    for size in range(len(whole)):
        file.write_bytes(whole[:size])
        complete = sum(end <= size for end in ends)
        assert read_journal(file) == EVENTS[: max(0, complete - 1)]
        log = EventLog(file)
        assert log.removed == size - max([0, *(end for end in ends if end <= size)])
        log.append(EVENTS[0])
        assert read_journal(file) == [*EVENTS[: max(0, complete - 1)], EVENTS[0]]


def test_every_command_that_removes_an_incomplete_record_reports_it(
    study: StudyDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = StudyConfig.model_validate({"search": {"loss.temperature": {"choice": [1, 2]}}, "preset": "kd"})
    place = StudyLocation(study.path.parent, study.path.name)
    for cut, words in ((3, "1[0-9][0-9] bytes"), (0, "")):
        study.journal.write_bytes(study.journal.read_bytes()[: -cut or None])
        open_study(settings, place, {"study_id": "x"})
        printed = " ".join(capsys.readouterr().err.split())
        assert bool(words) == bool(re.search(f"an incomplete last record \\({words}\\) was removed", printed)), printed


def test_any_flipped_bit_causes_an_error_that_states_the_line_and_the_byte(file: Path) -> None:
    whole = file.read_bytes()
    for place in range(len(whole)):
        line = whole.count(b"\n", 0, place) + 1
        start = whole.rfind(b"\n", 0, place) + 1
        for bit in range(8):
            changed = bytearray(whole)
            changed[place] ^= 1 << bit
            found = scan(bytes(changed))
            assert (found.damaged, found.end.size, found.end.records) == (True, start, line - 1)
        file.write_bytes(bytes(changed))
        with pytest.raises(DataError) as caught:
            read_journal(file)
        assert f"line {line} (from byte {start}): damaged" in str(caught.value)


@pytest.mark.parametrize(
    "order",
    [[0, 1, 3, 4], [0, 2, 1, 3, 4], [0, 1, 1, 2, 3, 4], [1, 2, 3, 4]],
    ids=["missing", "moved", "twice", "head"],
)
def test_missing_and_moved_and_repeated_lines_are_detected(order: list[int], file: Path) -> None:
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[n] for n in order))
    with pytest.raises(DataError, match=r"damaged|has no format number"):
        read_journal(file)


@pytest.mark.parametrize("fault", ["full", "short", "sync"])
def test_no_record_is_written_after_a_failed_write(fault: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = EventLog(file)
    inner, full = log._file, OSError(errno.ENOSPC, "No space left on device")

    class Disk:
        def write(self, data: bytes) -> int:
            if fault == "full" or len(data) < 20:
                raise full
            return inner.write(data if fault == "sync" else data[:-10])

        def fileno(self) -> int:
            return inner.fileno()

    def sync(descriptor: int) -> None:
        if fault == "sync":
            raise full

    monkeypatch.setattr(log, "_file", Disk())
    monkeypatch.setattr(os, "fsync", sync)
    for _ in range(2):
        with pytest.raises(DataError, match="cannot be written"):
            log.append(SessionStarted(at=5.0))
    monkeypatch.undo()
    again = EventLog(file)
    again.append(SessionStarted(at=6.0))
    written = [SessionStarted(at=5.0)] if fault == "sync" else []
    assert read_journal(file) == [*EVENTS, *written, SessionStarted(at=6.0)]


def test_fsck_of_an_undamaged_log_prints_its_records(study: StudyDirectory) -> None:
    done = fsck(study)
    assert (done.code, done.err) == (0, "")
    assert "records 0 to 4" in done.out
    assert "last record: trial ended" in done.out


def test_fsck_reports_an_incomplete_record_and_changes_nothing(study: StudyDirectory) -> None:
    with study.journal.open("ab") as log:
        log.write(b'{"crc": "00')
    before = study.journal.read_bytes()
    done = fsck(study)
    assert done.code == 1
    assert "incomplete: 11 more bytes" in done.out
    assert study.journal.read_bytes() == before


def damage(study: StudyDirectory, line: int) -> None:
    lines = study.journal.read_bytes().splitlines(keepends=True)
    lines[line - 1] = lines[line - 1].replace(b"0.1", b"0.9")
    study.journal.write_bytes(b"".join(lines))


def test_the_command_printed_by_fsck_recovers_the_records_before_the_damage(study: StudyDirectory) -> None:
    damage(study, 3)
    before = study.journal.read_bytes()
    done = fsck(study)
    assert done.code == 1
    assert "damaged:    line 3, from byte" in done.out
    assert "1 x trial started, 1 x epoch reported, 1 x trial ended (trial 1)" in done.out
    assert "--to 1" in done.out
    row: dict[str, Any] = json.loads(fsck(study, "--json").out)
    assert (row["last"], row["damage"]["line"], len(row["readable_after_damage"])) == (1, 3, 3)

    done = fsck(study, "--to", "1")
    assert done.code == 0, done.err
    assert read_journal(study.journal) == EVENTS[:1]
    assert (study.path / "events.jsonl.before-recovery-1").read_bytes() == before
    assert study.read_summary()["state"] == "interrupted"
    assert "ensdistill-tune resume" in done.out
    assert fsck(study).code == 0


def test_fsck_reports_a_recovery_as_one_json_object(study: StudyDirectory) -> None:
    damage(study, 3)
    row = json.loads(fsck(study, "--to", "1", "--json").out)
    assert row == {"file": str(study.journal), "last": 1, "copy": f"{study.journal}.before-recovery-1"}


def test_fsck_states_the_fix_for_a_damaged_header(study: StudyDirectory) -> None:
    header, rest = study.journal.read_bytes().split(b"\n", 1)
    study.journal.write_bytes(header.replace(b"product", b"prodact") + b"\n" + rest)
    assert "Restore a copy of this file, or launch the study again." in fsck(study).err
    study.journal.write_bytes(header[:20])
    assert "has no complete record; resume the study" in fsck(study).err


@pytest.mark.parametrize("last", ["-1", "2", "9"])
def test_fsck_refuses_to_keep_the_damaged_record_and_all_later_records(last: str, study: StudyDirectory) -> None:
    damage(study, 3)
    before = study.journal.read_bytes()
    done = fsck(study, "--to", last)
    assert done.code == 2
    assert f"--to: must be between 0 and 1, the last intact record, got {last}" in done.err
    assert study.journal.read_bytes() == before


def test_fsck_recovers_nothing_while_the_study_runs(study: StudyDirectory) -> None:
    with study.held():
        done = fsck(study, "--to", "1")
    assert done.code == 2
    assert "another process is running this study" in done.err
    assert examine(study.journal).last == 4
