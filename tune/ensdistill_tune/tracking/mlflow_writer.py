"""Writes a parent run for each study and a child run for each trial. Every write may be repeated.

A run is created only if a lookup does not find it. MLflow stores points with the same name, step, time and value only
once, and the event log determines all four. An event that is sent twice is therefore stored only once.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ensdistill.runtime.secrets import without_secrets
from ensdistill.runtime.text import printable
from ensdistill_tune.credentials import whole
from ensdistill_tune.records.events import SessionEnded
from ensdistill_tune.study.study_config import StudyConfig
from ensdistill_tune.tracking.default_store import enable_write_ahead_log
from ensdistill_tune.tracking.event_writer import EventWriter
from ensdistill_tune.tracking.provenance import KIND, KIND_TAG
from ensdistill_tune.tracking.run_fields import RunUpdate
from ensdistill_tune.tracking.run_index import PARENT, DeletedRunError, RunIndex, find_experiment
from ensdistill_tune.tracking.target import MlflowTarget
from ensdistill_tune.tracking.views import MlflowPages, views

if TYPE_CHECKING:
    from mlflow import MlflowClient

REFUSALS = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "BAD_REQUEST")  # another attempt would also fail


class MlflowWriter:
    """Writes updates of runs to MLflow. Every method may be called again after a failure, with the same result.

    Attributes:
        pages: The MLflow pages of the study; None before MLflow has answered.
        refused: Reasons why MLflow permanently refused entries, such as points of a deleted run.
        files: Content hashes of the artifacts that MLflow has received, keyed by file name.
        steps: Number of completed operations, such as writing one event; it increases as long as the store responds.
    """

    def __init__(self, target: MlflowTarget, study: StudyConfig) -> None:
        self.target, self.study = target, study
        self.pages: MlflowPages | None = None
        self.refused: list[str] = []
        self.files: dict[str, str] = {}
        self.steps = 0
        self._failed = False  # whether any attempt has failed
        self._runs = RunIndex(target)
        self._events: EventWriter | None = None  # None while disconnected

    def reset(self) -> None:
        """Drops the connection after a failure; the next call looks up the runs again."""
        self._failed = True
        self._events = None

    def ensure_parent_run(self, *, begun: bool, since: float | None) -> bool:
        """Connects if necessary, and creates the parent run if it is missing.

        Args:
            begun: Whether events were sent before.
            since: Start of the study in seconds since 1970; None before the start.

        Returns:
            Whether this store contains all events that were sent before; also True if none were sent.
        """
        if self._events is not None:
            return True
        client = self._connect()
        known = PARENT in self._runs
        if not known:
            self._runs.create(client, PARENT, self.target.study, {"kind": "study", "trial": "0"}, since)
        view = f"{self.target.study}-{self.target.identity[:6]}"
        self.pages = MlflowPages(self._runs.experiment, self._runs[PARENT], view)
        self._add_missing_tags(client, {KIND_TAG: KIND} | views(self.pages, self.study))
        self._events = EventWriter(client, self._runs, self.target, self.study, self.pages, self.files)
        return known or not begun

    def _add_missing_tags(self, client: "MlflowClient", tags: Mapping[str, str]) -> None:
        """Sets the tags that the experiment lacks; later events update the tags of the saved views."""
        known = client.get_experiment(self._runs.experiment).tags
        for tag in tags.keys() - known.keys():
            client.set_experiment_tag(self._runs.experiment, tag, tags[tag])
            self.steps += 1

    def send(self, updates: Iterable[RunUpdate]) -> None:
        """Writes updates in order. Raises MLflow errors, except for permanent refusals."""
        for update in updates:
            self._guarded(self._write, update)
        for run in self._events.unsent if self._events else []:
            self._guarded(self._connected.flush, run)

    def _write(self, update: RunUpdate) -> None:
        self._connected.write(update)
        if isinstance(update.event, SessionEnded) and self._failed:  # a failed attempt may have created a second run
            self._runs.refresh(self._connected.client)

    def _guarded(self, call: Callable[[Any], None], what: Any) -> None:
        from mlflow.exceptions import MlflowException

        try:
            call(what)
            self.steps += 1
        except MlflowException as error:
            if error.error_code not in REFUSALS:
                raise
            find_experiment(
                self._connected.client, self.target
            )  # raises an error if the experiment was deleted; the events then stay pending
            self.refused.append(printable(" ".join(without_secrets(str(error)).split()))[:200])
        except DeletedRunError as error:
            self.refused.append(str(error))

    @property
    def _connected(self) -> EventWriter:
        if self._events is None:
            raise AssertionError("send() requires a connection")
        return self._events

    def _connect(self) -> "MlflowClient":
        from mlflow import MlflowClient  # slow, so imported in this thread; the study does not wait for it

        self.steps += 1
        for noisy, level in (("mlflow", "WARNING"), ("alembic", "WARNING"), ("psycopg", "ERROR")):
            logging.getLogger(noisy).setLevel(level)
        logging.getLogger("mlflow.store.db.utils").setLevel("CRITICAL")  # otherwise every attempt logs a traceback
        if self.target.database is not None:
            enable_write_ahead_log(self.target.database)
        client = MlflowClient(whole(self.target.uri))
        self._runs.connect(client)
        self.steps += 1
        return client
