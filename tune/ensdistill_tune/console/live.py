"""Live output of the process that runs a study: a line for each ended trial above the status panel."""

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from statistics import fmean

from rich.console import Console
from rich.live import Live

from ensdistill.runtime.text import counted
from ensdistill_tune.console.rendering import StudyPanel
from ensdistill_tune.console.snapshot import StudySnapshot
from ensdistill_tune.console.throughput import RecentActivity
from ensdistill_tune.formatting import fold
from ensdistill_tune.records.events import Event, RequestRefused, SettingsEnqueued, StopRequested
from ensdistill_tune.records.trial_progress import read_progress
from ensdistill_tune.records.trial_record import OVER, PRIMARY, TrialRecord, count_states, short_settings
from ensdistill_tune.study.study_config import StudyConfig
from ensdistill_tune.study.study_state import StudyState

INDENT = 10  # width of the state of a trial, below which a long line continues
LINES = 10  # maximum number of lines about replicates


class ConsoleObserver:
    """Prints a line for each ended trial of the search and a few lines for the replicates, and measures rates.

    Attributes:
        console: Console of the session.
        activity: Recent activity of the study.
    """

    def __init__(self, console: Console, study: StudyConfig) -> None:
        self.console, self.activity = console, RecentActivity()
        self._epochs, self._shown_state = study.epochs, "running"

    def trial_started(self, study: StudyState, trial: TrialRecord) -> None:
        """Prints a line when the study enters another state."""
        if study.state != self._shown_state:
            self._shown_state = study.state
            self.console.print(f"{study.state}: {counted(study.replicates_planned, 'replicate')}")

    def trial_reported(self, study: StudyState, trial: TrialRecord) -> None:
        """Records the time only, because the study waits for this call."""
        self.activity.reported(time.time())

    def trial_ended(self, study: StudyState, trial: TrialRecord) -> None:
        """Prints a line for each trial of the search, each failed replicate, and each group of finished replicates."""
        self.activity.over(trial, time.time())
        if trial.kind == "replicate":
            self._replicate_ended(study, trial)
        else:
            self._print_line(study.index.count(OVER, *PRIMARY), study.num_trials, describe(trial, study.study))

    def _replicate_ended(self, study: StudyState, trial: TrialRecord) -> None:
        total = study.replicates_planned or study.study.expected_replicates
        done = study.index.count(OVER, "replicate")
        if trial.state != "finished":
            self._print_line(done, total, describe(trial, study.study))
        if trial.state in OVER and (done == total or done % replicates_per_line(total, study.study) == 0):
            self._print_line(done, total, describe_replicates(study.replicates, study.study))

    def _print_line(self, done: int, total: int, line: str) -> None:
        text = fold(f"[{done:3d}/{total}] {line}", len(f"[{done:3d}/{total}] ") + INDENT)
        self.console.print(text, soft_wrap=not self.console.is_interactive, markup=False)

    def on_event(self, event: Event) -> None:
        """Prints the response to a request."""
        match event:
            case SettingsEnqueued(settings=settings):
                line = f"enqueued: {short_settings(settings)}"
            case StopRequested(trial=trial):
                line = "stop requested" if trial is None else f"stop requested: trial {trial:03d}, at its next report"
            case RequestRefused(reason=reason):
                line = f"request refused: {reason}"
            case _:
                return
        self.console.print(fold(line, 2), soft_wrap=True, markup=False)

    def print_resumed(self, study: StudyState) -> None:
        """Prints how many trials of a resumed study have already ended."""
        counts = sorted(count_states(study.primary_trials).items())
        before = ", ".join(f"{count} {state}" for state, count in counts)
        replicates = f" and {counted(len(study.replicates), 'replicate')}" if study.replicates else ""
        self.console.print(f"resuming after {before} of {study.num_trials} trials{replicates}")

    def snapshot(self, study: StudyState) -> StudySnapshot:
        """Returns the current state of the study. It is called by another thread, so growing lists are copied."""
        trials = list(study.trials.values())
        return StudySnapshot(
            name=study.folder.path.name,
            study=study.study,
            epochs=self._epochs,
            state=study.state,
            seconds=study.seconds,
            trials=trials,
            planned=study.replicates_planned,
            paces=self.activity.paces(time.time(), trials),
            progress=read_progress(study.folder, trials),
        )


@contextlib.contextmanager
def live(observer: ConsoleObserver, study: StudyState) -> Iterator[None]:
    """Shows the status panel below the lines while the block runs; without a terminal only lines are printed.

    Args:
        observer: Observer that prints the lines.
        study: State of the study.
    """
    if study.trials:
        observer.print_resumed(study)
    console = observer.console
    panel = Live(
        get_renderable=lambda: StudyPanel(observer.snapshot(study)),
        console=console,
        refresh_per_second=2,
        transient=True,
    )
    with panel if console.is_interactive else contextlib.nullcontext():
        yield


def describe(trial: TrialRecord, study: StudyConfig) -> str:
    """Returns the line of an ended trial: state, label, objective, broken constraints, settings."""
    if trial.state == "failed":
        return f"failed    {trial.name}: {trial.error}"
    if not trial.last:
        return f"{trial.state:9s} {trial.name}  no epoch completed"
    label, settings = (f"{trial.number:03d}", f"  {trial.settings}") if trial.kind == "search" else (trial.name, "")
    where = (
        "" if trial.state == "finished" else f" after {trial.last['epoch']:.0f} of {trial.last['epochs']:.0f} epochs"
    )
    out = f"  breaks {'; '.join(broken)}" if (broken := study.broken_by(trial.last)) else ""
    return f"{trial.state:9s} {label}  {study.objective} {trial.last[study.objective]:.4f}{where}{out}{settings}"


def replicates_per_line(total: int, study: StudyConfig) -> int:
    """Returns the number of replicates per printed line: one round of seeds, or several if there are more than ten.

    Args:
        total: Number of replicates.
        study: The settings.
    """
    seeds = max(1, study.confirmation.seeds)
    return max(1, total // seeds) * -(-seeds // LINES)


def describe_replicates(replicates: Sequence[TrialRecord], study: StudyConfig) -> str:
    """Returns one line with the mean objective of each candidate over the finished replicates."""
    values = defaultdict[str, list[float]](list)
    for trial in replicates:
        if trial.state == "finished":
            label = trial.baseline or f"{trial.replicate_of:03d}"
            values[label].append(trial.last[study.objective])
    if not values:
        return "replicates: none finished"
    means = {label: fmean(found) for label, found in values.items()}
    order = sorted(means, key=lambda label: means[label], reverse=study.mode == "max")
    return f"replicates: mean {study.objective} " + ", ".join(f"{label} {means[label]:.4f}" for label in order)
