"""Writes the events of a study to MLflow."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from ensdistill_tune.metric_names import replicate_metric
from ensdistill_tune.records.events import (
    EpochReported,
    LatencyMeasured,
    ReportWritten,
    RequestRefused,
    SessionEnded,
    SessionStarted,
    SettingsEnqueued,
    StopRequested,
    TeachersReady,
    TestEvaluated,
    TrialEnded,
    TrialResumed,
    TrialStarted,
)
from ensdistill_tune.records.trial_record import TrialRecord, require_trial
from ensdistill_tune.study.study_config import StudyConfig
from ensdistill_tune.tracking.batches import MetricBuffer, log_params, log_tags, milliseconds
from ensdistill_tune.tracking.confirmed_figure import NAME as FIGURE
from ensdistill_tune.tracking.confirmed_figure import confirmed_figure
from ensdistill_tune.tracking.descriptions import NOTE, with_links
from ensdistill_tune.tracking.provenance import dataset_input, source_tags
from ensdistill_tune.tracking.run_fields import (
    RunUpdate,
    curves_of,
    outcome_of,
    settings_of,
    settings_of_study,
    tags_of,
    teachers_of,
    totals_of,
)
from ensdistill_tune.tracking.run_index import NAME, PARENT, RESULT, RunIndex
from ensdistill_tune.tracking.standing import description, run_name
from ensdistill_tune.tracking.target import MlflowTarget
from ensdistill_tune.tracking.views import MlflowPages, views

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput

STATUS = {"finished": "FINISHED", "timed_out": "FINISHED", "failed": "FAILED"}  # all other states become KILLED


class EventWriter:
    """Writes events over one connection. Propagates MLflow errors; the caller may then write the same events again.

    Attributes:
        client: The connection.
        target: Store and experiment that contain the runs.
        study: The settings of the study.
        pages: The MLflow pages of the study.
        files: Content hashes of the artifacts that MLflow has received, keyed by file name.
    """

    def __init__(
        self,
        client: "MlflowClient",
        runs: RunIndex,
        target: MlflowTarget,
        study: StudyConfig,
        pages: MlflowPages,
        files: dict[str, str],
    ) -> None:
        self.target, self.study, self.pages, self.files = target, study, pages, files
        self.client, self._runs, self._metrics = client, runs, MetricBuffer()
        self._data: DatasetInput | None = None  # the same for all runs

    @property
    def unsent(self) -> list[str]:
        """The runs with pending metrics."""
        return self._metrics.runs

    def flush(self, run: str) -> None:
        """Sends the pending metrics of a run."""
        self._metrics.flush(self.client, run)

    def write(self, update: RunUpdate) -> None:
        """Writes one event; its metrics may stay pending until `flush`."""
        match update.event:
            case SessionStarted():
                self._continue(self._runs[PARENT])
                self._write_views()
            case TeachersReady() as event:
                self._write_study(event, update)
            case TrialStarted() as event:
                self._start_trial(event, update)
            case TrialResumed():
                self._continue(self._run(update))
            case EpochReported() as event:
                step = int(event.metrics["epoch"])
                self._metrics.add(self._run(update), curves_of(event.metrics, self.study), event.at, step)
            case TrialEnded() as event:
                self._end_trial(event, update)
            case TestEvaluated() | LatencyMeasured() | SettingsEnqueued() | StopRequested() | RequestRefused():
                pass  # MLflow receives their content in files, in metrics of trials or with later events
            case SessionEnded() as event:
                self._end_session(event, update)
            case ReportWritten() as event:
                self._write_files(event.note, event.files)
            case _:
                assert_never(update.event)

    def _continue(self, run: str) -> None:
        """Marks a run as running."""
        self.client.update_run(run, status="RUNNING")
        log_tags(self.client, run, {"outcome": "running"})

    def _write_study(self, event: TeachersReady, update: RunUpdate) -> None:
        """Writes the metrics of the teachers and the settings of the study to the parent run."""
        parent = self._runs[PARENT]
        self._metrics.add(parent, teachers_of(event), event.at)
        # Existing params are skipped: MLflow refuses changed values, but a study can be resumed with another budget.
        known = self.client.get_run(parent).data.params
        params = {name: value for name, value in settings_of_study(self.study).items() if name not in known}
        log_params(self.client, parent, params)
        log_tags(self.client, parent, {"preset": self.study.preset, **update.facts, **source_tags(update.facts)})
        self._write_data(parent, update)

    def _write_data(self, run: str, update: RunUpdate) -> None:
        """Logs the data set as an input of a run. MLflow keeps one entry for each data set."""
        if digest := update.facts.get("data_hash"):
            self._data = self._data or dataset_input(self.study, digest)
            self.client.log_inputs(run, [self._data])

    def _start_trial(self, event: TrialStarted, update: RunUpdate) -> None:
        """Creates a child run with the settings of the trial as params."""
        trial = require_trial(update.trial)
        settings = settings_of(trial, self.study)
        if trial.number not in self._runs:
            tags = {"mlflow.parentRunId": self._runs[PARENT], "outcome": "running", **update.facts}
            tags |= tags_of(trial, self.target.study, self.study, settings) | source_tags(update.facts)
            tags[NOTE] = description(trial)
            self._runs.create(self.client, trial.number, trial.name, tags, event.at)
        log_params(self.client, self._runs[trial.number], settings)
        self._write_data(self._runs[trial.number], update)

    def _end_trial(self, event: TrialEnded, update: RunUpdate) -> None:
        """Writes the state of the trial; only a completed trial has `final/...` metrics."""
        run, trial = self._run(update), require_trial(update.trial)
        self._metrics.add(run, totals_of(trial, event.state, self.study), event.at)
        self._metrics.flush(self.client, run, outcome_of(trial, event.state, event.error, self.study))
        self._terminate(run, event.state, event.at)
        self._add_replicate(trial, event)
        self._metrics.add(self._runs[PARENT], update.parent, event.at, update.step)

    def _add_replicate(self, trial: TrialRecord, event: TrialEnded) -> None:
        """Adds the objective value of a finished replicate to the curve of its candidate, with the seed as the step."""
        original = trial.replicate_of
        if event.state == "finished" and original is not None and original in self._runs:
            point = {replicate_metric(self.study.objective): trial.last[self.study.objective]}
            self._metrics.add(self._runs[original], point, event.at, trial.seed or 0)

    def _end_session(self, event: SessionEnded, update: RunUpdate) -> None:
        """Writes the results of a session and uploads its files as artifacts."""
        parent = self._runs[PARENT]
        self._metrics.add(parent, event.metrics, event.at)
        self.flush(parent)
        self._add_confirmed(event.confirmed, event.at)
        best = {} if event.best is None else {"best": update.trials[event.best].name}
        log_tags(self.client, parent, {"outcome": event.state, **best})
        self._write_standings(update)
        self._write_files(event.note, event.files)
        self._terminate(parent, event.state, event.at)

    def _add_confirmed(self, confirmed: Mapping[int, Mapping[str, float]], at: float) -> None:
        for number, metrics in confirmed.items():
            if number in self._runs:
                self._metrics.add(self._runs[number], metrics, at)

    def _write_standings(self, update: RunUpdate) -> None:
        """Marks the winner and the confirmed trials, removes older marks, and sorts the saved view."""
        here = {self._runs[number] for number in update.standings if number in self._runs}
        for number, run in list(self._runs.marked(self.client)):
            if run not in here:
                self._mark(run, update.trials[number], "", description(update.trials[number]))
        for number, own in update.standings.items():
            if number in self._runs:
                self._mark(self._runs[number], update.trials[number], own.result, own.sentence)
        values = {own.label: own.values for own in update.standings.values() if own.values}
        if values:
            self.client.log_text(self._runs[PARENT], confirmed_figure(self.study.objective, values), FIGURE)
        self._write_views(confirmed=bool(values))

    def _mark(self, run: str, trial: TrialRecord, result: str, sentence: str) -> None:
        """Writes the standing of a trial to its run."""
        log_tags(self.client, run, {RESULT: result, NOTE: sentence})
        self.client.update_run(run, name=run_name(trial, result)[:NAME])

    def _write_views(self, *, confirmed: bool = False) -> None:
        for tag, content in views(self.pages, self.study, confirmed=confirmed).items():
            self.client.set_experiment_tag(self.pages.experiment, tag, content)

    def _write_files(self, note: str, files: Sequence[str]) -> None:
        """Writes a new description of the study and uploads new or changed files."""
        if note:  # empty if the report could not be written; the previous description then stays
            log_tags(self.client, self._runs[PARENT], {NOTE: with_links(note, self.pages)})
        for file in files:
            self._upload_if_changed(self._runs[PARENT], file)

    def _upload_if_changed(self, run: str, name: str) -> None:
        """Uploads a file of the study as an artifact in the same sub-folder, unless MLflow already has this content."""
        file, folder = self.target.folder / name, str(Path(name).parent)
        if not file.exists():
            return
        content = hashlib.sha256(file.read_bytes()).hexdigest()
        if self.files.get(name) != content:
            self.client.log_artifact(run, str(file), None if folder == "." else folder)
            self.files[name] = content

    def _run(self, update: RunUpdate) -> str:
        return self._runs.run_of(require_trial(update.trial))

    def _terminate(self, run: str, state: str, at: float) -> None:
        self.client.set_terminated(run, STATUS.get(state, "KILLED"), milliseconds(at))
