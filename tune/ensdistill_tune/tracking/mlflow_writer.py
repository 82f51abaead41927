"""MLflow itself: a parent run a study, a child run a trial, written so that all may be sent again.

A run is looked up before it is made, and of points with the same name, step, time and value MLflow keeps one; all of
these are in the event log. So what is sent twice is there once.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, assert_never

from ensdistill.runtime.secrets import without_secrets
from ensdistill_tune.credentials import whole
from ensdistill_tune.records.events import (
    EpochReported,
    ReportWritten,
    SessionEnded,
    SessionStarted,
    TeachersReady,
    TestEvaluated,
    TrialEnded,
    TrialResumed,
    TrialStarted,
)
from ensdistill_tune.records.trial_record import require_trial
from ensdistill_tune.study.study_config import StudyConfig
from ensdistill_tune.tracking.batches import MetricBuffer, log_params, log_tags, milliseconds
from ensdistill_tune.tracking.descriptions import NOTE, with_links
from ensdistill_tune.tracking.run_fields import (
    RunUpdate,
    curves_of,
    settings_of,
    settings_of_study,
    tags_of,
    teachers_of,
    totals_of,
)
from ensdistill_tune.tracking.run_index import PARENT, DeletedRunError, RunIndex, find_experiment
from ensdistill_tune.tracking.target import MlflowTarget
from ensdistill_tune.tracking.views import MlflowPages, views

if TYPE_CHECKING:
    from mlflow import MlflowClient

REFUSALS = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "BAD_REQUEST")  # that another attempt cannot fix
STATUS = {"finished": "FINISHED", "timed_out": "FINISHED", "failed": "FAILED"}  # of a run; others are KILLED


class MlflowWriter:
    """Writes updates of runs to MLflow. Every method may be called again after it failed, with the same result.

    Attributes:
        pages: Where MLflow shows the study, once it has answered; there may be two studies of one name.
        refused: What MLflow will never take, such as points of a run that was deleted.
        files: The artifacts that MLflow has, each with a hash of its content.
        steps: Number of completed steps, event by event; it grows as long as the store answers.
    """

    def __init__(self, target: MlflowTarget, study: StudyConfig) -> None:
        self.target, self.study = target, study
        self.pages: MlflowPages | None = None
        self.refused: list[str] = []
        self.files: dict[str, str] = {}
        self.steps = 0
        self._failed = False  # whether an attempt ever failed
        self._runs = RunIndex(target)
        self._metrics = MetricBuffer()
        self._client: MlflowClient | None = None

    def reset(self) -> None:
        """Forgets the connection after a failure: MLflow is asked again what it has."""
        self._failed = True
        self._client = None
        self._metrics.clear()

    def ensure_parent_run(self, *, begun: bool, since: float | None) -> bool:
        """Connects if necessary, and makes the parent run if it is missing.

        Args:
            begun: Whether events were sent before.
            since: When the study began, seconds since the epoch; None if it has not.

        Returns:
            Whether the events that were sent before, if there are any, are in this store.
        """
        if self._client is not None:
            return True
        self._connect()
        known = PARENT in self._runs
        if not known:
            self._runs.create(self._mlflow, PARENT, self.target.study, {"kind": "study", "trial": "0"}, since)
        view = f"{self.target.study}-{self.target.identity[:6]}"
        self.pages = MlflowPages(self._runs.experiment, self._runs[PARENT], view)
        for tag, content in views(self.pages, self.study).items():
            self._mlflow.set_experiment_tag(self._runs.experiment, tag, content)
        return known or not begun

    def send(self, updates: Iterable[RunUpdate]) -> None:
        """Writes updates, in their order. Raises what MLflow raises, except for what it will never take."""
        for update in updates:
            self._guarded(self._write, update)
        for run in self._metrics.runs:
            self._guarded(self._flush, run)

    def _guarded(self, call: Callable[[Any], None], what: Any) -> None:
        from mlflow.exceptions import MlflowException

        try:
            call(what)
            self.steps += 1
        except MlflowException as error:
            if error.error_code not in REFUSALS:
                raise
            find_experiment(self._mlflow, self.target)  # raises if it was deleted: nothing is lost then
            self.refused.append(" ".join(without_secrets(str(error)).split())[:200])
        except DeletedRunError as error:
            self.refused.append(str(error))

    @property
    def _mlflow(self) -> "MlflowClient":
        if self._client is None:
            raise AssertionError("nothing is written before the store has answered")
        return self._client

    def _connect(self) -> None:
        from mlflow import MlflowClient  # here: a slow import, and the study need not wait for it

        self.steps += 1
        for noisy, level in (("mlflow", "WARNING"), ("alembic", "WARNING"), ("psycopg", "ERROR")):
            logging.getLogger(noisy).setLevel(level)
        logging.getLogger("mlflow.store.db.utils").setLevel("CRITICAL")  # a traceback for every attempt
        client = MlflowClient(whole(self.target.uri))
        self._runs.connect(client)
        self._client = client
        self.steps += 1

    # --- one update ---

    def _write(self, update: RunUpdate) -> None:
        match update.event:
            case SessionStarted():
                self._continue(self._runs[PARENT])
            case TeachersReady() as event:
                self._write_study(event, update)
            case TrialStarted() as event:
                self._start_trial(event, update)
            case TrialResumed():
                self._continue(self._run(update))
            case EpochReported() as event:
                step = int(event.metrics["epoch"])
                self._metrics.add(self._run(update), curves_of(event.metrics), event.at, step)
            case TrialEnded() as event:
                self._end_trial(event, update)
            case TestEvaluated():
                pass  # its results are in files of the study
            case SessionEnded() as event:
                self._end_session(event, update)
            case ReportWritten() as event:
                self._write_files(event.note, event.files)
            case _:
                assert_never(update.event)

    def _continue(self, run: str) -> None:
        """Marks a run as running."""
        self._mlflow.update_run(run, status="RUNNING")
        log_tags(self._mlflow, run, {"outcome": "running"})

    def _write_study(self, event: TeachersReady, update: RunUpdate) -> None:
        """Writes metrics of the teachers and settings of the study to the parent run."""
        parent = self._runs[PARENT]
        self._metrics.add(parent, teachers_of(event), event.at)
        known = self._mlflow.get_run(parent).data.params  # which MLflow never changes, as a budget may
        params = {name: value for name, value in settings_of_study(self.study).items() if name not in known}
        log_params(self._mlflow, parent, params)
        log_tags(self._mlflow, parent, {"preset": self.study.preset, **update.facts})

    def _start_trial(self, event: TrialStarted, update: RunUpdate) -> None:
        """Makes a child run with the settings of the trial as params."""
        trial = require_trial(update.trial)
        if trial.number not in self._runs:
            tags = {"mlflow.parentRunId": self._runs[PARENT], "outcome": "running", **update.facts}
            tags |= tags_of(trial, self.target.study, self.study)
            self._runs.create(self._mlflow, trial.number, trial.name, tags, event.at)
        log_params(self._mlflow, self._runs[trial.number], settings_of(trial, self.study))

    def _end_trial(self, event: TrialEnded, update: RunUpdate) -> None:
        """Writes the trial's state; only one that completed has `final/...` metrics."""
        run = self._run(update)
        self._metrics.add(run, totals_of(require_trial(update.trial), event.state), event.at)
        self._flush(run)
        log_tags(self._mlflow, run, {"outcome": event.state} | ({"error": event.error} if event.error else {}))
        self._terminate(run, event.state, event.at)
        self._metrics.add(self._runs[PARENT], update.parent, event.at, update.step)

    def _end_session(self, event: SessionEnded, update: RunUpdate) -> None:
        """Writes the results of a study that has ended, or was interrupted; its files become artifacts."""
        parent = self._runs[PARENT]
        self._metrics.add(parent, event.metrics, event.at)
        self._flush(parent)
        self._add_confirmed(event.confirmed, event.at)
        best = {} if event.best is None else {"best": update.trials[event.best].name}
        log_tags(self._mlflow, parent, {"outcome": event.state, **best})
        self._write_files(event.note, event.files)
        self._terminate(parent, event.state, event.at)
        if self._failed:
            self._runs.refresh(self._mlflow)

    def _add_confirmed(self, confirmed: Mapping[int, Mapping[str, float]], at: float) -> None:
        for number, metrics in confirmed.items():
            if number in self._runs:
                self._metrics.add(self._runs[number], metrics, at)

    def _write_files(self, note: str, files: Sequence[str]) -> None:
        """Writes a new description of the study, and files that are new or have changed."""
        if note and self.pages:  # none if the report could not be made: then the last one stays
            log_tags(self._mlflow, self._runs[PARENT], {NOTE: with_links(note, self.pages)})
        for file in files:
            self._upload_if_changed(self._runs[PARENT], file)

    def _upload_if_changed(self, run: str, name: str) -> None:
        """Sends a file of the study as an artifact in the same sub-folder, unless MLflow has this content."""
        file, folder = self.target.folder / name, str(Path(name).parent)
        if not file.exists():
            return
        content = hashlib.sha256(file.read_bytes()).hexdigest()
        if self.files.get(name) != content:
            self._mlflow.log_artifact(run, str(file), None if folder == "." else folder)
            self.files[name] = content

    def _run(self, update: RunUpdate) -> str:
        return self._runs.run_of(require_trial(update.trial))

    def _flush(self, run: str) -> None:
        self._metrics.flush(self._mlflow, run)

    def _terminate(self, run: str, state: str, at: float) -> None:
        self._mlflow.set_terminated(run, STATUS.get(state, "KILLED"), milliseconds(at))
