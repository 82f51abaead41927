"""Examines a damaged event log and recovers its intact records."""

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ensdistill.errors import ConfigError, DataError
from ensdistill.runtime.files import atomic_write
from ensdistill_tune.records.event_log import check_format, events_of, read_event
from ensdistill_tune.records.events import Event
from ensdistill_tune.records.log_records import ScannedLog, scan
from ensdistill_tune.records.study_directory import StudyDirectory


@dataclass(frozen=True)
class LogExamination:
    """State of an event log.

    Attributes:
        path: Path of the log.
        format: Format number of the log.
        product: Version that created the log.
        log: The intact records, and whether damaged or incomplete data follow them.
        events: The events of the intact records.
        lost: Readable events after the damaged record; their order and content are uncertain.
    """

    path: Path
    format: int
    product: str
    log: ScannedLog
    events: Sequence[Event]
    lost: Sequence[Event]

    @property
    def is_sound(self) -> bool:
        """True if the log ends with its last intact record."""
        return not (self.log.damaged or self.log.incomplete)

    @property
    def last(self) -> int:
        """Sequence number of the last intact record."""
        return self.log.end.records - 1


def examine(path: Path) -> LogExamination:
    """Checks a whole event log.

    Args:
        path: The log.

    Raises:
        DataError: The log does not exist, has a different format, or its header is damaged.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    if b"\n" not in content:
        raise DataError(f"{path} has no complete record; resume the study to start a new log")
    check_format(path, content[: content.find(b"\n") + 1])
    log = scan(content)
    header, lost = json.loads(log.lines[0]), _readable(content[log.end.size :])
    return LogExamination(path, header["format"], header["product"], log, events_of(path, log), lost)


def recover(folder: StudyDirectory, last: int) -> Path:
    """Removes all records after a given record from the log of a study that is not running.

    Args:
        folder: Folder of the study.
        last: Sequence number of the last record to keep.

    Returns:
        Path of a copy of the original log.

    Raises:
        ConfigError: No intact record has this number.
        DataError: The study is running, or the files cannot be written.
    """
    with folder.held():
        found = examine(folder.journal)
        if not 0 <= last <= found.last:
            raise ConfigError(f"--to: must be between 0 and {found.last}, the last intact record, got {last}")
        copy = _free_name(folder.journal)
        atomic_write(copy, lambda file: shutil.copyfile(folder.journal, file))
        atomic_write(folder.journal, lambda file: file.write_bytes(b"".join(found.log.lines[: last + 1])))
        if last < found.last or not found.is_sound:
            folder.write_summary(folder.read_summary() | {"state": "interrupted"})
    return copy


def in_words(events: Sequence[Event]) -> str:
    """Returns the number of events of each kind, and the range of their trial numbers, as a string."""
    counts = Counter(str(event.event).replace("_", " ") for event in events)
    trials = sorted({trial for event in events if isinstance(trial := getattr(event, "trial", None), int)})
    named = f" (trials {trials[0]} to {trials[-1]})" if len(trials) > 1 else f" (trial {trials[0]})" if trials else ""
    return ", ".join(f"{count} x {kind}" for kind, count in counts.items()) + named


def _readable(content: bytes) -> list[Event]:
    events = []
    for line in content.splitlines():
        try:
            events.append(read_event(line, ""))
        except DataError:
            continue
    return events


def _free_name(path: Path) -> Path:
    number = 1
    while (copy := path.with_name(f"{path.name}.before-recovery-{number}")).exists():
        number += 1
    return copy
