"""Live view of a study that runs in another process, based on the files of the study."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.live import Live

from ensdistill.settings.validation import validate
from ensdistill_tune.console.remaining import estimate_remaining
from ensdistill_tune.console.rendering import StudyPanel
from ensdistill_tune.console.snapshot import StudySnapshot, epoch_of
from ensdistill_tune.console.throughput import RecentActivity
from ensdistill_tune.records.event_log import check_format, damage, read_event
from ensdistill_tune.records.events import EpochReported, Event, SessionStarted, TrialEnded
from ensdistill_tune.records.log_records import LogEnd
from ensdistill_tune.records.study_directory import StudyDirectory
from ensdistill_tune.records.trial_progress import read_progress
from ensdistill_tune.records.trial_record import UNDER_WAY, Trials, apply_event, require_trial
from ensdistill_tune.study.study_config import StudyConfig

TEACHERS = UNDER_WAY[0]  # state of a study while teachers are trained; no trial runs yet
TICK_SECONDS = 1.0  # time between two snapshots


class StudyFollower:
    """Follows a study that runs in any process. Each snapshot reads only the new part of the event log.

    Attributes:
        folder: Folder of the study.
        resume: The command that resumes the study.
    """

    def __init__(self, folder: StudyDirectory, resume: str) -> None:
        self.folder, self.resume = folder, resume
        self._study = validate(StudyConfig, folder.read_summary()["study"])
        self._epochs = self._study.epochs
        self._read, self._trials, self._lately = LogEnd(), Trials(), RecentActivity()
        # duration of earlier sessions; times of the first and the last event of the current session
        self._before, self._began, self._last = 0.0, 0.0, 0.0

    def snapshot(self) -> StudySnapshot:
        """Returns the current state of the study.

        Raises:
            DataError: A file of the study is missing or damaged.
        """
        summary = self.folder.read_summary()  # read before the log, so that no event of an ended study is missed
        for event in self._new_events():
            self._apply(event)
        at_work = summary["state"] in UNDER_WAY and summary["state"] != TEACHERS
        now = time.time() if at_work else self._last
        if not at_work:
            self._mark_interrupted()
        trials = list(self._trials.values())
        return StudySnapshot(
            name=self.folder.path.name,
            study=self._study,
            epochs=self._epochs,
            state=summary["state"],
            seconds=self._before + now - self._began,
            trials=trials,
            planned=summary.get("replicates_planned", 0),
            ended=tuple(reversed(self._lately.ended)),
            resume=self.resume,
            winner=(summary["best"] or {}).get("replicate_of"),
            paces=self._lately.paces(now, trials) if at_work else (None, None),
            progress=read_progress(self.folder, trials) if at_work else {},
        )

    def summary(self) -> dict[str, Any]:
        """Returns the content of study.json together with the current times, rates and running trials."""
        now, objective = self.snapshot(), self._study.objective
        images = sum(progress.images_per_second for progress in now.progress.values())
        (trials, epochs), seconds_left = now.paces, estimate_remaining(now)
        running = [
            {
                "trial": t.number,
                "name": t.name,
                "epoch": epoch_of(t),
                "epochs": self._epochs,
                "value": t.last.get(objective),
                "progress": asdict(now.progress[t.number]) if t.number in now.progress else None,
            }
            for t in now.open
            if t.state == "running"
        ]
        return self.folder.read_summary() | {
            "seconds": round(now.seconds, 1),
            "seconds_left": seconds_left and round(seconds_left, 1),
            "rate": {
                "trials_per_minute": trials and 60 * trials,
                "epochs_per_second": epochs,
                "images_per_second": images or None,
            },
            "running": running,
        }

    def _new_events(self) -> Iterator[Event]:
        """Yields the events of new complete lines; an incomplete last line is read later."""
        with contextlib.suppress(FileNotFoundError), self.folder.journal.open("rb") as file:
            file.seek(self._read.size)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                is_first = not self._read.records
                if is_first:
                    check_format(self.folder.journal, line)
                if (end := self._read.after(line)) is None:
                    raise damage(self.folder.journal, self._read)
                self._read = end
                if not is_first:
                    yield read_event(line, f"{self.folder.journal}, line {end.records}")

    def _apply(self, event: Event) -> None:
        if isinstance(event, SessionStarted):
            self._before, self._began = self._before + self._last - self._began, event.at
            self._lately = RecentActivity()
            self._mark_interrupted()
        self._last = event.at
        trial = apply_event(self._trials, event)
        match event:
            case EpochReported():
                require_trial(trial).epochs.forget_earlier()  # saves memory: earlier epochs are not shown
                self._lately.reported(event.at)
            case TrialEnded():
                self._lately.over(require_trial(trial), event.at)

    def _mark_interrupted(self) -> None:
        for trial in self._trials.values():
            trial.state = "interrupted" if trial.state == "running" else trial.state


def follow(console: Console, study: StudyFollower) -> None:
    """Shows the status panel until the study ends or Ctrl-C is pressed; the last panel stays on the screen.

    Args:
        console: A terminal.
        study: The study.
    """
    now = study.snapshot()
    with contextlib.suppress(KeyboardInterrupt), Live(StudyPanel(now), console=console, auto_refresh=False) as shown:
        while now.state in UNDER_WAY:
            time.sleep(TICK_SECONDS)
            now = study.snapshot()
            shown.update(StudyPanel(now), refresh=True)
