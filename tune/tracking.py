"""MLflow: one parent run a study, one child run a trial, written in batches by a thread that follows the journal.

The study never waits for MLflow: what a server does not take stays in the journal and is sent when it answers again,
in this process or in a later one. What is sent twice is there once: a run is looked up before it is made, and of points
with the same name, step, time and value MLflow keeps one. All of these are in the journal.
"""

import importlib.util
import json
import logging
import os
import queue
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ensdistill.config import flatten
from ensdistill.errors import ConfigError
from ensdistill.files import write_json
from tune.comparison import TAG, final_metric, page, view_state
from tune.journal import Event
from tune.record import TrialRecord, Trials, counts, follow, ranked
from tune.space import Study

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # nothing is reported to anybody
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # the thread tries again by itself
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")  # seconds

FLUSH_SECONDS = 2.0  # events wait at most so long before they are sent together
RETRY_SECONDS = (2.0, 30.0)  # between attempts while MLflow does not answer: at first, and at most
PATIENCE_SECONDS = (20.0, 5.0)  # that the end of a study waits for a sign of MLflow: if all was well, and if not
POINTS, ENTRIES, EVENTS = 1000, 100, 200  # sent at once: metric points, params or tags, events of the journal
LONGEST = 5000  # characters of a param or tag; MLflow refuses more
STATUS = {"finished": "FINISHED", "out_of_time": "FINISHED", "failed": "FAILED"}  # of a run; others are KILLED
DRIVERS = {"postgresql": "psycopg2", "mysql": "MySQLdb"}  # what SQLAlchemy imports if the URI names no driver


def default_uri(studies: Path) -> str:
    """One SQLite store for all studies of a folder, so that they can be compared."""
    return f"sqlite:///{(studies / 'mlflow.db').resolve()}"


def check_uri(uri: str) -> None:
    """Raises ConfigError if this can be no store of MLflow's; whether it answers is another matter."""
    scheme, colon, rest = uri.partition("://")
    dialect, _, driver = scheme.partition("+")
    if not colon or dialect not in ("sqlite", "postgresql", "mysql", "mssql", "http", "https"):
        raise ConfigError(
            f"tracking.uri {uri}: no store of MLflow's; give http://HOST:PORT, postgresql://..., or sqlite:////FOLDER/mlflow.db"
        )
    if dialect == "sqlite" and not Path(rest.removeprefix("/")).parent.is_dir():
        raise ConfigError(f"tracking.uri {uri}: there is no folder {Path(rest.removeprefix('/')).parent}")
    module = driver or DRIVERS.get(dialect, "")
    if module and importlib.util.find_spec(module) is None:
        raise ConfigError(f"tracking.uri {uri}: the driver {module} is not installed")


@dataclass(frozen=True)
class Place:
    """Where the runs of one study go."""

    uri: str
    experiment: str
    study: str  # the name of the study
    identity: str  # of the study, whatever its name
    folder: Path  # of the study: relative names of artifacts start here
    artifacts: Path  # for stores that are not servers


@dataclass
class Tracker:
    """The MLflow side of one study: a thread of its own that is told of events and sends them.

    past: the events of earlier sessions; those that were not sent yet are sent first.
    """

    place: Place
    study: Study
    past: Sequence[Event] = ()
    trouble: str | None = None  # why the last attempt failed; None if it did not

    def __post_init__(self) -> None:
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._told = 0
        self._cursor = self.place.folder / "mlflow.json"
        self.sent = self._read_cursor()  # how many events MLflow has taken, over all sessions
        self._store = _Store(self.place, self.study)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
        for event in self.past:
            self.tell(event)

    def start(self) -> None:
        """Begins to send."""
        self._thread.start()

    def tell(self, event: Event) -> None:
        """Takes one more event of the journal; returns at once."""
        self._told += 1
        self._events.put(event)

    def close(self) -> int:
        """Makes one last attempt to send all that waits; returns how many events are left for another time."""
        self._closing.set()
        sent, since = self.sent, time.monotonic()
        while self._thread.is_alive() and time.monotonic() - since < PATIENCE_SECONDS[self.trouble is not None]:
            self._thread.join(0.05)
            if sent != self.sent:
                sent, since = self.sent, time.monotonic()
        return self._told - self.sent

    def link(self, address: str) -> str | None:
        """The page that compares this study's trials, on a server at this address; None if MLflow never answered."""
        known = self._store.experiment
        return page(address, known, self.place.study) if known else None

    # --- the thread ---

    def _work(self) -> None:
        trials: Trials = {}
        waiting: list[_Entry] = []
        seen, pause = 0, 0.0
        while True:
            self._closing.wait(max(FLUSH_SECONDS, pause))
            last_round = self._closing.is_set()
            while not self._events.empty():
                entry = _Entry.of(self._events.get(), trials, self.study)
                seen += 1
                waiting += [entry] if seen > self.sent else []
            while waiting and self._took(waiting[:EVENTS]):
                del waiting[:EVENTS]
            pause = 0.0 if not waiting else min(RETRY_SECONDS[1], 2 * pause) or RETRY_SECONDS[0]
            if last_round:
                return

    def _took(self, entries: list["_Entry"]) -> bool:
        """Whether MLflow took these events."""
        try:
            self._store.send(entries)
            self.sent += len(entries)
            write_json(self._cursor, {"sent": self.sent})
        except Exception as error:
            self.trouble = " ".join(str(error).split())[:200] or type(error).__name__
            self._store.forget()
            return False
        self.trouble = None
        return True

    def _read_cursor(self) -> int:
        try:
            return int(json.loads(self._cursor.read_text())["sent"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0  # all is sent again, and is there once


@dataclass(frozen=True)
class _Entry:
    """One event with what is known after it."""

    event: Event
    trial: TrialRecord | None
    parent: dict[str, float] = field(default_factory=dict)  # metrics of the parent run
    step: int = 0  # how many trials had ended

    @classmethod
    def of(cls, event: Event, trials: Trials, study: Study) -> "_Entry":
        trial = follow(trials, event)
        if event["event"] != "ended":
            return cls(event, trial)
        states = counts(trials.values())
        parent = {f"trials/{state}": float(n) for state, n in states.items() if state not in ("running", "interrupted")}
        searched = [t for t in trials.values() if t.confirms is None]
        for best in ranked(searched, study.objective, study.mode)[:1]:
            parent[f"best/{study.objective.removeprefix('val/')}_so_far"] = best.last[study.objective]
        return cls(
            event, trial, parent, int(sum(parent.get(f"trials/{s}", 0) for s in ("finished", "pruned", "failed")))
        )


class _Store:
    """MLflow itself. Every method may be called again after it failed at any point, with the same result."""

    def __init__(self, place: Place, study: Study) -> None:
        self.place, self.study = place, study
        self.experiment: str | None = None
        self.forget()

    def forget(self) -> None:
        """What is known of the store is asked anew."""
        self._client: MlflowClient | None = None
        self._runs: dict[int, str] = {}
        self._points: dict[str, list[Metric]] = {}  # that wait, by run

    def send(self, entries: Iterable[_Entry]) -> None:
        """Writes down what happened. Raises whatever MLflow raises."""
        if self._client is None:
            self._connect()
        for entry in entries:
            take = getattr(self, f"_{entry.event['event']}", None)
            if take is not None:
                take(entry)
        for run in list(self._points):
            self._flush(run)

    # --- events ---

    def _session(self, entry: _Entry) -> None:
        """The study begins, or goes on."""
        self._mlflow.update_run(self._runs[0], status="RUNNING")

    def _prepared(self, entry: _Entry) -> None:
        """The teachers are there."""
        event, parent = entry.event, self._runs[0]
        self._add(parent, event["metrics"], event["at"])
        self._log(parent, params=flatten(self.study.model_dump(mode="json", exclude_none=True)), tags=event["tags"])

    def _started(self, entry: _Entry) -> None:
        """A trial begins: a child run with all its settings as parameters."""
        trial = _sure(entry.trial)
        if trial.number not in self._runs:
            tags = {
                "mlflow.parentRunId": self._runs[0],
                "kind": "trial" if trial.confirms is None else "confirmation",
                "outcome": "running",
                "trial": str(trial.number),
                "baseline": trial.baseline or "",
                "confirms": "" if trial.confirms is None else str(trial.confirms),
                "config_hash": trial.config_hash,
            }
            self._runs[trial.number] = self._new_run(trial.name, tags, entry.event["at"])
        self._log(self._runs[trial.number], params=self._settings(trial))

    def _continued(self, entry: _Entry) -> None:
        """A trial goes on after an interrupt."""
        run = self._runs[_sure(entry.trial).number]
        self._mlflow.update_run(run, status="RUNNING")
        self._log(run, tags={"outcome": "running"})

    def _reported(self, entry: _Entry) -> None:
        """One epoch more."""
        event, run = entry.event, self._runs[_sure(entry.trial).number]
        points = {name: value for name, value in event["metrics"].items() if "/" in name}
        self._add(run, points, event["at"], int(event["metrics"]["epoch"]))

    def _ended(self, entry: _Entry) -> None:
        """A trial is over, in its honest state; only one that ran to its end gets `final/...` metrics."""
        event, trial = entry.event, _sure(entry.trial)
        run, state = self._runs[trial.number], event["state"]
        if state == "finished":
            finals = {final_metric(name): value for name, value in trial.last.items() if name.startswith("val/")}
            self._add(run, finals, event["at"])
        self._flush(run)
        self._log(run, tags={"outcome": state} | ({"error": event["error"]} if event["error"] else {}))
        self._end(run, state, event["at"])
        self._add(self._runs[0], entry.parent, event["at"], entry.step)

    def _closed(self, entry: _Entry) -> None:
        """The study is over, or interrupted; its files become artifacts of the parent run."""
        event, parent = entry.event, self._runs[0]
        self._add(parent, event["metrics"], event["at"])
        self._flush(parent)
        self._log(parent, tags={"outcome": event["state"], **event["tags"]})
        for file in event["files"]:
            if (self.place.folder / file).exists():
                self._mlflow.log_artifact(parent, str(self.place.folder / file))
        self._end(parent, event["state"], event["at"])

    # --- how they are written ---

    @property
    def _mlflow(self) -> "MlflowClient":
        if self._client is None:
            raise AssertionError("nothing is written before the store has answered")
        return self._client

    def _connect(self) -> None:
        """Finds the runs of this study, and makes experiment and parent run if they are not there."""
        from mlflow import MlflowClient  # here: a slow import, and the study need not wait for it

        for noisy in ("mlflow", "alembic"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        client = MlflowClient(self.place.uri)
        self.experiment = self._find_experiment(client)
        runs: dict[int, str] = {}
        token: str | None = None
        while token is None or token:
            found = client.search_runs(
                [self.experiment], f"tags.study_id = '{self.place.identity}'", max_results=1000, page_token=token
            )
            runs |= {int(run.data.tags["trial"]): run.info.run_id for run in found}
            token = found.token or ""
        self._client, self._runs = client, runs
        if 0 not in runs:
            self._runs[0] = self._new_run(self.place.study, {"kind": "study", "trial": "0"}, None)
        client.set_experiment_tag(self.experiment, TAG + self.place.study, view_state(self._runs[0], self.study))

    def _find_experiment(self, client: "MlflowClient") -> str:
        known = client.get_experiment_by_name(self.place.experiment)
        if known is not None:
            return str(known.experiment_id)
        own = None if self.place.uri.startswith("http") else self.place.artifacts.resolve().as_uri()
        return str(client.create_experiment(self.place.experiment, artifact_location=own))

    def _new_run(self, name: str, tags: dict[str, str], at: float | None) -> str:
        tags = {"study": self.place.study, "study_id": self.place.identity, **tags}
        start = None if at is None else _milliseconds(at)
        run = self._mlflow.create_run(str(self.experiment), start_time=start, run_name=name, tags=tags)
        return str(run.info.run_id)

    def _settings(self, trial: TrialRecord) -> dict[str, Any]:
        try:
            config = self.study.config_of(trial.baseline, trial.sampled, trial.seed)
        except ConfigError:
            return trial.sampled  # the trial itself says what does not fit together
        return flatten(config.model_dump(mode="json"))

    def _add(self, run: str, metrics: Mapping[str, float], at: float, step: int = 0) -> None:
        from mlflow.entities import Metric

        points = [Metric(name, float(value), _milliseconds(at), step) for name, value in metrics.items()]
        self._points.setdefault(run, []).extend(points)

    def _flush(self, run: str) -> None:
        points = self._points.pop(run, [])
        for start in range(0, len(points), POINTS):
            self._mlflow.log_batch(run, metrics=points[start : start + POINTS])

    def _log(self, run: str, params: Mapping[str, Any] | None = None, tags: Mapping[str, Any] | None = None) -> None:
        from mlflow.entities import Param, RunTag

        entries = [Param(name, str(value)[:LONGEST]) for name, value in (params or {}).items()]
        for start in range(0, len(entries), ENTRIES):
            self._mlflow.log_batch(run, params=entries[start : start + ENTRIES])
        if tags:
            self._mlflow.log_batch(run, tags=[RunTag(name, str(value)[:LONGEST]) for name, value in tags.items()])

    def _end(self, run: str, state: str, at: float) -> None:
        self._mlflow.set_terminated(run, STATUS.get(state, "KILLED"), _milliseconds(at))


def _milliseconds(at: float) -> int:
    return round(at * 1000)


def _sure(trial: TrialRecord | None) -> TrialRecord:
    if trial is None:
        raise AssertionError("an event of a trial names its trial")
    return trial
