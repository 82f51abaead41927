"""MLflow itself: a parent run a study, a child run a trial, written so that all may be sent again.

A run is looked up before it is made, and of points with the same name, step, time and value MLflow keeps one; all of
these are in the journal. So what is sent twice is there once.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, assert_never

from ensdistill.runtime.command_line import command_line, quoted
from ensdistill.runtime.secrets import without_secrets
from ensdistill_tune.credentials import whole
from ensdistill_tune.formatting import is_block
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
from ensdistill_tune.tracking.descriptions import EXPERIMENT_NOTE, NOTE, with_links
from ensdistill_tune.tracking.moved_store import relocate
from ensdistill_tune.tracking.run_fields import (
    RunUpdate,
    curves_of,
    settings_of,
    settings_of_study,
    tags_of,
    teachers_of,
    totals_of,
)
from ensdistill_tune.tracking.views import MlflowPages, views

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

POINTS, ENTRIES = 1000, 100  # sent at once: metric points, params
NAME = 250  # characters of the name of a run
LONGEST = 5000  # characters of a param or tag; MLflow refuses more
REFUSALS = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "BAD_REQUEST")  # that another attempt cannot mend
STATUS = {"finished": "FINISHED", "timed_out": "FINISHED", "failed": "FAILED"}  # of a run; others are KILLED


@dataclass(frozen=True)
class MlflowTarget:
    """Where the runs of one study go."""

    uri: str  # without credentials
    experiment: str
    study: str  # the name of the study
    identity: str  # of the study, whatever its name
    folder: Path  # of the study: relative names of artifacts start here
    artifacts: Path  # for stores that are not servers
    database: Path | None = None  # the SQLite file of a store that moves with its artifacts


class _DeletedExperimentError(Exception):
    """Somebody deleted the experiment; MLflow takes nothing for it until it is restored."""


class _DeletedRunError(Exception):
    """Somebody deleted a run of the study while it went on."""


class MlflowWriter:
    """MLflow itself. Every method may be called again after it failed at any point, with the same result."""

    def __init__(self, place: MlflowTarget, study: StudyConfig) -> None:
        self.place, self.study = place, study
        self.experiment = ""
        self.pages: MlflowPages | None = None  # once the store has answered; there may be two studies of one name
        self.refused: list[str] = []  # what MLflow will never take, such as points of a run that somebody deleted
        self.files: dict[str, str] = {}  # the artifacts that it has, each with a hash of its content
        self.steps = 0  # completed so far, event by event: grows as long as the store answers
        self._failed = False  # whether an attempt ever failed
        self._runs: dict[int, str] = {}
        self._client: MlflowClient | None = None
        self._points: dict[str, list[Metric]] = {}  # that wait, by run

    def reset(self) -> None:
        """After a failure the store is asked anew what it has."""
        self._failed = True
        self._client = None
        self._points = {}

    def ensure_parent_run(self, *, begun: bool, since: float | None) -> bool:
        """Whether what was sent before, if anything was, is in this store; makes the parent run if it is not there.

        since: when the study began, if it has.
        """
        if self._client is not None:
            return True
        self._connect()
        known = 0 in self._runs
        if not known:
            self._runs[0] = self._new_run(self.place.study, {"kind": "study", "trial": "0"}, since)
        self.pages = MlflowPages(self.experiment, self._runs[0], f"{self.place.study}-{self.place.identity[:6]}")
        for tag, view in views(self.pages, self.study).items():
            self._mlflow.set_experiment_tag(self.experiment, tag, view)
        return known or not begun

    def send(self, entries: Iterable[RunUpdate]) -> None:
        """Writes down what happened. Raises whatever MLflow raises."""
        for entry in entries:
            self._guarded(self._take, entry)
        for run in list(self._points):
            self._guarded(self._flush, run)

    def _guarded(self, call: Callable[[Any], None], what: Any) -> None:
        from mlflow.exceptions import MlflowException

        try:
            call(what)
            self.steps += 1
        except MlflowException as error:
            if error.error_code not in REFUSALS:
                raise
            self._find_experiment(self._mlflow)  # raises if it was deleted: nothing is lost then
            self.refused.append(" ".join(without_secrets(str(error)).split())[:200])
        except _DeletedRunError as error:
            self.refused.append(str(error))

    # --- events ---

    def _take(self, entry: RunUpdate) -> None:
        match entry.event:
            case SessionStarted():
                self._mlflow.update_run(self._runs[0], status="RUNNING")
                self._log_batch(self._runs[0], tags={"outcome": "running"})
            case TeachersReady() as event:
                parent, tags = self._runs[0], {"preset": self.study.preset, **entry.facts}
                self._queue_metrics(parent, teachers_of(event), event.at)
                known = self._mlflow.get_run(parent).data.params  # which MLflow never changes, as a budget may
                params = {name: value for name, value in settings_of_study(self.study).items() if name not in known}
                self._log_batch(parent, params=params, tags=tags)
            case TrialStarted() as event:
                self._start(event, entry)
            case TrialResumed():
                self._mlflow.update_run(self._run(entry), status="RUNNING")
                self._log_batch(self._run(entry), tags={"outcome": "running"})
            case EpochReported() as event:
                self._queue_metrics(self._run(entry), curves_of(event.metrics), event.at, int(event.metrics["epoch"]))
            case TrialEnded() as event:
                self._end_trial(event, entry)
            case TestEvaluated():
                pass  # its results are in files of the study
            case SessionEnded() as event:
                self._end_session(event, entry)
            case ReportWritten() as event:
                self._file(event.note, event.files)
            case _:
                assert_never(entry.event)

    def _start(self, event: TrialStarted, entry: RunUpdate) -> None:
        """A child run with the settings of the trial as parameters."""
        trial = require_trial(entry.trial)
        if trial.number not in self._runs:
            tags = {"mlflow.parentRunId": self._runs[0], "outcome": "running", **entry.facts}
            tags |= tags_of(trial, self.place.study, self.study)
            self._runs[trial.number] = self._new_run(trial.name, tags, event.at)
        self._log_batch(self._runs[trial.number], params=settings_of(trial, self.study))

    def _end_trial(self, event: TrialEnded, entry: RunUpdate) -> None:
        """The trial's honest state; only one that ran to its end gets `final/...` metrics."""
        run = self._run(entry)
        self._queue_metrics(run, totals_of(require_trial(entry.trial), event.state), event.at)
        self._flush(run)
        self._log_batch(run, tags={"outcome": event.state} | ({"error": event.error} if event.error else {}))
        self._terminate(run, event.state, event.at)
        self._queue_metrics(self._runs[0], entry.parent, event.at, entry.step)

    def _end_session(self, event: SessionEnded, entry: RunUpdate) -> None:
        """The study is over, or interrupted; its files become artifacts of the parent run."""
        parent = self._runs[0]
        self._queue_metrics(parent, event.metrics, event.at)
        self._flush(parent)
        for number, figures in event.confirmed.items():
            if number in self._runs:
                self._queue_metrics(self._runs[number], figures, event.at)
        best = {} if event.best is None else {"best": entry.trials[event.best].name}
        self._log_batch(parent, tags={"outcome": event.state, **best})
        self._file(event.note, event.files)
        self._terminate(parent, event.state, event.at)
        if self._failed:
            self._find_runs(self._mlflow)

    def _file(self, note: str, files: Sequence[str]) -> None:
        """There is a new description of the study, or there are new files."""
        if note and self.pages:  # none if the report could not be made: then the last one stays
            self._log_batch(self._runs[0], tags={NOTE: with_links(note, self.pages)})
        for file in files:
            self._upload_if_changed(self._runs[0], file)

    # --- how they are written ---

    @property
    def _mlflow(self) -> "MlflowClient":
        if self._client is None:
            raise AssertionError("nothing is written before the store has answered")
        return self._client

    def _connect(self) -> None:
        """Finds the runs of this study."""
        from mlflow import MlflowClient  # here: a slow import, and the study need not wait for it

        self.steps += 1
        for noisy, level in (("mlflow", "WARNING"), ("alembic", "WARNING"), ("psycopg", "ERROR")):
            logging.getLogger(noisy).setLevel(level)
        logging.getLogger("mlflow.store.db.utils").setLevel("CRITICAL")  # a traceback for every attempt
        client = MlflowClient(whole(self.place.uri))
        self.experiment = self._find_experiment(client)
        self._runs = self._find_runs(client)
        self._client = client
        self.steps += 1

    def _find_runs(self, client: "MlflowClient") -> dict[int, str]:
        """The runs by number of trial, 0 being the parent. Of several for one trial all but one are deleted.

        There are several if a server made a run although its answer never came: the empty one goes.
        """
        found: dict[int, list[tuple[bool, int, str]]] = {}
        token: str | None = None
        while token is None or token:
            wanted = f"tags.study_id = '{self.place.identity}'"
            runs = client.search_runs([self.experiment], wanted, max_results=1000, page_token=token)
            for run in runs:
                number, known = int(run.data.tags["trial"]), self._runs.values()
                own = (run.info.run_id in known, len(run.data.metrics), str(run.info.run_id))
                found.setdefault(number, []).append(own)
            token = runs.token or ""
        for several in found.values():
            several.sort()
            for _, _, ghost in several[:-1]:
                client.delete_run(ghost)
        return {number: several[-1][2] for number, several in found.items()}

    def _find_experiment(self, client: "MlflowClient") -> str:
        own = None if self.place.uri.startswith("http") else self.place.artifacts.resolve().as_uri()
        known = client.get_experiment_by_name(self.place.experiment)
        if known is not None and known.lifecycle_stage == "deleted":
            raise _DeletedExperimentError(_deleted(self.place, known.experiment_id))
        if known is not None:
            old = str(known.artifact_location)
            if self.place.database and own and old != own and old.endswith(f"/{self.place.artifacts.name}"):
                relocate(self.place.database, old, own)
            return str(known.experiment_id)
        tags = {NOTE: EXPERIMENT_NOTE}
        return str(client.create_experiment(self.place.experiment, artifact_location=own, tags=tags))

    def _run(self, entry: RunUpdate) -> str:
        """The run of the trial that an event is about."""
        trial = require_trial(entry.trial)
        if trial.number not in self._runs:
            raise _DeletedRunError(f"the run of trial {trial.name} was deleted")
        return self._runs[trial.number]

    def _new_run(self, name: str, tags: dict[str, str], at: float | None) -> str:
        tags = {"study": self.place.study, "study_id": self.place.identity, **tags}
        start = None if at is None else _milliseconds(at)
        run = self._mlflow.create_run(self.experiment, start_time=start, run_name=name[:NAME], tags=tags)
        return str(run.info.run_id)

    def _queue_metrics(self, run: str, metrics: Mapping[str, float], at: float, step: int = 0) -> None:
        from mlflow.entities import Metric

        points = [Metric(name, float(value), _milliseconds(at), step) for name, value in metrics.items()]
        self._points.setdefault(run, []).extend(points)

    def _flush(self, run: str) -> None:
        points = self._points.pop(run, [])
        for start in range(0, len(points), POINTS):
            self._mlflow.log_batch(run, metrics=points[start : start + POINTS])

    def _log_batch(
        self, run: str, params: Mapping[str, Any] | None = None, tags: Mapping[str, Any] | None = None
    ) -> None:
        from mlflow.entities import Param, RunTag

        entries = [Param(name, _told(value)) for name, value in (params or {}).items()]
        for start in range(0, len(entries), ENTRIES):
            self._mlflow.log_batch(run, params=entries[start : start + ENTRIES])
        if tags:
            self._mlflow.log_batch(run, tags=[RunTag(name, _told(value)) for name, value in tags.items()])

    def _upload_if_changed(self, run: str, name: str) -> None:
        """A file of the study as an artifact, in the same sub-folder, unless MLflow has it as it is."""
        file, folder = self.place.folder / name, str(Path(name).parent)
        if not file.exists():
            return
        content = hashlib.sha256(file.read_bytes()).hexdigest()
        if self.files.get(name) != content:
            self._mlflow.log_artifact(run, str(file), None if folder == "." else folder)
            self.files[name] = content

    def _terminate(self, run: str, state: str, at: float) -> None:
        self._mlflow.set_terminated(run, STATUS.get(state, "KILLED"), _milliseconds(at))


def _deleted(place: MlflowTarget, experiment: str) -> str:
    """The two ways to continue after the experiment of a study was deleted."""
    store = quoted(f"MLFLOW_TRACKING_URI={place.uri}")
    change = ("--set", "tracking.experiment=NAME")
    other = command_line("ensdistill-tune", "resume", place.study, options=[change], studies=place.folder.parent)
    return (
        f"the experiment {place.experiment} was deleted in MLflow: restore it with `env {store} mlflow experiments "
        f"restore --experiment-id {experiment}`, or use another one with `{other}`"
    )


def _told(value: Any) -> str:
    """The text of a param or tag."""
    return without_secrets(json.dumps(value) if is_block(value) else str(value))[:LONGEST]


def _milliseconds(at: float) -> int:
    return round(at * 1000)
