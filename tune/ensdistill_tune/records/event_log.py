"""Event log of a study: all events in order, one record per event (`ensdistill_tune.records.log_records`).

The event log is the single source of truth of a study. Trial records, rungs, the searcher's state and the data for
MLflow are computed from the event log, so they survive a crash.
"""

import io
import json
import os
from pathlib import Path
from typing import Any

from ensdistill.errors import DataError
from ensdistill.runtime.command_line import command_line
from ensdistill.runtime.files import sync_directory, write_error
from ensdistill.version import __version__
from ensdistill_tune.records.events import ANY_EVENT, FORMAT, EpochReported, Event
from ensdistill_tune.records.log_records import LogEnd, ScannedLog, content_of, scan


class EventLog:
    """The event log, open for appending; a new file starts with a header.

    Attributes:
        past: The events that the log contained when it was opened.
        removed: Number of bytes that were removed when the log was opened, because a crash had left an incomplete last
            record.
    """

    def __init__(self, path: Path) -> None:
        """Opens the log.

        Args:
            path: The file; it is created if it is missing.

        Raises:
            DataError: The log is damaged, has a different format, or cannot be written.
        """
        self._path = path
        log = scan_log(path)
        self.past = events_of(path, log)
        self._end, self.removed, self._failed = log.end, log.incomplete, False
        try:
            self._file = _open(path)
            self._file.truncate(self._end.size)
        except OSError as error:
            raise self._unwritable(error) from error
        if not self._end.records:
            self._write({"format": FORMAT, "product": __version__}, durable=True)
            sync_directory(path.parent)

    def append(self, event: Event) -> None:
        """Writes one event.

        All events survive a crash of this process. All events except reports survive a power failure; a lost report is
        written again when its trial has repeated the epoch. After an error, the log accepts no more events.

        Args:
            event: The event.

        Raises:
            DataError: The file cannot be written.
        """
        self._write(event.model_dump(), durable=not isinstance(event, EpochReported))

    def _write(self, content: dict[str, Any], *, durable: bool) -> None:
        line = self._end.encode(content)
        try:
            if self._failed:
                raise OSError(0, "an earlier record could not be written")
            self._failed = True  # reset below, after the whole line has been written
            self._write_all(line)
            if durable:
                os.fsync(self._file.fileno())
        except OSError as error:
            raise self._unwritable(error) from error
        self._failed = False
        self._end = self._end.after(line) or self._end

    def _write_all(self, line: bytes) -> None:
        written = 0
        while written < len(line):  # a disk that is nearly full may accept only part of the line
            written += self._file.write(line[written:])

    def _unwritable(self, error: OSError) -> DataError:
        return write_error(self._path, error, "fix the cause and resume the study")


def _open(path: Path) -> io.FileIO:
    return path.open("ab", buffering=0)


def scan_log(path: Path) -> ScannedLog:
    """Checks a whole event log and returns its intact records.

    Args:
        path: The event log; it may be missing.

    Raises:
        DataError: The log has a different format, or a complete line is damaged.
    """
    content = path.read_bytes() if path.exists() else b""
    log = scan(content)
    if b"\n" in content:
        check_format(path, content[: content.index(b"\n") + 1])
    if log.damaged:
        raise damage(path, log.end)
    return log


def read_journal(path: Path) -> list[Event]:
    """Returns all complete events.

    Args:
        path: The event log; it may be missing.

    Raises:
        DataError: The log has a different format, or a line before the last one is damaged.
    """
    return events_of(path, scan_log(path))


def events_of(path: Path, log: ScannedLog) -> list[Event]:
    """Returns the events in the intact records of a log.

    Args:
        path: The event log, named in error messages.
        log: The records of the log.

    Raises:
        DataError: The log contains an event that this version does not define.
    """
    return [read_event(line, f"{path}, line {number}") for number, line in enumerate(log.lines[1:], start=2)]


def answer_to(request: str, path: Path, start: int) -> Event | None:
    """Returns the event that answers a request; None if there is no answer yet.

    Args:
        request: Name of the request.
        path: The event log, to which another process may be writing.
        start: Byte position at which the search starts: the size of the log before the request was sent.
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
        path: The event log, named in the error message.
        first_line: First line of the log.

    Raises:
        DataError: The line is damaged, or its format number is missing or not supported by this version.
    """
    try:
        header = json.loads(first_line)
    except ValueError as error:
        raise damage(path, LogEnd()) from error
    header = header if isinstance(header, dict) else {}
    if not LogEnd().after(first_line) and ("crc" in header or header.get("format") == FORMAT):
        raise damage(path, LogEnd())
    if "format" not in header:
        raise DataError(f"{path}: the file has no format number (another version wrote it). Launch the study again.")
    if header["format"] != FORMAT:
        raise DataError(f"{path}: must have format {FORMAT}, got {header['format']}; use the version that wrote it")


def damage(path: Path, end: LogEnd) -> DataError:
    """Returns the error for the first damaged line of a log.

    Args:
        path: The event log.
        end: End of the intact records.
    """
    where, home = f"{path}, line {end.records + 1} (from byte {end.size}): damaged", path.parent
    if not end.records:
        return DataError(
            f"{where}; no record can be recovered. Restore a copy of this file, or launch the study again."
        )
    fix = command_line("ensdistill-tune", "fsck", home.name, studies=home.parent)
    return DataError(f"{where}; `{fix}` shows what can be recovered")


def read_event(line: bytes, where: str) -> Event:
    """Returns the event of an intact record.

    Args:
        line: The record.
        where: File and line, named in the error message.

    Raises:
        DataError: This version does not define the event.
    """
    try:
        return ANY_EVENT.validate_json(content_of(line))
    except ValueError as error:
        raise DataError(f"{where}: unknown event; use the version that wrote the event log") from error
