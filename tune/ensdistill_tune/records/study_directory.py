"""Files of a study."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ensdistill.errors import DataError
from ensdistill.runtime.files import write_json
from ensdistill.runtime.locks import is_locked
from ensdistill_tune.records.event_log import read_journal
from ensdistill_tune.records.inbox import Inbox
from ensdistill_tune.records.trial_record import UNDER_WAY, TrialRecord, Trials, apply_event


class StudyDirectory:
    """The folder `<studies>/<name>/` of a study.

    It contains study.json (settings, state, summary), events.jsonl (the event log) and trials/<number>/ (the checkpoint
    of a running trial, the student of a completed trial).

    Attributes:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def journal(self) -> Path:
        """Path of the event log."""
        return self.path / "events.jsonl"

    @property
    def inbox(self) -> Inbox:
        """Requests to the study."""
        return Inbox(self.path / "inbox")

    def trial(self, number: int) -> Path:
        """Returns the folder that contains the checkpoint or the student of a trial."""
        return self.path / "trials" / f"{number:05d}"

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Locks the study for this process inside the block. The lock is also released if the process is killed.

        Raises:
            DataError: Another process holds the lock.
        """
        try:
            with FileLock(self._lock, timeout=1):
                yield
        except Timeout as error:
            raise DataError(
                f"{self.path}: another process is running this study; wait until the study ends, or stop it"
            ) from error

    @property
    def is_held(self) -> bool:
        """True if a process holds the lock of the study."""
        return is_locked(self._lock)

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Replaces study.json."""
        write_json(self.path / "study.json", summary)

    def read_summary(self) -> dict[str, Any]:
        """Returns the content of study.json. The state is `crashed` if the process ended without writing a final state.

        Raises:
            DataError: The file does not exist or is damaged.
        """
        try:
            summary: dict[str, Any] = json.loads((self.path / "study.json").read_text())
            state = summary["state"]
        except OSError as error:
            raise DataError(f"{self.path}: no study in this folder; `ensdistill-tune status` lists studies") from error
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{self.path / 'study.json'}: damaged; restore a copy of this file") from error
        if state in UNDER_WAY and not self.is_held:
            summary["state"] = "crashed"
        return summary

    def read_trials(self) -> list[TrialRecord]:
        """Returns all started trials, ordered by number."""
        trials: Trials = {}
        for event in read_journal(self.journal):
            apply_event(trials, event)
        return [trials[number] for number in sorted(trials)]

    @property
    def _lock(self) -> Path:
        return self.path / ".lock"
