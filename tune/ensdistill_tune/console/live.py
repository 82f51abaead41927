"""The terminal that runs a study: lines for what happened and, below them, the picture of how it stands."""

import contextlib
import time
from collections import deque
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.live import Live

from ensdistill_tune.console.snapshot import StudySnapshot
from ensdistill_tune.records.trial_record import OVER, TrialRecord, count_states
from ensdistill_tune.study.study_state import StudyState

RECENT_SECONDS = 300.0
LEAST = 10  # so often something happened before anything is said of how often it does
ENDED = 5  # trials that ended last and are shown


class Throughput:
    """How often something happens: over the last five minutes, or the last ten times if they reach further back."""

    def __init__(self) -> None:
        self._times: deque[float] = deque()

    def happens(self, at: float) -> None:
        """Once more."""
        self._times.append(at)
        while len(self._times) > LEAST + 1 and self._times[0] < at - RECENT_SECONDS:
            self._times.popleft()

    def per_second(self, now: float, least: int) -> float | None:
        """None unless it has happened at least so often since it did first."""
        often = len(self._times) - 1
        return often / (now - self._times[0]) if often >= least and now > self._times[0] else None


class RecentActivity:
    """The recent past of one session."""

    def __init__(self) -> None:
        self._epochs, self._trials, self._began = Throughput(), Throughput(), False
        self.ended: deque[TrialRecord] = deque(maxlen=ENDED)

    def reported(self, at: float) -> None:
        """An epoch was. The clock starts with the first one: that workers had to start says nothing of what comes."""
        if not self._began:
            self._began = True
            self._trials.happens(at)
        self._epochs.happens(at)

    def over(self, trial: TrialRecord, at: float) -> None:
        """A trial is, for good or for this session."""
        if trial.state in OVER:
            self.ended.append(trial)
            if self._began:
                self._trials.happens(at)

    def paces(self, now: float, trials: Sequence[TrialRecord]) -> tuple[float | None, float | None]:
        """Trials and epochs per second. Trials that began together report together, so a few reports of each of them

        are the least to go by.
        """
        running = sum(trial.state == "running" for trial in trials)
        return self._trials.per_second(now, 3), self._epochs.per_second(now, max(LEAST, 3 * running))


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

    def picture(self) -> StudySnapshot:
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
    shown = Live(get_renderable=at_work.picture, console=console, refresh_per_second=2, transient=True)
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
