"""A study while it runs: the records of its trials, and who is told of them."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ensdistill.errors import ConfigIssue
from ensdistill_tune.records.event_log import EventLog, read_journal
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
from ensdistill_tune.records.trial_record import (
    OVER,
    TrialRecord,
    Trials,
    active_seconds,
    apply_event,
    count_states,
    rank_trials,
    require_trial,
    row_of,
)
from ensdistill_tune.study.study_config import StudyConfig


class StudyObserver(Protocol):
    """Somebody who is told what happens to trials."""

    def trial_started(self, trial: TrialRecord) -> None:
        """A trial begins, or goes on after an interrupt."""

    def trial_reported(self, trial: TrialRecord) -> None:
        """An epoch was reported: `trial.last`."""

    def trial_ended(self, trial: TrialRecord) -> None:
        """A trial is over; `trial.state` says how."""


FindWarnings = Callable[
    [StudyConfig, Sequence[TrialRecord], TrialRecord | None, Mapping[str, Any], int], tuple[ConfigIssue, ...]
]  # of study, trials, best trial, metrics of the teachers, number of classes


@dataclass
class StudyState:
    """The records of a study at work. Each change is written to the journal first and told to the listeners then.

    A study that was interrupted, in whatever way, begins with the records that its journal gives.
    """

    study: StudyConfig
    folder: StudyDirectory
    header: dict[str, Any]  # the part of study.json that does not change
    find_warnings: FindWarnings
    listeners: list[StudyObserver] = field(default_factory=list)
    tell: Callable[[Event], None] = lambda event: None  # is given every event besides, as it stands in the journal
    trials: Trials = field(default_factory=dict)
    winner: TrialRecord | None = None  # once it is confirmed: the best repeat of the best settings
    replicates_planned: int = 0  # once the search is over
    state: str = "running"

    def __post_init__(self) -> None:
        self.past: Sequence[Event] = read_journal(self.folder.journal)  # what happened before this process began
        for event in self.past:
            apply_event(self.trials, event)
        self.died = self.running  # whose end nobody wrote down
        for trial in self.died:
            trial.state = "interrupted"
        self._before, self._began = active_seconds(self.past), time.time()
        self._log = EventLog(self.folder.journal)

    @property
    def num_trials(self) -> int:
        """How many trials the search will have, baselines included."""
        return self.study.num_trials

    @property
    def primary_trials(self) -> list[TrialRecord]:
        """The trials of the search, baselines included."""
        return [trial for trial in self.trials.values() if trial.replicate_of is None]

    @property
    def replicates(self) -> list[TrialRecord]:
        """The trials of the confirmation."""
        return [trial for trial in self.trials.values() if trial.replicate_of is not None]

    @property
    def running(self) -> list[TrialRecord]:
        """The trials that run now."""
        return [trial for trial in self.trials.values() if trial.state == "running"]

    @property
    def best(self) -> TrialRecord | None:
        """The confirmed winner, or before that the best trial so far that ran to its end."""
        best = rank_trials(self.primary_trials, self.study.objective, self.study.mode)
        return self.winner or (best[0] if best else None)

    @property
    def seconds(self) -> float:
        """How long the study has been worked at, in all sessions."""
        return self._before + time.time() - self._began

    @property
    def out_of_time(self) -> bool:
        """Whether the study has used up its minutes."""
        minutes = self.study.budget.minutes
        return minutes is not None and self.seconds >= minutes * 60

    @property
    def seconds_left(self) -> float | None:
        """Of the study's minutes; None if there is no such budget."""
        minutes = self.study.budget.minutes
        return None if minutes is None else max(1.0, minutes * 60 - self.seconds)

    def append_event(self, event: Event) -> TrialRecord | None:
        """Writes down an event; the record of the trial that it concerns."""
        event = without_secrets_in(event)
        self._log.append(event)
        self.tell(event)
        return apply_event(self.trials, event)

    def start(self, number: int, **record: Any) -> TrialRecord:
        """A new trial begins: the fields of its record."""
        return self._begun(self.append_event(TrialStarted(trial=number, **record)))

    def resume_trial(self, number: int) -> TrialRecord:
        """A trial that was interrupted goes on."""
        return self._begun(self.append_event(TrialResumed(trial=number)))

    def report(self, number: int, metrics: dict[str, float]) -> None:
        """A trial has trained another epoch."""
        trial = self.append_event(EpochReported(trial=number, metrics=metrics))
        for listener in self.listeners:
            listener.trial_reported(require_trial(trial))

    def end(self, number: int, state: State, error: str | None = None, error_kind: str | None = None) -> None:
        """A trial is over."""
        event = TrialEnded(trial=number, state=state, error=error, error_kind=error_kind)
        trial = require_trial(self.append_event(event))
        self.save(self.state)
        for listener in self.listeners:
            listener.trial_ended(trial)

    @property
    def trial_warnings(self) -> tuple[ConfigIssue, ...]:
        """What seems wrong with the students so far."""
        teachers, classes = self.header.get("teachers", {}), self.header.get("classes", 0)
        return self.find_warnings(self.study, list(self.trials.values()), self.best, teachers, classes)

    def summary(self, state: str) -> dict[str, Any]:
        """The content of study.json."""
        best = self.best
        return {
            **self.header,
            "state": state,
            "counts": count_states(self.primary_trials),
            "replicates_done": sum(trial.state in OVER for trial in self.replicates),
            "replicates_planned": self.replicates_planned,
            "total": self.num_trials,
            "best": best and row_of(best),
            "seconds": round(self.seconds, 1),
            "warnings": [*(warning.as_row() for warning in self.trial_warnings), *self.header.get("warnings", [])],
        }

    def save(self, state: str) -> None:
        """Writes study.json."""
        self.state = state
        self.folder.write_summary(self.summary(state))

    def _begun(self, trial: TrialRecord | None) -> TrialRecord:
        self.save(self.state)
        for listener in self.listeners:
            listener.trial_started(require_trial(trial))
        return require_trial(trial)
