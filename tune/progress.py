"""A study while it runs: the records of its trials, and who is told of them."""

import time
from dataclasses import dataclass, field
from typing import Any, Protocol

from tune.record import State, StudyFolder, TrialRecord, counts, ranked
from tune.space import Study


class Listener(Protocol):
    """Somebody who is told what happens to trials."""

    def trial_started(self, trial: TrialRecord, settings: dict[str, Any]) -> None:
        """A trial begins; settings are all of its settings by dotted name."""

    def trial_reported(self, trial: TrialRecord) -> None:
        """An epoch was reported: `trial.last`."""

    def trial_ended(self, trial: TrialRecord) -> None:
        """A trial is over; `trial.state` says how."""


@dataclass
class Progress:
    """The records of a running study. Each change is kept on disk first and told to the listeners then."""

    study: Study
    folder: StudyFolder
    header: dict[str, Any]  # the part of study.json that does not change
    listeners: list[Listener] = field(default_factory=list)
    trials: dict[str, TrialRecord] = field(default_factory=dict)  # by Ray's trial id
    started: float = field(default_factory=time.time)
    repeats_planned: int = 0  # once the search is over
    winner: TrialRecord | None = None  # once it is confirmed: the best repeat of the best settings
    state: str = "running"

    @property
    def total(self) -> int:
        """How many trials the search will have, baselines included."""
        return self.study.total

    @property
    def searched(self) -> list[TrialRecord]:
        """The trials of the search, baselines included."""
        return [trial for trial in self.trials.values() if trial.confirms is None]

    @property
    def repeats(self) -> list[TrialRecord]:
        """The trials of the confirmation."""
        return [trial for trial in self.trials.values() if trial.confirms is not None]

    @property
    def best(self) -> TrialRecord | None:
        """The confirmed winner, or before that the best trial so far that ran to its end."""
        best = ranked(self.searched, self.study.objective, self.study.mode)
        return self.winner or (best[0] if best else None)

    @property
    def out_of_time(self) -> bool:
        """Whether the study has used up its minutes."""
        minutes = self.study.budget.minutes
        return minutes is not None and time.time() - self.started >= minutes * 60

    @property
    def seconds_left(self) -> float | None:
        """Of the study's minutes; None if there is no such budget."""
        minutes = self.study.budget.minutes
        return None if minutes is None else max(1.0, minutes * 60 - (time.time() - self.started))

    def start(self, trial: TrialRecord, settings: dict[str, Any]) -> None:
        """A trial begins."""
        self.trials[trial.trial_id] = trial
        self.save(self.state)
        for listener in self.listeners:
            listener.trial_started(trial, settings)

    def report(self, trial: TrialRecord) -> None:
        """A trial has a new last report."""
        for listener in self.listeners:
            listener.trial_reported(trial)

    def end(self, trial: TrialRecord, state: State) -> None:
        """A trial is over."""
        trial.state = state
        self.folder.write_trial(trial)
        self.save(self.state)
        for listener in self.listeners:
            listener.trial_ended(trial)

    def summary(self, state: str) -> dict[str, Any]:
        """The content of study.json."""
        best = self.best
        return {
            **self.header,
            "state": state,
            "counts": counts(self.searched),
            "repeats": f"{len(self.repeats)} of {self.repeats_planned}",
            "total": self.total,
            "best": best
            and {"trial": best.number, "name": best.name, "config_hash": best.config_hash, "metrics": best.last},
            "seconds": round(time.time() - self.started, 1),
        }

    def save(self, state: str) -> None:
        """Writes study.json."""
        self.state = state
        self.folder.write_summary(self.summary(state))
