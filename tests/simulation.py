"""Simulated studies on a faulty disk: whatever fails, the study ends like an undisturbed study.

    python -m tests.simulation --seeds 1000       (5 minutes on two cores)

A study of simulated trials runs in sessions. Each write, synchronization and renaming of a file may fail (full disk,
I/O error), may be incomplete, or may be the last operation of the process. Unsynchronized data may then be lost,
replaced by zeros, or kept. Trials lose their processes. After each session the following must hold:

- every acknowledged event except epoch reports is in the log;
- the log can be read, or the error states the line and `fsck --to` recovers the log.

At the end, trials, decisions and the best settings equal those of the undisturbed study. The seed determines
everything.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from mlflow.exceptions import MlflowException

from ensdistill.errors import DataError
from ensdistill_tune.records import event_log
from ensdistill_tune.records.event_log import read_journal
from ensdistill_tune.records.events import EpochReported, Event, SessionEnded
from ensdistill_tune.records.log_recovery import examine, recover
from ensdistill_tune.records.study_directory import StudyDirectory
from ensdistill_tune.study.study_config import StudyConfig
from ensdistill_tune.study.study_state import StudyState
from ensdistill_tune.tracking.batches import milliseconds
from ensdistill_tune.tracking.target import MlflowTarget
from ensdistill_tune.tracking.tracker import MlflowTracker
from tests.fake_mlflow import FakeStore
from tests.unit.study.execution.test_trial_planner import RULES, story, study, work

SEARCHERS: list[dict[str, Any]] = [
    {"kind": "random"},
    {"kind": "tpe", "startup_trials": 3},
    {"kind": "qmc"},
    {"kind": "nsga2", "population": 4},
]
ERRORS = {"no space": (28, "No space left on device"), "I/O error": (5, "Input/output error")}
PART = 50  # seeds between two lines of progress
SENDS = 0.1  # chance after each event that pending events are sent to MLflow
SESSIONS = 400  # far more than any seed needs; a study that does not end within them is an error


class PowerFailure(BaseException):
    """The end of the process; no error handler may catch it."""


class FaultyDisk:
    """The disk below one study folder.

    Attributes:
        faults: Number of injected faults of each kind.
        acknowledged: Events other than reports that were written and synchronized, in order.
    """

    def __init__(self, seed: int, home: Path, rate: float, study: StudyConfig) -> None:
        self.random, self.home, self.rate = random.Random(seed), home, rate
        self.mlflow, self._study, self._away = FakeStore(self._call), study, 0
        self.faults, self.acknowledged = Counter[str](), list[Event]()
        self._synced = 0  # bytes of the log that survive a power failure

    @contextmanager
    def session(self) -> Iterator[None]:
        """Injects faults inside the block; afterwards, the disk contains what survives the end of the process."""
        inner = event_log.EventLog.append

        def append(log: event_log.EventLog, event: Event) -> None:
            inner(log, event)
            if not isinstance(event, EpochReported):
                self.acknowledged.append(event)
            if self.random.random() < SENDS:
                self.send()

        self._synced = self._size()
        with (
            patch.object(event_log, "_open", self._open),
            patch.object(event_log.EventLog, "append", append),
            patch.object(os, "fsync", self._sync),
            patch.object(os, "replace", self._replace),
        ):
            try:
                yield
            except PowerFailure:
                self._lose()

    def send(self) -> int:
        """Sends pending events once, as the thread of a study does, and returns how many are still pending."""
        return send(self._study, self.home, self.mlflow)

    def _call(self, when: str) -> None:
        """Called before and after the effect of each call of MLflow."""
        if self._away:  # an outage
            self._away -= 1
        elif self._fault("mlflow", "outage", "error") == "outage":
            self._away = self.random.randint(1, 8)
        else:
            return
        raise MlflowException("no answer", error_code=1)  # INTERNAL_ERROR

    def _fault(self, where: str, *kinds: str) -> str:
        """Returns the fault of this operation, usually none."""
        if self.random.random() >= self.rate:
            return ""
        kind = self.random.choice(kinds)
        self.faults[f"{where}: {kind}"] += 1
        return kind

    def _raise(self, kind: str) -> None:
        if kind.startswith("end"):
            raise PowerFailure
        if kind:
            raise OSError(*ERRORS[kind])  # a new one, because an exception keeps the frames of its traceback

    def _open(self, path: Path) -> Any:
        return FaultyFile(self, path)

    def write(self, file: Any, data: bytes) -> int:
        """Writes the data completely, partially or not at all."""
        kind = self._fault("write", *ERRORS, "part", "end before", "end within", "end after")
        part = self.random.randrange(1, len(data)) if len(data) > 1 else 1
        if kind in ("part", "end within"):
            written = int(file.write(data[:part]))
            if kind == "part":
                return written
        elif kind == "end after":
            file.write(data)
        self._raise(kind)
        return int(file.write(data))

    def _sync(self, descriptor: int) -> None:
        kind = self._fault("sync", "I/O error", "end before", "end after")
        if kind != "end after":
            self._raise(kind)
        if os.readlink(f"/proc/self/fd/{descriptor}") == str(self._log):
            self._synced = self._size()
        self._raise(kind)

    def _replace(self, source: Path, target: Path) -> None:
        kind = self._fault("rename", "I/O error", "no space", "end before", "end after")
        if kind != "end after":
            self._raise(kind)
        os.rename(source, target)
        self._raise(kind)

    def _lose(self) -> None:
        """Loses part of the unsynchronized data in a power failure, but not if only the process was killed."""
        size = self._size()
        if size <= self._synced or self.random.random() < 0.5:
            return
        left = self.random.randrange(self._synced, size)
        content = self._log.read_bytes()
        how = self.random.choice(["cut", "zeros", "hole"])
        if how == "cut":
            content = content[:left]
        elif how == "zeros":
            content = content[:left] + bytes(size - left)
        else:  # a later block reached the disk, but an earlier one did not
            end = self.random.randrange(left, size) + 1
            content = content[:left] + bytes(end - left) + content[end:]
        self.faults[f"unsynchronized data: {how}"] += 1
        self._log.write_bytes(content)

    @property
    def _log(self) -> Path:
        return self.home / "events.jsonl"

    def _size(self) -> int:
        return self._log.stat().st_size if self._log.exists() else 0


class FaultyFile:
    """The open event log on a faulty disk."""

    def __init__(self, disk: FaultyDisk, path: Path) -> None:
        self._disk, self._file = disk, path.open("ab", buffering=0)

    def write(self, data: bytes) -> int:
        return self._disk.write(self._file, data)

    def truncate(self, size: int) -> int:
        return self._file.truncate(size)

    def fileno(self) -> int:
        return self._file.fileno()


def study_of(seed: int) -> StudyConfig:
    """Returns the study of a seed: searcher, scheduler and sizes vary."""
    drawn = random.Random(f"study {seed}")
    scheduler = drawn.choice(RULES)
    searcher = {"kind": "random"} if scheduler["kind"] == "pbt" else drawn.choice(SEARCHERS)
    return study(
        searcher=searcher | {"seed": seed},
        scheduler=scheduler,
        budget={"trials": drawn.randint(5, 10)},
        confirmation={"top_k": drawn.randint(0, 2), "seeds": drawn.randint(2, 7)},
    )


def simulate(seed: int, folder: Path) -> Counter[str]:
    """Runs the study of one seed undisturbed and disturbed, and compares both.

    Args:
        seed: Determines the study and all faults.
        folder: An empty folder.

    Returns:
        The injected faults by kind.

    Raises:
        AssertionError: The study lost data or ended differently.
    """
    of, plain, home = study_of(seed), folder / "plain", folder / "disturbed"
    for path in (plain, home):
        path.mkdir()
    undisturbed = work(of, plain)
    disk = FaultyDisk(seed, home, random.Random(f"rate {seed}").choice([0.005, 0.02, 0.06]), of)
    for _ in range(SESSIONS):
        disk.faults["sessions"] += 1
        disk.rate *= 0.97  # otherwise a study with many events would never end
        ended = list[StudyState]()
        with disk.session():
            try:
                lost = disk.random.sample(range(1, 12), 2)
                ended.append(work(of, home, lost=lost))
                best = ended[0].best
                ended[0].append_event(SessionEnded(best=best and best.number))
                disk.send()
                ended[0].save("finished")
            except DataError:
                disk.faults["errors to the user"] += 1
        _check_log(disk, home)
        if ended and StudyDirectory(home).read_summary()["state"] == "finished":
            break
    else:
        raise AssertionError(f"seed {seed}: not finished after {SESSIONS} sessions")
    assert _history(home) == _history(plain), f"seed {seed}: other trials or decisions"
    assert _best(ended[0]) == _best(undisturbed), f"seed {seed}: other best settings"
    disk.rate = disk._away = 0
    check_mlflow(of, home, disk.mlflow)
    return disk.faults


def _history(home: Path) -> list[Any]:
    """Returns the history without the state of the searcher, because a new session may record the state again."""
    return [[field for field in event if field[0] != "memory"] for event in story(home)]


def _best(state: StudyState) -> Any:
    return state.best and (state.best.number, state.best.sampled, state.best.last)


def _check_log(disk: FaultyDisk, home: Path) -> None:
    """Checks that the log contains all acknowledged events; recovers it if unsynchronized data damaged it."""
    log = home / "events.jsonl"
    try:
        events = read_journal(log)
    except DataError as error:
        disk.faults["damage that fsck repaired"] += 1
        if not (home / "study.json").exists():
            StudyDirectory(home).write_summary({"state": "running"})
        if "line 1 " in str(error) or "format" in str(error):  # the header was not written to disk
            if disk.acknowledged:
                raise AssertionError(f"lost: {disk.acknowledged}") from error
            log.unlink()
            return
        recover(StudyDirectory(home), examine(log).last)
        events = read_journal(log)
    kept = [event for event in events if not isinstance(event, EpochReported)]
    missing = [event for event in disk.acknowledged if event not in kept]
    assert not missing, f"lost: {missing}"


def send(study: StudyConfig, home: Path, store: FakeStore) -> int:
    """Sends the pending events of a log once and returns how many are still pending."""
    target = MlflowTarget("http://fake", "ensdistill", "study", "id", home, home)
    tracker = MlflowTracker(target, study, read_journal(home / "events.jsonl"))
    tracker._closing.set()  # one attempt, in this thread
    with patch("mlflow.MlflowClient", store.client):
        tracker._work()
    return tracker.close()


def check_mlflow(study: StudyConfig, home: Path, store: FakeStore) -> None:
    """Checks that MLflow contains each epoch of the log once, and the same runs as if all events were sent together."""
    assert send(study, home, store) == 0
    reports = [event for event in read_journal(home / "events.jsonl") if isinstance(event, EpochReported)]
    name, runs = study.objective, store.by_trial
    expected = [(one.trial, int(one.metrics["epoch"]), milliseconds(one.at), one.metrics[name]) for one in reports]
    assert len({point[:2] for point in expected}) == len(expected)
    stored = [
        (number, *point[1:]) for number, run in runs.items() for point in run.points if number and point[0] == name
    ]
    assert sorted(stored) == sorted(expected), "MLflow differs from the log"
    other = FakeStore()
    (home / "tracking.json").unlink()
    assert send(study, home, other) == 0
    assert {n: run.content for n, run in runs.items()} == {n: run.content for n, run in other.by_trial.items()}


def _one(seed: int) -> tuple[int, Counter[str], str]:
    """Simulates one seed; returns it with its faults and, if it failed, the reason."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            return seed, simulate(seed, Path(folder)), ""
        except Exception as error:
            return seed, Counter(), f"{type(error).__name__}: {error}"


def injected(faults: Counter[str]) -> int:
    """Returns the number of injected faults; the other counts are their consequences."""
    return sum(count for kind, count in faults.items() if ": " in kind)


def _parts(first: int, seeds: int, hours: float | None) -> Iterator[range]:
    """Yields ranges of seeds: `seeds` seeds in total, or all ranges that begin within `hours`."""
    end, begun = first + seeds, time.time()
    while first < end if hours is None else time.time() - begun < hours * 3600:
        part = range(first, first + PART if hours else min(first + PART, end))
        yield part
        first = part.stop
        print(f"seeds up to {first - 1}, {time.time() - begun:.0f} s", file=sys.stderr, flush=True)


def main() -> int:
    """Simulates many seeds and prints the faults that were survived, by kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1000, help="number of seeds, unless --hours is given")
    parser.add_argument("--hours", type=float, help="begins no further seeds after this time")
    parser.add_argument("--first", type=int, default=0, help="the first seed; continue a run after its last one")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    faults, failed, done = Counter[str](), list[str](), 0
    with ProcessPoolExecutor(options.processes) as pool:
        for part in _parts(options.first, options.seeds, options.hours):
            for seed, found, why in pool.map(_one, part):
                done, faults = done + 1, faults + found
                if why:
                    failed.append(f"seed {seed}: {why}")
                    print(failed[-1], file=sys.stderr, flush=True)
    print(json.dumps(dict(sorted(faults.items())), indent=2))
    print(f"{done} seeds, {injected(faults)} injected faults, {len(failed)} seeds failed")
    print("\n".join(failed), end="\n" if failed else "")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
