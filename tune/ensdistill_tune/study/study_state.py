"""State of a study while it runs: records of its trials, and observers."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ensdistill.errors import ConfigIssue
from ensdistill_tune.records.event_log import EventLog
from ensdistill_tune.records.events import (
    EpochReported,
    Event,
    State,
    TrialEnded,
    TrialResumed,
    TrialStarted,
    without_secrets_in,
)
from ensdistill_tune.records.study_directory import StudyDirectory
from ensdistill_tune.records.trial_index import TrialIndex
from ensdistill_tune.records.trial_record import (
    OVER,
    PRIMARY,
    HoursUsed,
    TrialRecord,
    Trials,
    active_seconds,
    require_trial,
    row_of,
)
from ensdistill_tune.study.study_config import StudyConfig


class EventObserver(Protocol):
    """Observer of the event log."""

    def on_event(self, event: Event) -> None:
        """Called with each event immediately after the event is written to the log; must not raise an exception."""


class StudyObserver(Protocol):
    """Observer of a study's trials, called after the records are updated; study.json may be written later."""

    def trial_started(self, study: "StudyState", trial: TrialRecord) -> None:
        """Called when a trial has started, or resumed after an interruption."""

    def trial_reported(self, study: "StudyState", trial: TrialRecord) -> None:
        """Called when a trial has reported an epoch; `trial.last` contains the metrics of this epoch."""

    def trial_ended(self, study: "StudyState", trial: TrialRecord) -> None:
        """Called when a trial has ended; `trial.state` is its final state."""


FindWarnings = Callable[
    [StudyConfig, Sequence[TrialRecord], TrialRecord | None, Mapping[str, Any], int], tuple[ConfigIssue, ...]
]  # arguments of the function: study, trials, best trial, metrics of the teachers, number of classes


SAVE_SECONDS = 1.0  # minimum number of seconds between two summaries while trials start and end
SAVE_SHARE = 0.02  # maximum fraction of time spent writing summaries; writing takes longer with more trials


@dataclass
class StudyState:
    """Records of a running study. Each change is first written to the event log; then the observers are called.

    When an interrupted study resumes, its records are restored from the event log.

    Attributes:
        study: The settings.
        folder: The files of the study.
        header: Constant part of study.json.
        find_warnings: Function that returns warnings about the students trained so far.
        log_observers: Observers that receive every appended event.
        observers: Observers of the trials.
        winner: The best replicate of the best settings; None before the confirmation.
        none_confirmed: Whether every candidate in the confirmation breaks a constraint, so that there is no winner.
        replicates_planned: Number of planned replicates; an upper bound until the confirmation ends.
        state: State of the study, as in study.json.
        index: Records of the trials, with totals.
        past: The events that were written before this process started.
        died: Trials that were running in an earlier process and whose end was not recorded.
    """

    study: StudyConfig
    folder: StudyDirectory
    header: dict[str, Any]
    find_warnings: FindWarnings
    log_observers: Sequence[EventObserver] = ()
    observers: Sequence[StudyObserver] = ()
    winner: TrialRecord | None = None
    none_confirmed: bool = False
    replicates_planned: int = 0
    state: str = "running"

    def __post_init__(self) -> None:
        self._log = EventLog(self.folder.journal)
        self.past: Sequence[Event] = self._log.past
        self.index = TrialIndex(self.study.rank)
        for event in self.past:
            self.index.apply(event)
        self.died = self.index.interrupt()
        self._before, self._began = active_seconds(self.past), time.time()
        self._unsaved, self._next_save = False, 0.0  # earliest time of the next save, on the monotonic clock

    @property
    def removed_bytes(self) -> int:
        """Size in bytes of an incomplete last record, which was removed when the event log was opened."""
        return self._log.removed

    @property
    def trials(self) -> Trials:
        """The records, keyed by trial number."""
        return self.index.trials

    @property
    def num_trials(self) -> int:
        """Number of trials of the search, including baselines."""
        return self.study.num_trials

    @property
    def primary_trials(self) -> Sequence[TrialRecord]:
        """Trials of the search, including baselines."""
        return self.index.primary

    @property
    def replicates(self) -> Sequence[TrialRecord]:
        """Trials of the confirmation."""
        return self.index.replicates

    @property
    def running(self) -> list[TrialRecord]:
        """Running trials."""
        return self.index.running

    @property
    def best(self) -> TrialRecord | None:
        """The confirmed winner, or the best completed trial so far that meets the constraints."""
        if self.winner or self.none_confirmed:
            return self.winner
        return next(iter(self.study.feasible([self.index.best] if self.index.best else [])), None)

    @property
    def seconds(self) -> float:
        """Total duration of all sessions in seconds."""
        return self._before + time.time() - self._began

    @property
    def out_of_time(self) -> bool:
        """True if the time budget is spent."""
        minutes = self.study.budget.minutes
        return minutes is not None and self.seconds >= minutes * 60

    @property
    def seconds_left(self) -> float | None:
        """Remaining time budget in seconds, at least 1; None without a time budget."""
        minutes = self.study.budget.minutes
        return None if minutes is None else max(1.0, minutes * 60 - self.seconds)

    @property
    def hours(self) -> HoursUsed:
        """CPU and GPU hours of all trials so far, including replicates."""
        return self.index.hours

    @property
    def hours_are_spent(self) -> bool:
        """True if the budget of CPU or GPU hours is spent."""
        budget = self.study.budget
        if budget.cpu_hours is None and budget.gpu_hours is None:
            return False
        used = self.hours
        limits = ((budget.cpu_hours, used.cpu), (budget.gpu_hours, used.gpu))
        return any(limit is not None and hours >= limit for limit, hours in limits)

    def append_event(self, event: Event) -> TrialRecord | None:
        """Writes an event to the log and applies it; returns the modified record, if any."""
        event = without_secrets_in(event)
        self._log.append(event)
        for observer in self.log_observers:
            observer.on_event(event)
        return self.index.apply(event)

    def start(self, number: int, **record: Any) -> TrialRecord:
        """Records the start of a new trial.

        Args:
            number: Trial number.
            **record: Fields of the trial record.
        """
        return self._begun(self.append_event(TrialStarted(trial=number, **record, **self._given)))

    def resume_trial(self, number: int) -> TrialRecord:
        """Records that an interrupted trial resumes."""
        return self._begun(self.append_event(TrialResumed(trial=number, **self._given)))

    def report(self, number: int, metrics: dict[str, float]) -> None:
        """Records an epoch of a trial."""
        trial = self.append_event(EpochReported(trial=number, metrics=metrics))
        self.flush()
        for observer in self.observers:
            observer.trial_reported(self, require_trial(trial))

    def end(self, number: int, state: State, error: str | None = None, error_kind: str | None = None) -> None:
        """Records the end of a trial.

        Args:
            number: Trial number.
            state: Final state.
            error: Reason for a failure, as a message for the user.
            error_kind: Kind of the failure, the same for trials that fail in the same way.
        """
        event = TrialEnded(trial=number, state=state, error=error, error_kind=error_kind)
        trial = require_trial(self.append_event(event))
        self._save_soon()
        for observer in self.observers:
            observer.trial_ended(self, trial)

    @property
    def trial_warnings(self) -> tuple[ConfigIssue, ...]:
        """Warnings about the students trained so far."""
        teachers, classes = self.header.get("teachers", {}), self.header.get("classes", 0)
        return self.find_warnings(self.study, list(self.trials.values()), self.best, teachers, classes)

    def summary(self, state: str) -> dict[str, Any]:
        """Returns the content of study.json."""
        best = self.best
        return {
            **self.header,
            "state": state,
            "counts": self.index.counts(*PRIMARY),
            "replicates_done": self.index.count(OVER, "replicate"),
            "replicates_planned": self.replicates_planned,
            "total": self.num_trials,
            "best": best and row_of(best),
            "seconds": round(self.seconds, 1),
            "cpu_hours": round(self.hours.cpu, 5),
            "gpu_hours": round(self.hours.gpu, 5),
            "warnings": [*(warning.as_row() for warning in self.trial_warnings), *self.header.get("warnings", [])],
        }

    def save(self, state: str) -> None:
        """Writes study.json."""
        self.state, self._unsaved = state, False
        began = time.monotonic()
        self.folder.write_summary(self.summary(state))
        took = time.monotonic() - began
        self._next_save = began + max(SAVE_SECONDS, took / SAVE_SHARE)

    def _save_soon(self) -> None:
        """Writes study.json if the next summary is due; otherwise, a later call of `flush` writes it.

        Consecutive summaries are at least `SAVE_SECONDS` apart, or further apart if writing would otherwise take more
        than the fraction `SAVE_SHARE` of the time. The event log is written without delay.
        """
        self._unsaved = True
        self.flush()

    def flush(self) -> None:
        """Writes study.json if a trial has started or ended since the last write and the next summary is due."""
        if self._unsaved and time.monotonic() >= self._next_save:
            self.save(self.state)

    @property
    def _given(self) -> dict[str, float]:
        return {"cpus": self.study.resources.cpus, "gpus": self.study.resources.gpus}

    def _begun(self, trial: TrialRecord | None) -> TrialRecord:
        self._save_soon()
        for observer in self.observers:
            observer.trial_started(self, require_trial(trial))
        return require_trial(trial)
