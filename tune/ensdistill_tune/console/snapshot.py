"""The state of a study at one moment, as data for the terminal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ensdistill_tune.records.events import State
from ensdistill_tune.records.trial_progress import TrialProgress
from ensdistill_tune.records.trial_record import PRIMARY, TrialRecord, of_kind
from ensdistill_tune.study.study_config import StudyConfig

OPEN: tuple[State, ...] = ("running", "interrupted")  # states of trials that run or may continue


@dataclass(frozen=True)
class StudySnapshot:
    """State of a study at one moment.

    Attributes:
        name: Name of the study.
        study: Settings of the study.
        epochs: Number of epochs of a complete trial.
        state: State of the study, as in study.json.
        seconds: Total duration of all sessions in seconds.
        trials: All trials, in the order of their numbers.
        planned: Maximum number of replicates; 0 until it is known.
        paces: Recent rates, in trials per second and epochs per second; None for a rate that is not known yet.
        ended: The trials that ended most recently; empty if they are not shown.
        resume: The command that resumes the study; None if it is not shown.
        winner: Number of the trial that won the confirmation; None before the end of the confirmation, or if no
            candidate won.
        progress: Progress of running trials within a long epoch, keyed by trial number.
    """

    name: str
    study: StudyConfig
    epochs: int
    state: str
    seconds: float
    trials: Sequence[TrialRecord]
    planned: int
    paces: tuple[float | None, float | None]
    ended: Sequence[TrialRecord] = ()
    resume: str | None = None
    winner: int | None = None
    progress: Mapping[int, TrialProgress] = field(default_factory=dict)

    @property
    def primary_trials(self) -> list[TrialRecord]:
        """Trials of the search, including baselines."""
        return of_kind(self.trials, *PRIMARY)

    @property
    def search_trials(self) -> list[TrialRecord]:
        """Trials of the search without the baselines."""
        return of_kind(self.trials, "search")

    @property
    def replicates(self) -> list[TrialRecord]:
        """Trials of the confirmation."""
        return of_kind(self.trials, "replicate")

    @property
    def replicates_expected(self) -> int:
        """Maximum number of replicates; before it is known, the number expected from the settings."""
        return self.planned or self.study.expected_replicates

    @property
    def open(self) -> list[TrialRecord]:
        """Running trials, followed by interrupted trials."""
        return sorted((t for t in self.trials if t.state in OPEN), key=lambda t: (OPEN.index(t.state), t.number))


def epoch_of(trial: TrialRecord) -> int:
    """Returns the number of completed epochs of a trial, including those of its parent."""
    return int(trial.last.get("epoch", first_epoch_of(trial)))


def first_epoch_of(trial: TrialRecord) -> int:
    """Returns the number of epochs that a trial inherits from its parent; 0 without a parent."""
    return int(trial.schedule[-1]["after_epoch"]) if trial.parent else 0
