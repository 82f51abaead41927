"""Live output of the process that runs a study: a line for each ended trial above the status panel."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from statistics import fmean

from rich.console import Console
from rich.live import Live

from ensdistill.runtime.text import counted, printable_lines
from ensdistill_tune.analysis.confirmation import Stage, confirmation_of
from ensdistill_tune.analysis.replication import Candidate
from ensdistill_tune.console.rendering import StudyPanel
from ensdistill_tune.console.snapshot import StudySnapshot
from ensdistill_tune.console.throughput import RecentActivity
from ensdistill_tune.formatting import fold
from ensdistill_tune.records.events import Event, RequestRefused, SettingsEnqueued, StopRequested
from ensdistill_tune.records.trial_progress import read_progress
from ensdistill_tune.records.trial_record import OVER, PRIMARY, TrialRecord, count_states, short_settings
from ensdistill_tune.study.study_config import StudyConfig
from ensdistill_tune.study.study_state import StudyState

INDENT = 10  # width of a trial's state; continuation lines of a long message are indented by this width


class ConsoleObserver:
    """Prints a line for each ended trial of the search and each stage of the confirmation; records activity.

    Attributes:
        console: Console of the session.
        activity: Recent activity of the study.
    """

    def __init__(self, console: Console, study: StudyConfig) -> None:
        self.console, self.activity = console, RecentActivity()
        self._epochs, self._shown_state = study.epochs, "running"
        self._shown_stages = list[Stage]()

    def trial_started(self, study: StudyState, trial: TrialRecord) -> None:
        """Prints a line if the state of the study has changed."""
        if study.state != self._shown_state:
            self._shown_state = study.state
            self.console.print(f"{study.state}: at most {counted(study.replicates_planned, 'replicate')}")

    def trial_reported(self, study: StudyState, trial: TrialRecord) -> None:
        """Records only the time; the study waits for this call, so it must be fast."""
        self.activity.reported(time.time())

    def trial_ended(self, study: StudyState, trial: TrialRecord) -> None:
        """Prints a line for each trial of the search, each failed replicate, and each stage of the confirmation."""
        self.activity.over(trial, time.time())
        if trial.kind == "replicate":
            self._replicate_ended(study, trial)
        else:
            self._print_line(study.index.count(OVER, *PRIMARY), study.num_trials, describe(trial, study.study))

    def _replicate_ended(self, study: StudyState, trial: TrialRecord) -> None:
        so_far = confirmation_of(study.primary_trials, study.replicates, study.study)
        total = study.replicates_planned or study.study.expected_replicates
        done = study.index.count(OVER, "replicate")
        if study.state == "confirming" and not so_far.todo:
            total = so_far.planned  # the verdict was reached before the budget was used up
        total = max(total, done)  # failed replicates may be repeated
        if trial.state != "finished":
            self._print_line(done, total, describe(trial, study.study))
        for stage in so_far.stages if study.state == "confirming" else ():  # before that, candidates may change
            if stage not in self._shown_stages:
                self._shown_stages.append(stage)
                self._print_line(done, total, describe_stage(stage, so_far.candidates, study.study))

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
        self._shown_stages += confirmation_of(study.primary_trials, study.replicates, study.study).stages
        self.console.print(f"resuming after {before} of {study.num_trials} trials{replicates}")

    def snapshot(self, study: StudyState) -> StudySnapshot:
        """Returns the current state of the study. Copies growing lists, because another thread calls this method."""
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
    """Shows the status panel below the printed lines while the block runs; without a terminal, the panel is omitted.

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
    """Returns the line for an ended trial: state, label, objective, broken constraints and settings."""
    if trial.state == "failed":
        return f"failed    {trial.name}: {printable_lines(trial.error or '')}"
    if not trial.last:
        return f"{trial.state:9s} {trial.name}  no epoch completed"
    label, settings = (f"{trial.number:03d}", f"  {trial.settings}") if trial.kind == "search" else (trial.name, "")
    where = (
        "" if trial.state == "finished" else f" after {trial.last['epoch']:.0f} of {trial.last['epochs']:.0f} epochs"
    )
    out = f"  breaks {'; '.join(broken)}" if (broken := study.broken_by(trial.last)) else ""
    return f"{trial.state:9s} {label}  {study.objective} {trial.last[study.objective]:.4f}{where}{out}{settings}"


def describe_stage(stage: Stage, candidates: Sequence[Candidate], study: StudyConfig) -> str:
    """Returns the line for a confirmation stage: the mean objective of each candidate, and the dropped candidates.

    Args:
        stage: The stage.
        candidates: All candidates.
        study: The settings.
    """
    names = {c.trial.number: c.trial.baseline or c.label for c in candidates}
    own = [c for c in candidates if len(c.replicates) >= stage.seeds]
    means = {c.trial.number: fmean(c.values(study.objective)[: stage.seeds]) for c in own}
    order = sorted(means, key=lambda number: means[number], reverse=study.mode == "max")
    figures = ", ".join(f"{names[number]} {means[number]:.4f}" for number in order)
    dropped = f"; dropped: {', '.join(names.get(number, str(number)) for number in stage.dropped)}"
    decided = f"; decided: {names.get(stage.leader, stage.leader)} is {stage.outcome}"
    return (
        f"after {counted(stage.seeds, 'seed')}: mean {study.objective} {figures}"
        + (dropped if stage.dropped else "")
        + (decided if stage.outcome != "undecided" else "")
    )
