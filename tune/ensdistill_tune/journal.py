"""The journal of a study: everything that happened, in the order in which it happened, one JSON line each.

It is the only memory that a study has. Records of trials, rungs, what the searcher knows and what MLflow is told are
all made from it, so after a crash they come out as they were.
"""

import json
import os
from pathlib import Path
from typing import Any

from ensdistill.errors import DataError

Event = dict[str, Any]  # {"event": what happened, "at": seconds since the epoch, ...}

_MAY_WAIT = "reported"  # a report that a power cut takes away is made again; the trial trains that epoch once more


class Journal:
    """The file, open at its end. A line that a crash left half written is cut off."""

    def __init__(self, path: Path) -> None:
        _cut_off_half_a_line(path)
        self._file = path.open("a", encoding="utf-8")

    def append(self, event: Event) -> None:
        """Writes one event; it survives the death of this process, and all but reports that of the machine.

        Raises DataError if it cannot be written.
        """
        try:
            self._file.write(json.dumps(event, allow_nan=False) + "\n")
            self._file.flush()
            if event["event"] != _MAY_WAIT:
                os.fsync(self._file.fileno())
        except OSError as error:
            raise DataError(
                f"{self._file.name}: cannot be written ({error.strerror}); mend that and resume the study"
            ) from error


def read_journal(path: Path) -> list[Event]:
    """All whole events. Raises DataError if a line in the middle is damaged."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]  # what follows the last line end is half a line, or nothing
    events = []
    for number, line in enumerate(lines, start=1):
        try:
            events.append(dict(json.loads(line)))
        except ValueError as error:
            raise DataError(f"{path}, line {number}: damaged; put back a copy of this file") from error
    return events


def _cut_off_half_a_line(path: Path) -> None:
    if path.exists():
        whole = path.read_bytes().rfind(b"\n") + 1
        os.truncate(path, whole)
