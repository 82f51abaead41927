"""One session of a study: starts the executor, prepares data and teachers, then runs the phases.

Importing this module does not import PyTorch, so that Ray can start before and during that import.
"""

from __future__ import annotations

import contextlib
import importlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ensdistill.runtime.fast_imports import fast_imports
from ensdistill.runtime.progress_bar import note
from ensdistill.runtime.text import counted
from ensdistill_tune.analysis.trial_warnings import trial_warnings
from ensdistill_tune.console.live import ConsoleObserver
from ensdistill_tune.execution.executor import Executor, Name
from ensdistill_tune.records.event_log import scan_log
from ensdistill_tune.study.study_config import StudyConfig
from ensdistill_tune.study.study_location import StudyLocation
from ensdistill_tune.study.study_state import EventObserver, StudyObserver, StudyState
from ensdistill_tune.tracking.target import MlflowTarget, check_uri, store_of
from ensdistill_tune.tracking.tracker import MlflowTracker

if TYPE_CHECKING:
    from ensdistill_tune.phases import SessionContext

AHEAD = ("ensdistill_tune.phases", "mlflow")  # modules that are imported while Ray starts


def open_study(
    study: StudyConfig,
    place: StudyLocation,
    header: dict[str, Any],
    observers: Sequence[StudyObserver] = (),
    followers: Sequence[EventObserver] = (),
) -> tuple[StudyState, MlflowTracker]:
    """Opens the event log of a study; an incomplete last record is removed and reported.

    Args:
        study: The settings.
        place: Location of the study; this process must hold the lock of the study.
        header: Constant part of study.json.
        observers: Observers of the trials.
        followers: Additional observers of the event log.

    Returns:
        The state read from the event log, and the tracker that follows the log. The tracker sends nothing until
        `start` is called.
    """
    state = StudyState(study, place.folder, header, trial_warnings, observers=observers)
    if state.removed_bytes:
        removed = f"an incomplete last record ({counted(state.removed_bytes, 'byte')}) was removed"
        note(f"{place.folder.journal}: {removed}; it was left by a crash")
    target = MlflowTarget.of_study(study, place.studies, place.name, header["study_id"])
    tracker = MlflowTracker(target, study, state.past)
    state.log_observers = [tracker, *followers]
    return state, tracker


@dataclass(frozen=True)
class StudySession:
    """One session of a study, from its start or resumption to its end or interruption.

    Attributes:
        study: The settings.
        place: Location of the study.
        header: Constant part of study.json.
        console: Console for all output.
        executor: Name of the executor that trains teachers and runs trials.
        before: Previous content of study.json if the study is resumed.
        reevaluate_test: Whether the test set is evaluated again if it was already evaluated for other students.
        observers: Additional observers of the trials.
    """

    study: StudyConfig
    place: StudyLocation
    header: dict[str, Any]
    console: Console
    executor: Name
    before: dict[str, Any] = field(default_factory=dict)
    reevaluate_test: bool = False
    observers: Sequence[StudyObserver] = ()

    def run(self) -> str:
        """Runs all phases and returns how the session ended.

        Raises:
            ConfigError: The MLflow store cannot be used.
            DataError: The data or the teachers differ from those of an earlier session.
        """
        uri = store_of(self.study, self.place.studies)
        check_uri(uri)
        header = self.header | {"tracking_uri": uri}
        with fast_imports():
            executor = executor_of(self.executor)
        threading.Thread(target=_import_ahead, daemon=True).start()
        with self.place.folder.held(), contextlib.ExitStack() as stack:
            self.place.folder.inbox.drop_stops()  # these requests were meant for an earlier session
            scan_log(self.place.folder.journal)  # an unreadable log must raise its error before teachers are trained
            with self._marked_as_running(header):
                with fast_imports():
                    stack.enter_context(executor.session(self.study, self.place.home))
                    from ensdistill_tune.phases import run_phases  # imported here, because it imports torch
                context = self._prepare(header, executor)
            return run_phases(context)

    @contextlib.contextmanager
    def _marked_as_running(self, header: dict[str, Any]) -> Iterator[None]:
        """Sets the state in study.json to `training_teachers`; restores the previous content after an error."""
        known = {"counts": {}, "best": None} | self.before | header
        self.place.folder.write_summary(known | {"state": "training_teachers", "total": self.study.num_trials})
        try:
            yield
        except BaseException:
            if self.before:
                self.place.folder.write_summary(self.before)
            raise

    def _prepare(self, header: dict[str, Any], executor: Executor) -> SessionContext:
        from ensdistill_tune.execution.study_inputs import prepare  # imported here, because both import torch
        from ensdistill_tune.phases import SessionContext

        inputs = prepare(self.study, self.place, executor, header)
        observer = ConsoleObserver(self.console, self.study)
        state, tracker = open_study(self.study, self.place, inputs.header, [observer, *self.observers], [observer])
        tracker.start()
        return SessionContext(state, inputs, executor, tracker, observer, self.reevaluate_test)


def _import_ahead() -> None:
    """Imports slow modules while Ray starts, because this process only waits then. Later imports raise errors again."""
    with fast_imports():
        for name in AHEAD:
            with contextlib.suppress(Exception):
                importlib.import_module(name)


def executor_of(name: Name) -> Executor:
    """Returns the executor with this name. Ray is imported only for the `ray` executor."""
    if name == "inline":
        from ensdistill_tune.execution.inline_runner import INLINE

        return INLINE
    from ensdistill_tune.execution.ray_executor import RAY

    return RAY
