"""Records of trials, computed from the events of a study."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ensdistill_tune.formatting import short_name, short_value
from ensdistill_tune.records.epoch_metrics import EpochMetrics
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

METRICS = ("val/nll", "val/accuracy", "val/brier", "val/ece", "val/cnll", "val/dee")  # metrics that all tables show
TrialKind = Literal["baseline", "search", "replicate"]
PRIMARY: tuple[TrialKind, ...] = ("baseline", "search")  # all kinds except replicates

UNDER_WAY = ("training_teachers", "running", "confirming")  # states of a study while a process is running it
OVER: tuple[State, ...] = ("finished", "pruned", "failed")  # final states of a trial
CHECKPOINT = "checkpoint.pt"  # file name in the folder of a running trial
EPOCHS = "reported"  # key in a report: the metrics of each epoch since the previous report
FAILURE, FAILURE_KIND = "failure", "failure_kind"  # keys in the last report of a trial that failed with an error


@dataclass
class TrialRecord:
    """Record of one trial.

    Attributes:
        number: Number of the trial; 1 is the first. Baselines come first.
        baseline: Name of the preset if the trial is a baseline; None for other trials.
        sampled: Values of the searched settings, keyed by dotted name.
        config_hash: Hash of the trial's config.
        state: State of the trial.
        epochs: Metrics after each epoch.
        error: Reason for a failure, as a message for the user.
        replicate_of: Number of the trial whose settings a replicate uses; None for other trials.
        seed: Seed of a replicate.
        memory: Stored state of the searcher, from which a resumed study restores the suggestion for this trial.
        schedule: Changes of settings during training, each with the epoch after which the change applies.
        parent: Number of the trial from whose checkpoint this trial starts, at the epoch of the last change.
        replaces: Number of the stopped trial that this trial replaces.
        error_kind: Kind of the failure; trials that fail in the same way have the same kind.
        cpus: Number of CPU cores in the current or last session of the trial.
        gpus: Number of GPUs in the current or last session of the trial.
        cpu_seconds: Wall time in seconds times the number of CPU cores; after a crash, counted up to the last report.
        gpu_seconds: Wall time in seconds times the number of GPUs; after a crash, counted up to the last report.
        counted_until: Time up to which `cpu_seconds` and `gpu_seconds` are counted, in seconds since 1970; None unless
            the trial is running.
    """

    number: int
    baseline: str | None
    sampled: dict[str, Any]
    config_hash: str
    state: State = "running"
    epochs: EpochMetrics = field(default_factory=EpochMetrics)
    error: str | None = None
    replicate_of: int | None = None
    seed: int | None = None
    memory: dict[str, Any] = field(default_factory=dict)
    schedule: list[dict[str, Any]] = field(default_factory=list)
    parent: int | None = None
    replaces: int | None = None
    error_kind: str | None = None
    cpus: float = 0.0
    gpus: float = 0.0
    cpu_seconds: float = 0.0
    gpu_seconds: float = 0.0
    counted_until: float | None = None

    @property
    def kind(self) -> TrialKind:
        """Kind of the trial; a replicate of a baseline counts as a replicate."""
        if self.replicate_of is not None:
            return "replicate"
        return "search" if self.baseline is None else "baseline"

    @property
    def name(self) -> str:
        """Number and settings of the trial as a short string."""
        if self.replicate_of is not None:
            return f"{self.number:03d} replicate of {self.baseline or f'{self.replicate_of:03d}'}, seed {self.seed}"
        return f"{self.number:03d} {self.baseline or self.settings}"

    @property
    def settings(self) -> str:
        """Sampled settings and later changes as a short string, such as `step_size=0.0123 averaging=ema`."""
        words = [short_settings(self.sampled)]
        words += [f"after {change['after_epoch']}: {short_settings(change['set'])}" for change in self.schedule]
        return ", ".join(words)

    @property
    def settings_at_last(self) -> dict[str, Any]:
        """Sampled settings with all changes applied."""
        changed = {name: value for change in self.schedule for name, value in change["set"].items()}
        return {**self.sampled, **changed}

    @property
    def last(self) -> dict[str, float]:
        """Metrics after the last epoch; empty before the first report."""
        return self.epochs[-1] if self.epochs else {}

    @property
    def whole(self) -> bool:
        """True if the last epoch of the training has been reported."""
        return bool(self.epochs) and self.last["epoch"] == self.last["epochs"]

    def count_seconds(self, until: float) -> None:
        """If the trial is running, increases `cpu_seconds` and `gpu_seconds` by the time since the last count.

        Args:
            until: The current time, in seconds since 1970.
        """
        if self.counted_until is not None:
            passed = max(0.0, until - self.counted_until)  # the clock may have been set back
            self.cpu_seconds += self.cpus * passed
            self.gpu_seconds += self.gpus * passed
            self.counted_until = until

    def best_until(self, epoch: int, metric: str, mode: str) -> float | None:
        """Returns the best value of a metric up to an epoch; None if that epoch was not reported.

        Args:
            epoch: The epoch.
            metric: The metric.
            mode: `min` or `max`.
        """
        if not self.report_after(epoch):
            return None
        return (max if mode == "max" else min)(known[metric] for known in self.epochs if known["epoch"] <= epoch)

    def report_after(self, epoch: int) -> dict[str, float] | None:
        """Returns all metrics after an epoch; None if that epoch was not reported."""
        return next((known for known in self.epochs if known["epoch"] == epoch), None)

    def value(self, metric: str) -> float | None:
        """Returns a metric after the last epoch; None unless the trial completed."""
        return self.last.get(metric) if self.state == "finished" else None


Trials = dict[int, TrialRecord]  # keyed by number


def row_of(trial: TrialRecord) -> dict[str, Any]:
    """Returns a trial as a row of study.json."""
    names = ("baseline", "sampled", "schedule", "replicate_of", "seed", "config_hash")
    return {"trial": trial.number, **{name: getattr(trial, name) for name in names}, "metrics": trial.last}


def trial_of(row: Mapping[str, Any]) -> TrialRecord:
    """Returns the trial that a row of study.json describes; the inverse of `row_of`."""
    own = {name: value for name, value in row.items() if name not in ("trial", "metrics")}
    return TrialRecord(number=row["trial"], **own, epochs=EpochMetrics([row["metrics"]]))


def apply_event(trials: Trials, event: Event) -> TrialRecord | None:
    """Applies one event to the records.

    Args:
        trials: The records, which are modified.
        event: The event.

    Returns:
        The modified record; None for an event that does not concern a single trial.
    """
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
            for trial in trials.values():  # after a crash, time after the last event is not counted
                trial.counted_until = None
            return None
        case _:
            return None
    return trials[number]


def require_trial(trial: TrialRecord | None) -> TrialRecord:
    """Returns the trial; raises an error if it is None, which indicates a bug in the caller."""
    if trial is None:
        raise AssertionError("a trial event must name its trial")
    return trial


def of_kind(trials: Iterable[TrialRecord], *kinds: TrialKind) -> list[TrialRecord]:
    """Returns the trials of these kinds, in the given order."""
    return [trial for trial in trials if trial.kind in kinds]


def rank_trials(trials: Iterable[TrialRecord], metric: str, mode: str) -> list[TrialRecord]:
    """Returns the completed trials, best first; among trials with equal values, the earlier one comes first.

    Args:
        trials: The trials.
        metric: The metric that ranks the trials.
        mode: Direction in which the metric improves, `min` or `max`.
    """
    sign = -1 if mode == "max" else 1
    known = [(trial.value(metric), trial) for trial in trials]
    order = sorted((sign * value, trial.number, trial) for value, trial in known if value is not None)
    return [trial for _, _, trial in order]


def count_states(trials: Iterable[TrialRecord]) -> dict[str, int]:
    """Returns the number of trials in each state."""
    return dict(Counter(trial.state for trial in trials))


@dataclass(frozen=True)
class HoursUsed:
    """Resource hours of trials: wall time in hours, times the number of CPU cores or GPUs of each trial.

    Attributes:
        cpu: CPU hours.
        gpu: GPU hours.
    """

    cpu: float
    gpu: float

    @classmethod
    def of(cls, trials: Iterable[TrialRecord]) -> "HoursUsed":
        """Returns the total resource hours of these trials."""
        every = list(trials)
        return cls(sum(t.cpu_seconds for t in every) / 3600, sum(t.gpu_seconds for t in every) / 3600)

    def __str__(self) -> str:
        return " and ".join(
            f"{hours:.3g} {kind} hours" for kind, hours in (("CPU", self.cpu), ("GPU", self.gpu)) if hours
        )

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics for an MLflow run; GPU hours are included only if they are not zero."""
        return {"time/cpu_hours": self.cpu} | ({"time/gpu_hours": self.gpu} if self.gpu else {})


def active_seconds(events: Sequence[Event]) -> float:
    """Returns the total duration of all sessions in seconds; a session lasts from its start to its last event.

    `ReportWritten` is ignored, because a report can be regenerated long after a session has ended.

    Args:
        events: The events of the study, in order.
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
    """Returns settings as a short string, such as `step_size=0.0123 averaging=ema`."""
    return " ".join(f"{short_name(name)}={short_value(value)}" for name, value in settings.items())
