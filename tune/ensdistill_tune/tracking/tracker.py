"""Logs a study to MLflow from a background thread that follows the event log.

The study never waits for MLflow. Events that the server has not accepted stay pending in the event log. This process or
a later one sends them when the server responds again.
"""

import json
import queue
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from ensdistill.config import content_hash
from ensdistill.runtime.files import synchronize, write_json
from ensdistill.runtime.secrets import without_secrets
from ensdistill.runtime.text import printable
from ensdistill_tune.records.event_log import read_journal
from ensdistill_tune.records.events import Event
from ensdistill_tune.records.study_directory import StudyDirectory
from ensdistill_tune.records.trial_index import TrialIndex
from ensdistill_tune.study.study_config import StudyConfig
from ensdistill_tune.tracking.mlflow_writer import MlflowWriter
from ensdistill_tune.tracking.run_fields import RunUpdate
from ensdistill_tune.tracking.target import DATABASE, MlflowTarget
from ensdistill_tune.tracking.views import MlflowPages

FLUSH_SECONDS = 5.0  # seconds between two batches of events
RETRY_SECONDS = (2.0, 30.0)  # seconds between attempts while MLflow does not respond: first value and maximum
PATIENCE_SECONDS = (10.0, 5.0)  # how long `close` waits without progress, after a successful and after a failed attempt
LONGEST = 600  # maximum length of a reason in characters
EVENTS = 200  # maximum number of events in one batch
CURSOR = "tracking.json"  # file in the folder of a study: how many events, and which files, MLflow has received


def known_pages(home: Path) -> MlflowPages | None:
    """Returns the MLflow pages of the study in a folder, from tracking.json; None if MLflow never answered."""
    try:
        return MlflowPages(**json.loads((home / CURSOR).read_text())["pages"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


@dataclass
class MlflowTracker:
    """Background thread that sends the events of one study to MLflow in order.

    Attributes:
        target: Store and experiment that contain the runs.
        study: The settings of the study.
        past: The events of earlier sessions; those that are still pending are sent first.
        trouble: Reason why the last attempt failed; None if it succeeded.
    """

    target: MlflowTarget
    study: StudyConfig
    past: Sequence[Event] = ()
    trouble: str | None = None

    def __post_init__(self) -> None:
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._received = 0  # number of events received from the log
        self._since: float | None = None  # start of the study
        self._cursor = self.target.folder / CURSOR
        # The path of a database file can change, so it does not identify the store.
        store = self.target.uri if self.target.database is None else DATABASE
        self._name = content_hash([store, self.target.experiment])
        known = self._read_cursor()
        self.sent = int(known.get("sent", 0))  # number of events that MLflow has received, over all sessions
        self._writer = MlflowWriter(self.target, self.study)
        self._writer.files |= known.get("files", {})
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
        for event in self.past:
            self.on_event(event)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def on_event(self, event: Event) -> None:
        """Queues one event of the log and returns immediately."""
        self._received += 1
        self._since = self._since or event.at
        self._events.put(event)

    def close(self) -> int:
        """Makes one last attempt to send all pending events.

        Returns:
            The number of events that are still pending.
        """
        self._closing.set()
        steps, since = self._writer.steps, time.monotonic()
        while self._thread.is_alive() and time.monotonic() - since < PATIENCE_SECONDS[self.trouble is not None]:
            self._thread.join(0.05)
            if steps != self._writer.steps:  # `sent` changes too rarely: a batch can take longer than the limit
                steps, since = self._writer.steps, time.monotonic()
        return self._received - self.sent

    @property
    def pages(self) -> MlflowPages | None:
        """The MLflow pages of this study; None if MLflow never answered."""
        return self._writer.pages

    @property
    def refused(self) -> list[str]:
        """Reasons why MLflow permanently refused entries, such as points of a deleted run."""
        return self._writer.refused

    # --- the thread ---

    def _work(self) -> None:
        pending = _PendingUpdates(self.study, StudyDirectory(self.target.folder).journal)
        pause, ready = 0.0, False  # ready: the content of the store is known
        while True:
            self._closing.wait(max(FLUSH_SECONDS, pause))
            last_round = self._closing.is_set()
            while not self._events.empty():
                pending.add(self._events.get())
            while not ready or self.sent < pending.known:
                if not (ready := self._took(pending)):
                    break
            pause = 0.0 if ready else min(RETRY_SECONDS[1], 2 * pause) or RETRY_SECONDS[0]
            if last_round:
                return

    def _took(self, pending: "_PendingUpdates") -> bool:
        """Sends one batch of events and returns whether MLflow accepted them."""
        try:
            if not self._writer.ensure_parent_run(begun=self.sent > 0, since=self._since):
                self.sent = 0  # a different or empty store: all events are sent from the beginning
                self._writer.files.clear()
                return True
            self._synchronize_log()
            batch = pending.after(self.sent)
            self._writer.send(batch)
            self.sent += len(batch)
            self._write_cursor()
        except Exception as error:
            self.trouble = _in_short(error)
            self._writer.reset()
            return False
        self.trouble = None
        return True

    def _synchronize_log(self) -> None:
        """Synchronizes the event log to disk; a power failure could otherwise remove events that MLflow already has."""
        if (log := StudyDirectory(self.target.folder).journal).exists():
            synchronize(log)

    def _write_cursor(self) -> None:
        pages = asdict(self.pages) if self.pages else {}
        known = {"store": self._name, "sent": self.sent, "files": self._writer.files, "pages": pages}
        write_json(self._cursor, known)

    def _read_cursor(self) -> dict[str, Any]:
        """Returns the cursor of an earlier session with the same store; empty for another store."""
        try:
            known = dict(json.loads(self._cursor.read_text()))
            same = known["store"] == self._name and known["sent"] <= len(self.past)
        except (OSError, ValueError, KeyError, TypeError):
            return {}  # all events are sent again; MLflow does not store them twice
        return known if same else {}


class _PendingUpdates:
    """Updates that MLflow has not received yet.

    Sent updates are dropped to save memory. If a different or empty store requires them, they are read from the log.

    Attributes:
        known: Number of events so far, sent or not.
    """

    def __init__(self, study: StudyConfig, log: Path) -> None:
        self._study, self._log, self.known = study, log, 0
        self._clear()

    def _clear(self) -> None:
        self._index, self._facts = TrialIndex(self._study.rank), dict[str, str]()
        self._updates = deque[RunUpdate]()  # the last updates

    def add(self, event: Event) -> None:
        """Adds the next event of the log."""
        self._updates.append(RunUpdate.of(event, self._index, self._facts, self._study))
        self.known += 1

    def after(self, sent: int) -> list[RunUpdate]:
        """Returns the next updates, at most `EVENTS`, and drops the updates of the first `sent` events."""
        if self.known - sent > len(self._updates):
            past = read_journal(self._log)[: self.known]
            self._clear()
            self.known = 0
            for event in past:
                self.add(event)
        while self.known - sent < len(self._updates):
            self._updates.popleft()
        return list(islice(self._updates, EVENTS))


def _in_short(error: Exception) -> str:
    """Returns the message of an error, without the surrounding database statements."""
    text = " ".join(without_secrets(str(error)).split()).partition("[SQL:")[0]
    # A server may have sent the text, so control characters are escaped.
    return printable(text.removeprefix(_AUTOFLUSH).strip())[:LONGEST] or type(error).__name__


_AUTOFLUSH = (
    "(raised as a result of Query-invoked autoflush; consider using a session.no_autoflush block if this flush is "
    "occurring prematurely)"
)
