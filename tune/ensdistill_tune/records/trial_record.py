"""What a study knows about itself: the record of every trial, made from the journal, and the files of a study."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ensdistill_tune.formatting import short_name, short_value
from ensdistill_tune.records.events import (
    EpochReported,
    Event,
    ReportWritten,
    SessionStarted,
    State,
    TrialEnded,
    TrialResumed,
    TrialStarted,
)

METRICS = ("val/nll", "val/accuracy", "val/brier", "val/ece", "val/cnll", "val/dee")  # that are shown everywhere
TrialKind = Literal["baseline", "search", "replicate"]
PRIMARY: tuple[TrialKind, ...] = ("baseline", "search")  # all but the replicates

UNDER_WAY = ("training_teachers", "running", "confirming")  # states of a study that somebody is at work on
OVER: tuple[State, ...] = ("finished", "pruned", "failed")  # states of a trial that does not continue
CHECKPOINT = "checkpoint.pt"  # in the folder of a trial that runs
EPOCHS = "reported"  # in a report of a trial: the metrics after each epoch since the report before
FAILURE, FAILURE_KIND = "failure", "failure_kind"  # in the last report of a trial that failed by itself: why


@dataclass
class TrialRecord:
    """One trial, from its start to its end."""

    number: int  # 1 is the first; baselines come first
    baseline: str | None  # the preset, for a baseline
    sampled: dict[str, Any]  # the searched settings by dotted name
    config_hash: str
    state: State = "running"
    epochs: list[dict[str, float]] = field(default_factory=list)  # every report
    error: str | None = None
    replicate_of: int | None = None  # the trial whose settings it replicates, after the search
    seed: int | None = None  # of such a repeat
    memory: dict[str, Any] = field(default_factory=dict)  # what the searcher must know again of its suggestion
    schedule: list[dict[str, Any]] = field(default_factory=list)  # settings that changed on the way: after which epoch
    parent: int | None = None  # the trial at whose checkpoint after the last of these changes it begins
    replaces: int | None = None  # the trial that gave up and made room for it
    error_kind: str | None = None  # the same for all trials that failed in the same way
    cpus: float = 0.0  # that it is given now, or was given last
    gpus: float = 0.0
    cpu_seconds: float = 0.0  # wall time, each second times the CPUs given in it; up to the last report after a crash
    gpu_seconds: float = 0.0
    counted_until: float | None = None  # the time up to which these are counted, while it runs

    @property
    def kind(self) -> TrialKind:
        """What the trial is for; a replicate of a baseline is a replicate."""
        if self.replicate_of is not None:
            return "replicate"
        return "search" if self.baseline is None else "baseline"

    @property
    def name(self) -> str:
        """Short and telling."""
        if self.replicate_of is not None:
            return f"{self.number:03d} repeats {self.baseline or f'{self.replicate_of:03d}'} with seed {self.seed}"
        return f"{self.number:03d} {self.baseline or self.settings}"

    @property
    def settings(self) -> str:
        """What was sampled, in short: `step_size=0.0123 averaging=ema`, and what changed on the way."""
        words = [short_settings(self.sampled)]
        words += [f"after {change['after_epoch']}: {short_settings(change['set'])}" for change in self.schedule]
        return ", ".join(words)

    @property
    def settings_at_last(self) -> dict[str, Any]:
        """What was sampled, as it was after all changes."""
        changed = {name: value for change in self.schedule for name, value in change["set"].items()}
        return {**self.sampled, **changed}

    @property
    def last(self) -> dict[str, float]:
        """The last report, empty before the first."""
        return self.epochs[-1] if self.epochs else {}

    @property
    def whole(self) -> bool:
        """Whether its last epoch has been reported."""
        return bool(self.epochs) and self.last["epoch"] == self.last["epochs"]

    def count_seconds(self, until: float) -> None:
        """Adds the time since the last call while the trial runs."""
        if self.counted_until is not None:
            passed = max(0.0, until - self.counted_until)  # a clock may be set back
            self.cpu_seconds += self.cpus * passed
            self.gpu_seconds += self.gpus * passed
            self.counted_until = until

    def at(self, epoch: int, metric: str) -> float | None:
        """A metric after an epoch; None if that epoch was not reported."""
        report = self.report_after(epoch)
        return report[metric] if report else None

    def report_after(self, epoch: int) -> dict[str, float] | None:
        """All metrics after an epoch; None if that epoch was not reported."""
        return next((known for known in self.epochs if known["epoch"] == epoch), None)

    def value(self, metric: str) -> float | None:
        """A metric after the last epoch; None unless the trial ran to its end."""
        return self.last.get(metric) if self.state == "finished" else None


Trials = dict[int, TrialRecord]  # by number


def row_of(trial: TrialRecord) -> dict[str, Any]:
    """Returns a trial as study.json has it."""
    names = ("baseline", "sampled", "schedule", "replicate_of", "seed", "config_hash")
    return {"trial": trial.number, **{name: getattr(trial, name) for name in names}, "metrics": trial.last}


def trial_of(row: Mapping[str, Any]) -> TrialRecord:
    """Returns the trial of a row that `row_of` made."""
    own = {name: value for name, value in row.items() if name not in ("trial", "metrics")}
    return TrialRecord(number=row["trial"], **own, epochs=[row["metrics"]])


def apply_event(trials: Trials, event: Event) -> TrialRecord | None:
    """Brings the records up to date with one event; the record that it changed, if it is one of a trial."""
    match event:
        case TrialStarted(trial=number):
            trials[number] = TrialRecord(number, **event.record, counted_until=event.at)
        case TrialResumed(trial=number):
            trials[number].state, trials[number].counted_until = "running", event.at
            trials[number].cpus, trials[number].gpus = event.cpus, event.gpus
        case EpochReported(trial=number, metrics=metrics):
            trials[number].epochs.append(metrics)
            trials[number].count_seconds(event.at)
        case TrialEnded(trial=number, state=state):
            trials[number].state, trials[number].error = state, event.error
            trials[number].error_kind = event.error_kind
            trials[number].count_seconds(event.at)
            trials[number].counted_until = None
        case SessionStarted():
            for trial in trials.values():  # what ran when the session before died was not seen to run any longer
                trial.counted_until = None
            return None
        case _:
            return None
    return trials[number]


def require_trial(trial: TrialRecord | None) -> TrialRecord:
    """The trial of an event that is about one."""
    if trial is None:
        raise AssertionError("an event of a trial names its trial")
    return trial


def of_kind(trials: Iterable[TrialRecord], *kinds: TrialKind) -> list[TrialRecord]:
    """Returns the trials of these kinds, in their order."""
    return [trial for trial in trials if trial.kind in kinds]


def rank_trials(trials: Iterable[TrialRecord], metric: str, mode: str) -> list[TrialRecord]:
    """The finished trials, best first; of equals the earlier one first."""
    sign = -1 if mode == "max" else 1
    finished = [trial for trial in trials if trial.value(metric) is not None]
    return sorted(finished, key=lambda trial: (sign * (trial.value(metric) or 0.0), trial.number))


def count_states(trials: Iterable[TrialRecord]) -> dict[str, int]:
    """How many trials are in each state."""
    return dict(Counter(trial.state for trial in trials))


@dataclass(frozen=True)
class HoursUsed:
    """What trials were given: hours of wall time, times the CPUs and the GPUs of each."""

    cpu: float
    gpu: float

    @classmethod
    def of(cls, trials: Iterable[TrialRecord]) -> "HoursUsed":
        """Returns the sum over trials."""
        every = list(trials)
        return cls(sum(t.cpu_seconds for t in every) / 3600, sum(t.gpu_seconds for t in every) / 3600)

    def __str__(self) -> str:
        return " and ".join(
            f"{hours:.3g} {kind} hours" for kind, hours in (("CPU", self.cpu), ("GPU", self.gpu)) if hours
        )

    @property
    def metrics(self) -> dict[str, float]:
        """As metrics of a run; GPU hours only if there are any."""
        return {"time/cpu_hours": self.cpu} | ({"time/gpu_hours": self.gpu} if self.gpu else {})


def active_seconds(events: Sequence[Event]) -> float:
    """How long the study has been worked at: for each session the time from its beginning to its last event.

    A report that was made later is no work at the study.
    """
    seconds, began = 0.0, 0.0
    events = [event for event in events if not isinstance(event, ReportWritten)]
    for n, event in enumerate(events):
        if isinstance(event, SessionStarted):
            began = event.at
        if n + 1 == len(events) or isinstance(events[n + 1], SessionStarted):
            seconds += event.at - began
    return seconds


def short_settings(settings: Mapping[str, Any]) -> str:
    """Returns settings in short: `step_size=0.0123 averaging=ema`."""
    return " ".join(f"{short_name(name)}={short_value(value)}" for name, value in settings.items())
