"""Event log of a study: all events in order, one JSON line each.

It is the single source of truth of a study. Trial records, rungs, the state of the searcher and the data for MLflow are
computed from it, so a crash does not change them.
"""

import json
import os
from pathlib import Path
from typing import Any

from ensdistill.errors import DataError
from ensdistill_tune.records.events import ANY_EVENT, FORMAT, EpochReported, Event


class EventLog:
    """The event log, open for appending. An incomplete last line is removed; a new file starts with its format."""

    def __init__(self, path: Path) -> None:
        _cut_off_half_a_line(path)
        self._file = path.open("a", encoding="utf-8")
        if not path.stat().st_size:
            self._write({"format": FORMAT}, durable=True)

    def append(self, event: Event) -> None:
        """Writes one event.

        All events survive a crash of this process, and all but reports survive a power failure. A lost report is
        repeated, because its trial trains that epoch again.

        Args:
            event: The event.

        Raises:
            DataError: The file cannot be written.
        """
        self._write(event.model_dump(), durable=not isinstance(event, EpochReported))

    def _write(self, line: dict[str, Any], *, durable: bool) -> None:
        try:
            self._file.write(json.dumps(line, allow_nan=False) + "\n")
            self._file.flush()
            if durable:
                os.fsync(self._file.fileno())
        except OSError as error:
            raise DataError(
                f"{self._file.name}: cannot be written ({error.strerror}); fix that and resume the study"
            ) from error


def read_journal(path: Path) -> list[Event]:
    """Returns all complete events.

    Args:
        path: The event log, which need not exist.

    Raises:
        DataError: The log has another format, or a line in the middle is damaged.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]  # an incomplete line may follow the last line end
    if lines:
        check_format(path, lines[0])
    return [read_event(line, f"{path}, line {number}") for number, line in enumerate(lines[1:], start=2)]


def answer_to(request: str, path: Path, start: int) -> Event | None:
    """Returns the event that answers a request; None before the answer.

    Args:
        request: Name of the request.
        path: The event log, to which another process may be writing.
        start: Size of the log in bytes at a time before the request.
    """
    if not path.exists():
        return None
    with path.open("rb") as file:
        file.seek(start)
        lines = [line for line in file if request.encode() in line and line.endswith(b"\n")]
    events = (read_event(line, str(path)) for line in lines)
    return next((event for event in events if getattr(event, "request", None) == request), None)


def check_format(path: Path, first_line: bytes) -> None:
    """Checks the format of an event log.

    Args:
        path: The event log, for the message.
        first_line: Its first line.

    Raises:
        DataError: The line has no format number, or another one than this version reads.
    """
    try:
        line = json.loads(first_line)
        found = line.get("format") if isinstance(line, dict) else None
    except ValueError:
        found = None
    if found is None:
        raise DataError(f"{path}: has no format number; another version wrote it. Launch the study again.")
    if found != FORMAT:
        raise DataError(f"{path}: must have format {FORMAT}, got {found}; use the version that wrote it")


def read_event(line: bytes, where: str) -> Event:
    """Returns the event of one line.

    Args:
        line: The line.
        where: File and position, for the message.

    Raises:
        DataError: The line is damaged.
    """
    try:
        return ANY_EVENT.validate_json(line)
    except ValueError as error:
        raise DataError(f"{where}: damaged; restore a copy of this file") from error


def _cut_off_half_a_line(path: Path) -> None:
    if path.exists():
        whole = path.read_bytes().rfind(b"\n") + 1
        os.truncate(path, whole)
