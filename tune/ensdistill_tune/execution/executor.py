"""Code shared by all executors, for passing reports to the planner, determining the outcome and handling signals."""

from __future__ import annotations

import contextlib
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ensdistill.errors import EnsdistillError, MachineError
from ensdistill_tune.records.events import State
from ensdistill_tune.records.trial_record import EPOCHS, FAILURE, FAILURE_KIND
from ensdistill_tune.search.decision import Decision

if TYPE_CHECKING:
    from ensdistill.data import DataSplits
    from ensdistill.methods.members import TeacherEnsemble
    from ensdistill.training.teachers import Trainer
    from ensdistill_tune.execution.trial_planner import TrialPlanner
    from ensdistill_tune.study.study_config import Resources, StudyConfig
    from ensdistill_tune.study.study_state import StudyState

Name = Literal["ray", "inline"]
NAMES: tuple[Name, ...] = ("ray", "inline")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
ALL_FAIL = 10  # a study stops if at least this many trials fail before any trial completes an epoch


@dataclass(frozen=True)
class Executor:
    """A way to run the trials of a study.

    Attributes:
        session: Function that takes the settings and the folder of the study. It returns a context manager within
            which teachers are trained and trials are run.
        teacher_trainer: Function that takes the resources of a trial and the value of `--device`. It returns the
            function that trains missing teachers.
        run_trials: Function that runs all remaining trials and returns `finished`, `timed_out` or `interrupted`. A
            failed trial does not end the study. The last argument of `run_trials` is the calibrated NLL on the
            validation images, for ensembles of 1, 2, ..., M teachers.
    """

    session: Callable[[StudyConfig, Path], AbstractContextManager[None]]
    teacher_trainer: Callable[[Resources, str], Trainer]
    run_trials: Callable[[StudyState, DataSplits, TeacherEnsemble, Sequence[float]], str]


class TrialReports:
    """Passes reports from trials to the planner.

    Attributes:
        agenda: The planner.
        error: The error that stops the study; None if no error has occurred. The study can be resumed after the error.
    """

    def __init__(self, agenda: TrialPlanner) -> None:
        self.agenda = agenda
        self.error: EnsdistillError | None = None
        self._began: dict[int, float] = {}
        self._failures: int | None = 0  # number of failed trials; None once a trial has completed an epoch

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """Stores an EnsdistillError in `error`, because Ray would replace the error with a traceback."""
        try:
            yield
        except EnsdistillError as error:
            self.error = self.error or error

    def begins(self, number: int) -> None:
        """Records the start of a trial, or its restart after its process died."""
        self._began[number] = time.perf_counter()

    def take(self, number: int, report: dict[str, Any]) -> Decision:
        """Records a report and returns whether the trial continues.

        Args:
            number: The trial.
            report: `EPOCHS` contains the metrics of each epoch since the last report; `FAILURE` and `FAILURE_KIND` are
                present if the trial failed. Epochs after the decision to stop the trial are ignored.
        """
        with self.guarded():
            if not self.error:
                return self._take(number, report)
        return Decision.STOP

    def _take(self, number: int, report: dict[str, Any]) -> Decision:
        epochs = report[EPOCHS]
        if epochs and (began := self._began.pop(number, None)) is not None:
            trained = sum(metrics["time/epoch_seconds"] for metrics in epochs)
            epochs[0]["time/overhead_seconds"] = time.perf_counter() - began - trained
        self._failures = None if epochs else self._failures
        if any(self._decide(number, metrics) is Decision.STOP for metrics in epochs):
            return Decision.STOP
        if report.get(FAILURE_KIND) == MachineError.__name__:
            raise MachineError(report[FAILURE])
        if FAILURE in report:
            self._fail(number, report[FAILURE], report[FAILURE_KIND])
            return Decision.STOP
        return Decision.stop_if(self.agenda.progress.trials[number].whole)

    def ended(self, number: int, otherwise: State, error: str | None = None, error_kind: str | None = None) -> None:
        """Records the end of a running trial.

        Args:
            number: The trial.
            otherwise: Final state if the last epoch was not reported; if it was, the final state is `finished`.
            error: Reason for a failure, as a message for the user.
            error_kind: Kind of the failure.
        """
        trial = self.agenda.progress.trials[number]
        if trial.state == "running" and not self.error:
            state: State = "finished" if trial.whole else otherwise
            with self.guarded():
                if state == "failed":
                    self._fail(number, error, error_kind)
                else:
                    self.agenda.end(number, state)

    def _fail(self, number: int, error: str | None, error_kind: str | None) -> None:
        """Records a failed trial; raises MachineError if many trials have failed and none has completed an epoch."""
        self.agenda.end(number, "failed", error, error_kind)
        if self._failures is None:
            return
        self._failures += 1
        if self._failures >= max(ALL_FAIL, 3 * self.agenda.slots):  # fewer failures may be due to unsuitable settings
            words = f"{self._failures} trials have failed and none has completed an epoch"
            raise MachineError(f"{words}; the last error is: {error}; fix the cause")

    def _decide(self, number: int, metrics: dict[str, float]) -> Decision:
        odd = {name: value for name, value in metrics.items() if not math.isfinite(value)}
        if needed := [name for name in odd if name in self.agenda.study.display_metrics]:
            error = f"{needed[0]} became {odd[needed[0]]} in epoch {metrics['epoch']:.0f}"
            self.agenda.end(number, "failed", error, "not_finite")
            return Decision.STOP
        # JSON cannot represent infinite or NaN values. Names are interned, because each Ray message contains copies of
        # the names.
        finite = {sys.intern(name): value for name, value in metrics.items() if name not in odd}
        return self.agenda.report(number, finite)


def outcome(agenda: TrialPlanner) -> str:
    """Marks running trials as interrupted and returns `finished`, `timed_out` or `interrupted`."""
    for trial in agenda.progress.running:
        agenda.end(trial.number, "interrupted")
    if agenda.done:
        return "finished"
    return "timed_out" if agenda.progress.out_of_time else "interrupted"


@contextlib.contextmanager
def signals_restored() -> Iterator[None]:
    """Restores signal handlers after the block: Ray and Tune install handlers and do not remove them.

    Does nothing outside the main thread, where no handler can be installed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # None if the handler was not installed by Python
                signal.signal(number, handler)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Makes SIGTERM, which batch systems and container runtimes send, raise KeyboardInterrupt inside the block.

    Does nothing outside the main thread, where Python cannot handle signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt
