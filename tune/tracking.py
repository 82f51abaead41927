"""MLflow: one parent run a study, one child run a trial, written in batches from the driver."""

import logging
import os
import time
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # nothing is reported to anybody
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # seconds, not minutes, for a server that is gone

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException

from ensdistill.config import flatten
from ensdistill.errors import DataError
from tune.comparison import TAG, final_metric, page, view_state
from tune.record import TrialRecord
from tune.space import Study

for noisy in ("mlflow", "alembic"):
    logging.getLogger(noisy).setLevel(logging.WARNING)

EXPERIMENT = "ensdistill"
FLUSH_SECONDS = 2.0  # metrics of a running trial wait at most so long
STATUS = {
    "finished": "FINISHED",
    "pruned": "KILLED",
    "failed": "FAILED",
    "interrupted": "KILLED",
    "out_of_time": "FINISHED",
}


def default_uri(studies: Path) -> str:
    """One SQLite store for all studies of a folder, so that they can be compared."""
    return f"sqlite:///{(studies / 'mlflow.db').resolve()}"


def _spared(method: Callable[..., None]) -> Callable[..., None]:
    """A study outlives its tracking: the first failure is kept in `trouble`, and nothing more is logged."""

    @wraps(method)
    def guarded(tracker: "Tracker", *arguments: Any, **named: Any) -> None:
        if tracker.trouble is None:
            try:
                method(tracker, *arguments, **named)
            except (MlflowException, OSError) as error:
                tracker.trouble = str(error).splitlines()[0]

    return guarded


class Tracker:
    """The MLflow side of one study. Runs in the driver only, which makes the database before any worker starts.

    Raises DataError at once if the store cannot be used; what fails later is kept in `trouble`.
    """

    def __init__(self, uri: str, study: str, artifacts: Path) -> None:
        self.uri, self.study = uri, study
        self.trouble: str | None = None
        try:
            self.client = MlflowClient(uri)
            self.experiment = self._experiment(artifacts)
        except (MlflowException, OSError, ImportError) as error:
            reason = str(error).splitlines()[0]
            raise DataError(f"--tracking-uri {uri}: MLflow cannot use it ({reason})") from error
        self.parent = ""
        self._runs: dict[int, str] = {}
        self._waiting: dict[int, list[Metric]] = {}
        self._flushed = time.monotonic()

    def _experiment(self, artifacts: Path) -> str:
        known = self.client.get_experiment_by_name(EXPERIMENT)
        if known is not None:
            return str(known.experiment_id)
        place = artifacts.resolve().as_uri() if self.uri.startswith("sqlite") else None
        return str(self.client.create_experiment(EXPERIMENT, artifact_location=place))

    @_spared
    def start_study(self, study: Study, metrics: Mapping[str, float], tags: Mapping[str, str]) -> None:
        """Opens the parent run, with the settings of the study as parameters."""
        run = self.client.create_run(
            self.experiment, run_name=self.study, tags={"kind": "study", "study": self.study, **tags}
        )
        self.parent = run.info.run_id
        self.client.set_experiment_tag(self.experiment, TAG + self.study, view_state(self.parent, study))
        self._log(
            self.parent,
            [_metric(name, value) for name, value in metrics.items()],
            flatten(study.model_dump(mode="json", exclude_none=True)),
        )

    @_spared
    def trial_started(self, trial: TrialRecord, settings: dict[str, Any]) -> None:
        """Opens a child run with all its settings as parameters."""
        tags = {
            "mlflow.parentRunId": self.parent,
            "kind": "trial" if trial.confirms is None else "confirmation",
            "study": self.study,
            "outcome": "running",
            "trial": str(trial.number),
            "baseline": trial.baseline or "",
            "confirms": "" if trial.confirms is None else str(trial.confirms),
            "config_hash": trial.config_hash,
        }
        run = self.client.create_run(self.experiment, run_name=trial.name, tags=tags)
        self._runs[trial.number] = run.info.run_id
        self._log(run.info.run_id, [], settings)

    @_spared
    def trial_reported(self, trial: TrialRecord) -> None:
        """Takes the last report of a trial; written soon, together with others."""
        step = int(trial.last["epoch"])
        points = [_metric(name, value, step) for name, value in trial.last.items() if "/" in name]
        self._waiting.setdefault(trial.number, []).extend(points)
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    @_spared
    def trial_ended(self, trial: TrialRecord) -> None:
        """Closes a child run in its honest state; only a trial that ran to its end gets `final/...` metrics."""
        self.flush(trial.number)
        run = self._runs[trial.number]
        if trial.state == "finished":
            finals = {final_metric(name): value for name, value in trial.last.items() if name.startswith("val/")}
            self._log(run, [_metric(name, value) for name, value in finals.items()], {})
        self.client.set_tag(run, "outcome", trial.state)
        if trial.error:
            self.client.set_tag(run, "error", trial.error)
        self.client.set_terminated(run, STATUS[trial.state])

    def flush(self, number: int | None = None) -> None:
        """Writes what waits, of one trial or of all."""
        for which in [number] if number is not None else list(self._waiting):
            if points := self._waiting.pop(which, []):
                self._log(self._runs[which], points, {})
        if number is None:
            self._flushed = time.monotonic()

    @_spared
    def end_study(self, state: str, metrics: Mapping[str, float], tags: Mapping[str, str], files: list[Path]) -> None:
        """Closes the parent run with its results; files become its artifacts."""
        self._log(self.parent, [_metric(name, value) for name, value in metrics.items()], {})
        for name, value in {"outcome": state, **tags}.items():
            self.client.set_tag(self.parent, name, value)
        for file in files:
            self.client.log_artifact(self.parent, str(file))
        self.client.set_terminated(self.parent, STATUS[state])

    def link(self, address: str) -> str:
        """The page that compares this study's trials, on a server at this address."""
        return page(address, self.experiment, self.study)

    def _log(self, run: str, metrics: list[Metric], params: Mapping[str, Any]) -> None:
        for start in range(0, max(len(metrics), 1), 1000):
            batch = metrics[start : start + 1000]
            entries = [Param(name, str(value)) for name, value in params.items()] if start == 0 else []
            self.client.log_batch(run, metrics=batch, params=entries)


def _metric(name: str, value: float, step: int = 0) -> Metric:
    return Metric(name, float(value), int(time.time() * 1000), step)
