"""The files of a study."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ensdistill.errors import DataError
from ensdistill.runtime.files import write_json
from ensdistill_tune.records.event_log import read_journal
from ensdistill_tune.records.inbox import Inbox
from ensdistill_tune.records.trial_record import UNDER_WAY, TrialRecord, Trials, apply_event


class StudyDirectory:
    """`<studies>/<name>/`: study.json (settings, state, summary), events.jsonl (all that happened), and

    trials/<number>/ (checkpoint of a trial that runs, student of one that ran to its end).
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def journal(self) -> Path:
        """The file of the journal."""
        return self.path / "events.jsonl"

    @property
    def inbox(self) -> Inbox:
        """Requests to the study."""
        return Inbox(self.path / "inbox")

    def trial(self, number: int) -> Path:
        """The folder of one trial's checkpoint and student."""
        return self.path / "trials" / f"{number:05d}"

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Inside the block this process alone works at the study; the hold ends with the process, however it dies.

        Raises DataError if another one does.
        """
        try:
            with FileLock(self._lock, timeout=1):
                yield
        except Timeout as error:
            raise DataError(f"{self.path}: another process is at work on this study") from error

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Replaces study.json."""
        write_json(self.path / "study.json", summary)

    def read_summary(self) -> dict[str, Any]:
        """The content of study.json; a study whose process is gone without a word has the state `crashed`.

        Raises DataError if there is none, or it is damaged.
        """
        try:
            summary: dict[str, Any] = json.loads((self.path / "study.json").read_text())
            state = summary["state"]
        except OSError as error:
            raise DataError(f"{self.path}: there is no study here") from error
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{self.path / 'study.json'}: damaged") from error
        if state in UNDER_WAY and not self._is_held():
            summary["state"] = "crashed"
        return summary

    def read_trials(self) -> list[TrialRecord]:
        """All trials that have begun, by number."""
        trials: Trials = {}
        for event in read_journal(self.journal):
            apply_event(trials, event)
        return [trials[number] for number in sorted(trials)]

    @property
    def _lock(self) -> Path:
        return self.path / ".lock"

    def _is_held(self) -> bool:
        if not self._lock.exists():
            return False
        try:
            with FileLock(self._lock, timeout=0):
                return False
        except Timeout:
            return True
