"""The terminal that runs a study: a line for each trial and, below the lines, the status panel."""

import contextlib
import time
from collections.abc import Iterator

from rich.console import Console
from rich.live import Live

from ensdistill_tune.console.rendering import StudyPanel
from ensdistill_tune.console.snapshot import StudySnapshot
from ensdistill_tune.console.throughput import RecentActivity
from ensdistill_tune.records.events import Event, RequestRefused, SettingsEnqueued, StopRequested
from ensdistill_tune.records.trial_progress import read_progress
from ensdistill_tune.records.trial_record import OVER, TrialRecord, count_states, short_settings
from ensdistill_tune.study.study_config import StudyConfig
from ensdistill_tune.study.study_state import StudyState


class ConsoleObserver:
    """Prints a line for each trial that ends, and measures how fast the study of this process runs.

    Attributes:
        console: Where the lines go.
        activity: What happened lately.
    """

    def __init__(self, console: Console, study: StudyConfig) -> None:
        self.console, self.activity = console, RecentActivity()
        self._epochs, self._shown_state = study.epochs, "running"

    def trial_started(self, study: StudyState, trial: TrialRecord) -> None:
        """Prints a line if another state of the study begins with it."""
        if study.state != self._shown_state:
            self._shown_state = study.state
            self.console.print(f"{study.state}: {study.replicates_planned} repeats")

    def trial_reported(self, study: StudyState, trial: TrialRecord) -> None:
        """Takes the time, no more: the study waits for it."""
        self.activity.reported(time.time())

    def trial_ended(self, study: StudyState, trial: TrialRecord) -> None:
        """Prints its line."""
        self.activity.over(trial, time.time())
        among, total = study.primary_trials, study.num_trials
        if trial.replicate_of is not None:
            among, total = study.replicates, study.replicates_planned or study.study.expected_replicates
        done = sum(other.state in OVER for other in among)
        line = describe(trial, study.study)
        self.console.print(f"[{done:3d}/{total}] {line}", soft_wrap=not self.console.is_interactive, markup=False)

    def on_event(self, event: Event) -> None:
        """Prints the answer to a request."""
        match event:
            case SettingsEnqueued(settings=settings):
                line = f"enqueued: {short_settings(settings)}"
            case StopRequested(trial=trial):
                line = "stop requested" if trial is None else f"stop requested: trial {trial:03d}, at its next report"
            case RequestRefused(reason=reason):
                line = f"request refused: {reason}"
            case _:
                return
        self.console.print(line, soft_wrap=True, markup=False)

    def print_resumed(self, study: StudyState) -> None:
        """Prints how many trials a study that is resumed has already."""
        counts = sorted(count_states(study.primary_trials).items())
        before = ", ".join(f"{count} {state}" for state, count in counts)
        replicates = f" and {len(study.replicates)} of the repeats" if study.replicates else ""
        self.console.print(f"going on after {before} of {study.num_trials} trials{replicates}")

    def snapshot(self, study: StudyState) -> StudySnapshot:
        """Returns the study at this moment. Another thread calls it: what may grow in the meantime is copied first."""
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
    """Inside the block the panel of a study is shown below its lines; without a terminal there are lines only.

    Args:
        observer: One of the observers of the study.
        study: The study.
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
    """One ended trial in one line, with the constraints that it breaks."""
    if trial.state == "failed":
        return f"failed    {trial.name}: {trial.error}"
    if not trial.last:
        return f"{trial.state:9s} {trial.name}  no epoch done"
    where = (
        "" if trial.state == "finished" else f" after {trial.last['epoch']:.0f} of {trial.last['epochs']:.0f} epochs"
    )
    out = f"  breaks {'; '.join(broken)}" if (broken := study.broken_by(trial.last)) else ""
    return f"{trial.state:9s} {trial.name}  {study.objective} {trial.last[study.objective]:.4f}{where}{out}"
