"""Records of all trials, with totals that each event updates in constant time."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from ensdistill_tune.records.events import EpochReported, Event, State, TrialStarted
from ensdistill_tune.records.trial_record import (
    PRIMARY,
    HoursUsed,
    TrialKind,
    TrialRecord,
    Trials,
    apply_event,
    of_kind,
)

Rank = Callable[[Iterable[TrialRecord]], Sequence[TrialRecord]]  # returns only the completed trials, best first


@dataclass
class TrialIndex:
    """Records of the trials of a study, updated by each event.

    Attributes:
        rank: Function that ranks trials.
        trials: The records, keyed by trial number, in the order in which the trials started.
        primary: Trials of the search, including baselines.
        replicates: Trials of the confirmation.
        searched: Trials of the search, without baselines.
        epochs: Number of reported epochs of the trials in `searched`.
        states: Number of trials, keyed by kind and state.
        best: The best completed trial of the search, including baselines; None before the first trial has completed.
    """

    rank: Rank
    trials: Trials = field(default_factory=dict)
    primary: list[TrialRecord] = field(default_factory=list)
    replicates: list[TrialRecord] = field(default_factory=list)
    searched: list[TrialRecord] = field(default_factory=list)
    epochs: int = 0
    states: Counter[tuple[TrialKind, State]] = field(default_factory=Counter)
    best: TrialRecord | None = None
    _running: Trials = field(default_factory=dict)
    _cpu_seconds: float = 0.0
    _gpu_seconds: float = 0.0

    def apply(self, event: Event) -> TrialRecord | None:
        """Applies one event, as `apply_event` does.

        Args:
            event: The event.

        Returns:
            The modified record; None for an event that does not concern a single trial.
        """
        known = self.trials.get(getattr(event, "trial", None) or 0)
        before = (known.state, known.cpu_seconds, known.gpu_seconds) if known else None
        trial = apply_event(self.trials, event)
        if trial is None:
            return None
        if isinstance(event, TrialStarted):
            self._add(trial)
        if isinstance(event, EpochReported):
            self.epochs += trial.kind == "search"
        if before is not None:
            self._cpu_seconds += trial.cpu_seconds - before[1]
            self._gpu_seconds += trial.gpu_seconds - before[2]
        self._count(trial, before and before[0])
        return trial

    def interrupt(self) -> list[TrialRecord]:
        """Marks all running trials as interrupted and returns them; their process died without recording their end."""
        died = self.running
        for trial in died:
            trial.state = "interrupted"
            self._count(trial, "running")
        return died

    @property
    def running(self) -> list[TrialRecord]:
        """Running trials, in the order of their numbers."""
        return sorted(self._running.values(), key=lambda trial: trial.number)

    @property
    def hours(self) -> HoursUsed:
        """CPU and GPU hours of all trials, including replicates."""
        return HoursUsed(self._cpu_seconds / 3600, self._gpu_seconds / 3600)

    def count(self, states: Iterable[State], *kinds: TrialKind) -> int:
        """Returns the number of trials of these kinds in these states."""
        return sum(self.states[kind, state] for state in states for kind in kinds)

    def counts(self, *kinds: TrialKind) -> dict[str, int]:
        """Returns the number of trials of these kinds in each state.

        States without trials are omitted. The states are in the order in which trials first reached them.
        """
        found = Counter[str]()
        for (kind, state), number in self.states.items():
            found[state] += number if kind in kinds else 0
        return {state: number for state, number in found.items() if number}

    def _add(self, trial: TrialRecord) -> None:
        (self.replicates if trial.kind == "replicate" else self.primary).append(trial)
        self.searched += of_kind([trial], "search")

    def _count(self, trial: TrialRecord, before: State | None) -> None:
        """Updates the totals for a trial whose state may have changed."""
        if before is not None:
            self.states[trial.kind, before] -= 1
        self.states[trial.kind, trial.state] += 1
        if trial.state == "running":
            self._running[trial.number] = trial
        else:
            self._running.pop(trial.number, None)
        if trial.state == "finished" and trial.state != before and trial.kind in PRIMARY:
            self.best = next(iter(self.rank([*([self.best] if self.best else []), trial])), None)
