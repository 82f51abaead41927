"""The terminal that runs a study: lines for what happened and, below them, the picture of how it stands."""

import contextlib
import time
from collections.abc import Iterator

from rich.console import Console
from rich.live import Live

from ensdistill_tune.console.rendering import StudyPanel
from ensdistill_tune.console.snapshot import StudySnapshot
from ensdistill_tune.console.throughput import RecentActivity
from ensdistill_tune.records.trial_record import OVER, TrialRecord, count_states
from ensdistill_tune.study.study_state import StudyState


class ConsoleObserver:
    """The study of this process: tells of trials that end, and knows the picture."""

    def __init__(self, console: Console, progress: StudyState) -> None:
        self.console, self.progress, self.lately = console, progress, RecentActivity()
        self._epochs, self._state = progress.study.epochs, progress.state
        if progress.trials:
            before = ", ".join(
                f"{count} {state}" for state, count in sorted(count_states(progress.primary_trials).items())
            )
            replicates = f" and {len(progress.replicates)} of the repeats" if progress.replicates else ""
            console.print(f"going on after {before} of {progress.num_trials} trials{replicates}")

    def trial_started(self, trial: TrialRecord) -> None:
        """Prints a line if something else than before begins with it."""
        if self.progress.state != self._state:
            self._state = self.progress.state
            self.console.print(f"{self._state}: {self.progress.replicates_planned} repeats")

    def trial_reported(self, trial: TrialRecord) -> None:
        """Takes the time, no more: the study waits for it."""
        self.lately.reported(time.time())

    def trial_ended(self, trial: TrialRecord) -> None:
        """Prints its line."""
        progress = self.progress
        self.lately.over(trial, time.time())
        among, total = progress.primary_trials, progress.num_trials
        if trial.replicate_of is not None:
            among, total = progress.replicates, progress.replicates_planned or progress.study.expected_replicates
        done = sum(other.state in OVER for other in among)
        line = describe(trial, progress.study.objective)
        self.console.print(f"[{done:3d}/{total}] {line}", soft_wrap=not self.console.is_interactive, markup=False)

    def snapshot(self) -> StudySnapshot:
        """How the study stands. Another thread asks: everything that may grow meanwhile is copied first."""
        progress, trials = self.progress, list(self.progress.trials.values())
        return StudySnapshot(
            name=progress.folder.path.name,
            study=progress.study,
            epochs=self._epochs,
            state=progress.state,
            seconds=progress.seconds,
            trials=trials,
            planned=progress.replicates_planned,
            paces=self.lately.paces(time.time(), trials),
        )


@contextlib.contextmanager
def live(console: Console, progress: StudyState) -> Iterator[ConsoleObserver]:
    """Inside the block the study of this process is shown; without a terminal there are lines only."""
    at_work = ConsoleObserver(console, progress)
    shown = Live(
        get_renderable=lambda: StudyPanel(at_work.snapshot()), console=console, refresh_per_second=2, transient=True
    )
    with shown if console.is_interactive else contextlib.nullcontext():
        yield at_work


def describe(trial: TrialRecord, objective: str) -> str:
    """One ended trial in one line."""
    if trial.state == "failed":
        return f"failed    {trial.name}: {trial.error}"
    if not trial.last:
        return f"{trial.state:9s} {trial.name}  no epoch done"
    where = (
        "" if trial.state == "finished" else f" after {trial.last['epoch']:.0f} of {trial.last['epochs']:.0f} epochs"
    )
    return f"{trial.state:9s} {trial.name}  {objective} {trial.last[objective]:.4f}{where}"
