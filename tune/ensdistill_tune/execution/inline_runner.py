"""Runs the trials of a study in this process, one after the other, without Ray."""

import contextlib
import gc
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ensdistill.data import DataSplits
from ensdistill.methods.members import TeacherEnsemble
from ensdistill.training.teachers import Trainer, train_teachers
from ensdistill_tune.execution.executor import Executor, TrialReports, interruptible, outcome
from ensdistill_tune.execution.latency_meter import latency_meter
from ensdistill_tune.execution.requests import StudyRequests
from ensdistill_tune.execution.shared_inputs import SharedInputs
from ensdistill_tune.execution.trial_planner import TrialPlanner
from ensdistill_tune.execution.worker import run_trial
from ensdistill_tune.search.decision import Decision
from ensdistill_tune.study.study_config import Resources, StudyConfig
from ensdistill_tune.study.study_state import StudyState


class _StoppedError(Exception):
    """Raised inside a trial's report call to end the trial."""


@contextlib.contextmanager
def _session(study: StudyConfig, home: Path) -> Iterator[None]:
    with interruptible():
        yield


def _teacher_trainer(given: Resources, device: str) -> Trainer:
    return train_teachers


def _run_trials(progress: StudyState, data: DataSplits, ensemble: TeacherEnsemble, curve: Sequence[float]) -> str:
    agenda = TrialPlanner(progress, 1, latency_meter(progress, data))
    inputs, reports = SharedInputs.of(progress.study, progress.folder, data, ensemble, curve), TrialReports(agenda)
    ends = _Ends(progress, StudyRequests(agenda), reports)
    try:
        with contextlib.suppress(KeyboardInterrupt, SystemExit):
            while not ends() and isinstance(suggestion := agenda.next(), dict):
                _run(suggestion, inputs, reports, ends)
    finally:
        gc.unfreeze()  # undoes the `gc.freeze` in `memory_limit`, because this process may outlive the study
    if reports.error:
        raise reports.error
    return outcome(agenda)


@dataclass(frozen=True)
class _Ends:
    """Tests whether the study must end because its time budget is spent, a stop was requested, or an error occurred."""

    progress: StudyState
    requests: StudyRequests
    reports: TrialReports

    def __call__(self) -> bool:
        return bool(self.reports.error) or self.progress.out_of_time or self.requests.stop_study()


def _run(suggestion: dict[str, Any], inputs: SharedInputs, reports: TrialReports, ends: _Ends) -> None:
    number, error, kind = suggestion["number"], None, None

    def report(message: dict[str, Any]) -> None:
        if reports.take(number, message) is Decision.STOP:
            raise _StoppedError
        if ends():
            reports.agenda.end(number, "interrupted")
            raise _StoppedError

    reports.begins(number)
    try:
        run_trial(suggestion, inputs, report)
    except _StoppedError:
        pass
    except Exception as failure:  # a custom model may raise any error: the trial fails, the study continues
        error = traceback.format_exception_only(failure)[-1].strip().removeprefix("ensdistill.errors.")
        kind = type(failure).__name__
    reports.ended(number, "failed" if error else "pruned", error, kind)


INLINE = Executor(_session, _teacher_trainer, _run_trials)
