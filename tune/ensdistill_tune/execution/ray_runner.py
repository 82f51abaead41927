"""Runs the trials of a study with Ray Tune; the planner serves as Tune's searcher and scheduler."""

import contextlib
import re
import shutil
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.tune.stopper import Stopper

from ensdistill.data import DataSplits
from ensdistill.errors import MachineError
from ensdistill.methods.members import TeacherEnsemble
from ensdistill_tune.execution.environment import environment_variable
from ensdistill_tune.execution.executor import TrialReports, outcome
from ensdistill_tune.execution.latency_meter import latency_meter
from ensdistill_tune.execution.ray_nodes import study_machine
from ensdistill_tune.execution.ray_resources import parallel_slots
from ensdistill_tune.execution.ray_trainable import run_in_worker
from ensdistill_tune.execution.requests import StudyRequests
from ensdistill_tune.execution.shared_inputs import SharedInputs
from ensdistill_tune.execution.trial_planner import PlannerIdle, TrialPlanner, TrialRequest
from ensdistill_tune.records.events import State
from ensdistill_tune.records.trial_record import EPOCHS, TrialRecord
from ensdistill_tune.search.decision import Decision
from ensdistill_tune.study.study_state import StudyState


def run_trials(progress: StudyState, data: DataSplits, ensemble: TeacherEnsemble, curve: Sequence[float]) -> str:
    """Runs all remaining trials on the cluster. A failed trial does not end the study.

    Args:
        progress: State of the study.
        data: Splits of the study.
        ensemble: The teachers.
        curve: Calibrated NLL on the validation images in nats, for ensembles of 1, 2, ..., M teachers.

    Returns:
        `finished`, `timed_out` or `interrupted`.
    """
    study = progress.study
    slots = study.resources.max_concurrent or parallel_slots(study)
    reports = TrialReports(TrialPlanner(progress, slots, latency_meter(progress, data)))
    inputs = SharedInputs.of(study, progress.folder, data, ensemble, curve)
    at_once = environment_variable("TUNE_MAX_PENDING_TRIALS_PG", str(MAX_PENDING))  # Tune's default: 1
    with study_machine(progress.folder.path) as machine, at_once, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tuner = _tuner(reports, tune.with_parameters(run_in_worker, inputs=inputs, machine=machine))
        with contextlib.suppress(KeyboardInterrupt, SystemExit), _raising(reports):
            tuner.fit()
    ended = outcome(reports.agenda)  # after an interrupt, Ray's `fit` returns without an error
    if ended == "finished":
        shutil.rmtree(_home(progress), ignore_errors=True)
    return ended


def _home(progress: StudyState) -> Path:
    """Returns the folder that Ray Tune uses; it contains only workers' error messages, which no later session reads."""
    return progress.folder.path.resolve() / "ray"


def _tuner(reports: TrialReports, trainable: Any) -> tune.Tuner:
    progress, given = reports.agenda.progress, reports.agenda.study.resources
    return tune.Tuner(
        tune.with_resources(trainable, {"cpu": given.cpus, "gpu": given.gpus}),
        tune_config=tune.TuneConfig(
            search_alg=_PlannerSearcher(reports),
            scheduler=_PlannerScheduler(reports),
            num_samples=-1,
            time_budget_s=progress.seconds_left,
            reuse_actors=True,
            trial_dirname_creator=_folder_of,
        ),
        run_config=tune.RunConfig(
            name=_home(progress).name,
            storage_path=str(_home(progress).parent),
            callbacks=[_PlannerCallback(reports)],
            verbose=0,
            stop=_PlannerStopper(StudyRequests(reports.agenda), reports),
            failure_config=tune.FailureConfig(max_failures=given.max_retries),
        ),
    )


@contextlib.contextmanager
def _raising(reports: TrialReports) -> Iterator[None]:
    """Raises the error of the study, if there is one, instead of the error that Ray raises as a consequence."""
    try:
        yield
    except Exception as error:
        raise reports.error or error from None
    if reports.error:
        raise reports.error


MISSING = re.compile("No module named '?ensdistill")
INSTALL = "Install ensdistill there, in the same version as on the machine that runs the study."
MAX_PENDING = 1000  # maximum number of pending trials in Tune; the planner limits the trials to the free slots
SLOTS_SECONDS = 2.0  # seconds between two counts of the cluster's slots


def _folder_of(trial: Any) -> str:
    return f"{trial.config['number']:05d}-{trial.trial_id}"


class _NotPickled:
    """Base class of objects that Ray would pickle to disk; their pickled state is empty."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _PlannerSearcher(_NotPickled, Searcher):
    """Adapts the planner to Ray's searcher interface: returns the next trial."""

    def __init__(self, reports: TrialReports) -> None:
        super().__init__()
        self.reports, self.agenda = reports, reports.agenda

    def suggest(self, trial_id: str) -> Any:
        """Returns the next trial; None if it depends on a running trial."""
        suggestion: TrialRequest | PlannerIdle = "done"
        with self.reports.guarded():
            suggestion = suggestion if self.reports.error else self.agenda.next()
        if isinstance(suggestion, str):
            return Searcher.FINISHED if suggestion == "done" else None
        return suggestion

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Does nothing: `_PlannerCallback` reports the end to the planner."""

    def save(self, checkpoint_path: str) -> None:
        """Does nothing: the state is in the event log."""

    def restore(self, checkpoint_path: str) -> None:
        """Does nothing: the state is in the event log."""


class _PlannerScheduler(_NotPickled, FIFOScheduler):
    """Adapts the planner to Ray's scheduler interface: decides whether a trial continues."""

    def __init__(self, reports: TrialReports) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.reports, self._keeps_workers = reports, False

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Records the start of a trial, or its restart after its process died."""
        if not self._keeps_workers:
            _keep_workers(tune_controller, trial)
            self._keeps_workers = True
        self.reports.begins(trial.config["number"])

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Passes a report to the planner. Also stops a completed trial, whose end Ray would detect only later."""
        decision = self.reports.take(trial.config["number"], result)
        return str(TrialScheduler.CONTINUE if decision is Decision.CONTINUE else TrialScheduler.STOP)


def _keep_workers(tune_controller: Any, trial: Any) -> None:
    """Keeps all worker processes if several trials end together; by default, Tune keeps one and stops the others.

    Starting a process takes one to two CPU seconds. In a Ray version without `_actor_cache`, the other processes are
    stopped and started again.
    """
    if cache := getattr(tune_controller, "_actor_cache", None):
        cache.increase_max(trial.placement_group_factory, by=MAX_PENDING)


class _PlannerStopper(_NotPickled, Stopper):
    """Handles requests, and stops the study if a request requires it. Tune calls `stop_all` in its event loop."""

    def __init__(self, requests: StudyRequests, reports: TrialReports) -> None:
        self.requests, self.reports, self._due = requests, reports, time.monotonic() + SLOTS_SECONDS

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Returns False, because `_PlannerScheduler` stops individual trials."""
        return False

    def stop_all(self) -> bool:
        """Returns whether the study must stop."""
        self._count_slots()
        stopped = False
        with self.reports.guarded():
            stopped = self.requests.stop_study()
        return stopped or self.reports.error is not None

    def _count_slots(self) -> None:
        """Adapts the number of parallel trials when machines join or leave; trials from lost machines restart first."""
        agenda = self.reports.agenda
        if time.monotonic() >= self._due and agenda.study.resources.max_concurrent is None:
            agenda.slots = max(1, parallel_slots(agenda.study))
            self._due = time.monotonic() + SLOTS_SECONDS


class _PlannerCallback(_NotPickled, tune.Callback):
    """Reports the end of each trial to the planner."""

    def __init__(self, reports: TrialReports) -> None:
        self.reports, self.agenda = reports, reports.agenda
        self._lost = Counter[int]()  # number of processes that died before their trial started, keyed by trial
        self._replaced = set[str]()  # identifiers of Ray trials that another Ray trial has replaced

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Records trials that failed because their actor was still busy; Ray calls no callback for these failures."""
        for trial in trials:
            failed = trial.status == trial.ERROR and trial.trial_id not in self._replaced
            if failed and self._record(trial).state == "running":  # the error file is read once, not at every step
                self._ended(trial, "failed", _worker_error(trial))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Removes the recorded epochs from the result, because Ray keeps the last result of each trial in memory."""
        result.pop(EPOCHS, None)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Records the end of a trial that completed or was stopped."""
        self._ended(trial, "pruned", None)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Records a failure that Ray will not retry: the process died too often, or before the trial started."""
        record = self._record(trial)
        again = trial.should_recover() and self._lost[record.number] < self.agenda.study.resources.max_retries
        if again and record.state == "running" and not record.whole:
            self._lost[record.number] += 1
            self._replaced.add(trial.trial_id)
            with self.reports.guarded():
                self.agenda.trial_lost(record.number)
        else:
            self._ended(trial, "failed", _worker_error(trial))

    def _ended(self, trial: Any, otherwise: State, error: str | None) -> None:
        if error and MISSING.search(error):  # the trial could not start, so its worker cannot report the error
            with self.reports.guarded():
                raise MachineError(f"a machine that joined the cluster cannot run trials ({error}). {INSTALL}")
        self.reports.ended(trial.config["number"], otherwise, error, "worker")

    def _record(self, trial: Any) -> TrialRecord:
        return self.agenda.progress.trials[trial.config["number"]]


def _worker_error(trial: Any) -> str:
    try:
        lines = [line.strip() for line in Path(trial.error_file).read_text().splitlines() if line.strip()]
    except (OSError, TypeError):
        return "the worker process died"
    if "worker process has died" in lines[-1]:
        return "the worker process died: it crashed, or was killed, possibly by the operating system (out of memory)"
    if "actor is temporarily unavailable" in lines[-1]:
        return "the worker process, or its machine, is no longer reachable"
    if "reset_config()" in lines[-1]:
        return "the worker process was still busy with the previous trial after TUNE_FUNCTION_THREAD_TIMEOUT_S seconds"
    return lines[-1].removeprefix("ensdistill.errors.")
