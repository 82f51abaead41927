"""The event log of a study: everything that happened, in the order in which it happened, one JSON line each.

It is the only memory that a study has. Records of trials, rungs, what the searcher knows and what MLflow is sent are
all made from it, so after a crash they come out as they were.
"""

import json
import os
from pathlib import Path
from typing import Any

from ensdistill.errors import DataError
from ensdistill_tune.records.events import ANY_EVENT, FORMAT, EpochReported, Event


class EventLog:
    """The file, open at its end. A line that a crash left half written is cut off; a new file gets its format."""

    def __init__(self, path: Path) -> None:
        _cut_off_half_a_line(path)
        self._file = path.open("a", encoding="utf-8")
        if not path.stat().st_size:
            self._write({"format": FORMAT}, durable=True)

    def append(self, event: Event) -> None:
        """Writes one event; it survives the death of this process, and all but reports that of the machine.

        A report that a power cut takes away is made again: the trial trains that epoch once more.

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
                f"{self._file.name}: cannot be written ({error.strerror}); mend that and resume the study"
            ) from error


def read_journal(path: Path) -> list[Event]:
    """Returns all whole events.

    Raises:
        DataError: The log has another format, or a line in the middle is damaged.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]  # what follows the last line end is half a line, or nothing
    if lines:
        check_format(path, lines[0])
    return [read_event(line, f"{path}, line {number}") for number, line in enumerate(lines[1:], start=2)]


def answer_to(request: str, path: Path, start: int) -> Event | None:
    """Returns the event that answers a request; None if there is none yet.

    Args:
        request: The request.
        path: The event log, which another process may be writing.
        start: Number of bytes of the log at a time before the request.
    """
    if not path.exists():
        return None
    with path.open("rb") as file:
        file.seek(start)
        lines = [line for line in file if request.encode() in line and line.endswith(b"\n")]
    events = (read_event(line, str(path)) for line in lines)
    return next((event for event in events if getattr(event, "request", None) == request), None)


def check_format(path: Path, first_line: bytes) -> None:
    """Raises DataError if the first line of an event log does not say that it has the format of this version."""
    try:
        line = json.loads(first_line)
        found = line.get("format") if isinstance(line, dict) else None
    except ValueError:
        found = None
    if found is None:
        raise DataError(f"{path}: has no format number, so another version wrote it; launch the study again")
    if found != FORMAT:
        raise DataError(
            f"{path}: has format {found}, this version reads format {FORMAT}; use the version that wrote it"
        )


def read_event(line: bytes, where: str) -> Event:
    """Returns the event of one line. Raises DataError if there is none."""
    try:
        return ANY_EVENT.validate_json(line)
    except ValueError as error:
        raise DataError(f"{where}: damaged; put back a copy of this file") from error


def _cut_off_half_a_line(path: Path) -> None:
    if path.exists():
        whole = path.read_bytes().rfind(b"\n") + 1
        os.truncate(path, whole)
