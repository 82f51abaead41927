"""Kills a study repeatedly at random points, resumes it, and compares the result with an undisturbed study.

    python -m tests.end_to_end.chaos --kills 20 --seed 0        (or: make chaos)

There are three kinds of kills, all without warning: only the driver, only a worker, or every process, as in a power
failure. The study runs one trial at a time with a fixed seed. The two studies must therefore agree in every trial,
every metric of every epoch, every rung, every decision and the best settings, and in every run and every metric point
in MLflow.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from safetensors.torch import load_file

from ensdistill_tune.records.event_log import read_journal
from ensdistill_tune.records.events import EpochReported, Event
from ensdistill_tune.records.study_directory import StudyDirectory

STUDY = """
preset: kd
config:
  data: {kind: digits, train_size: 100, val_size: 100}
  model: {width: 4}
  teachers: {count: 2, model: {width: 4}, training: {epochs: 2}}
  training: {epochs: 27, batch_size: 10}
search:
  loss.temperature: {log_uniform: [1, 10]}
  training.optimizer.lr: {log_uniform: [0.001, 0.3]}
  averaging.kind: {choice: [none, ema]}
  averaging.decay: {uniform: [0.5, 0.9], when: {averaging.kind: ema}}
baselines: [kd]
searcher: {kind: tpe, startup_trials: 4}
scheduler: {kind: asha, grace_epochs: 3, reduction_factor: 3}
budget: {trials: 12}
confirmation: {top_k: 1, seeds: 2}
resources: {max_concurrent: 1, max_retries: 100, checkpoint_interval_s: 0}
"""
WAYS = ("driver", "worker", "everything")
TIMES = ("time/epoch_seconds", "time/overhead_seconds", "time/cpu_hours", "time/gpu_hours")  # these may differ


@dataclass
class Killed:
    """Kills that a study survived."""

    ways: Counter[str] = field(default_factory=Counter)
    inside: int = 0  # kills that hit a trial between two of its epochs
    resumed: int = 0
    seconds: float = 0.0


def launched(folder: Path, name: str, settings: str = STUDY, executor: str = "ray") -> subprocess.Popen[str]:
    """Starts a study in a separate process."""
    file = folder / f"{name}.yaml"
    file.write_text(settings)
    return _command("launch", str(file), folder, executor)


def disturbed(folder: Path, kills: int, seed: int, settings: str = STUDY) -> Killed:
    """Runs the study `disturbed` to its end and kills it the given number of times."""
    chance, done, began = random.Random(seed), Killed(), time.monotonic()
    home = folder / "studies" / "disturbed"
    study = launched(folder, "disturbed", settings)
    for ways in (WAYS * kills)[:kills]:
        _wait_for_events(study, home, len(_events(home)) + chance.randint(2, 25))
        time.sleep(chance.uniform(0, 0.1))
        if study.poll() is not None:
            break
        running = [trial for trial in StudyDirectory(home).read_trials() if trial.state == "running" and trial.epochs]
        while not _kill(ways, study) and study.poll() is None:
            time.sleep(0.02)  # no worker is training at this moment
        done.ways[ways] += 1
        done.inside += bool(running)
        if ways != "worker":
            study.communicate()
            study = _command("resume", "disturbed", folder)
            done.resumed += 1
    output, _ = study.communicate(timeout=600)
    assert study.returncode == 0, output
    done.seconds = time.monotonic() - began
    return done


def descendants(root: int) -> dict[int, str]:
    """Returns all descendants of a process with the titles set by Ray."""
    parents, titles = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                titles[int(entry.name)] = (entry / "cmdline").read_text()
    below, found = [root], {}
    while below:
        parent = below.pop()
        children = [pid for pid, its in parents.items() if its == parent]
        below += children
        found |= {pid: titles[pid] for pid in children if pid in titles}
    return found


def outcome(home: Path) -> dict[str, Any]:
    """Returns all results in which two equal studies must agree."""
    trials = StudyDirectory(home).read_trials()
    summary = json.loads((home / "study.json").read_text())
    return {
        "trials": {t.number: (t.name, t.sampled, t.state, t.error, t.config_hash) for t in trials},
        "epochs": {t.number: [_timeless(epoch) for epoch in t.epochs] for t in trials},
        "rungs": _rungs(home),
        "pruned": sorted(t.number for t in trials if t.state == "pruned"),
        "best": (summary["best"]["config_hash"], summary["best"]["metrics"]["val/nll"]),
        "state": summary["state"],
        "confirmation": json.loads((home / "confirmation.json").read_text()),
        "student": {name: tensor.tolist() for name, tensor in load_file(home / "best" / "student.safetensors").items()},
    }


def in_mlflow(home: Path) -> dict[str, Any]:
    """Returns the status and the metric points, without times, of every run; asserts that no point is duplicated."""
    summary = json.loads((home / "study.json").read_text())
    client = MlflowClient(summary["tracking_uri"])
    experiment = client.get_experiment_by_name("ensdistill").experiment_id
    runs = client.search_runs([experiment], f"tags.study_id = '{summary['study_id']}'", max_results=1000)
    found = {}
    for run in runs:
        points = {}
        for name in run.data.metrics:
            history = client.get_metric_history(run.info.run_id, name)
            points[name] = sorted((point.step, point.value) for point in history)
        children = {name: some for name, some in points.items() if name not in TIMES}
        assert all(len({step for step, _ in some}) == len(some) for some in children.values()), run.info.run_name
        name = "parent" if run.data.tags["kind"] == "study" else run.info.run_name
        assert name not in found, f"{name} is there twice"
        found[name] = (run.info.status, run.data.tags["outcome"], children)
    return found


def assert_equal(folder: Path) -> tuple[int, int, int]:
    """Compares the disturbed study with the undisturbed one; returns the number of equal trials, runs and points."""
    mine, theirs = (outcome(folder / "studies" / name) for name in ("disturbed", "undisturbed"))
    for what, value in theirs.items():
        assert mine[what] == value, f"{what} differ"
    runs, others = (in_mlflow(folder / "studies" / name) for name in ("disturbed", "undisturbed"))
    assert runs == others
    points = sum(len(some) for _, _, metrics in runs.values() for some in metrics.values())
    return len(mine["trials"]), len(runs), points


def _rungs(home: Path) -> dict[int, dict[int, float]]:
    """Returns the values at each ASHA rung from the event log: the first report at or after the rung."""
    found: dict[int, dict[int, float]] = {3: {}, 9: {}, 27: {}}
    searched = {t.number for t in StudyDirectory(home).read_trials() if t.sampled and t.replicate_of is None}
    for event in read_journal(home / "events.jsonl"):
        if isinstance(event, EpochReported) and event.trial in searched:
            for rung, there in found.items():
                if event.metrics["epoch"] >= rung:
                    there.setdefault(event.trial, event.metrics["val/nll"])
    return found


def _timeless(epoch: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in epoch.items() if name not in TIMES}


def _command(name: str, what: str, folder: Path, executor: str = "ray") -> subprocess.Popen[str]:
    words = [name, what, "--studies-dir", str(folder / "studies"), "--executor", executor]
    arguments = [sys.executable, "-m", "ensdistill_tune", *words]
    return subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def _events(home: Path) -> list[Event]:
    return read_journal(home / "events.jsonl")


def _wait_for_events(study: subprocess.Popen[str], home: Path, count: int) -> None:
    end = time.monotonic() + 120
    while len(_events(home)) < count and study.poll() is None:
        assert time.monotonic() < end, "the study does not go on"
        time.sleep(0.02)


def _kill(way: str, study: subprocess.Popen[str]) -> bool:
    """Kills the chosen processes; returns whether any existed."""
    below = descendants(study.pid)
    victims = [study.pid, *below]
    if way == "driver":
        victims = [study.pid]
    if way == "worker":
        victims = [pid for pid, title in below.items() if title.startswith("ray::") and ".train" in title]
    for pid in victims:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return bool(victims)


def main() -> None:
    """Prints one line of results, or fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        began = time.monotonic()
        plain = launched(folder, "undisturbed")
        output, _ = plain.communicate(timeout=600)
        assert plain.returncode == 0, output
        undisturbed = time.monotonic() - began
        done = disturbed(folder, options.kills, options.seed)
        trials, runs, points = assert_equal(folder)
    ways = ", ".join(f"{count} of the {way}" for way, count in done.ways.items())
    print(f"{sum(done.ways.values())} kills ({ways}; {done.inside} inside a trial), {done.resumed} times resumed")
    print(f"undisturbed {undisturbed:.0f} s, disturbed {done.seconds:.0f} s")
    print(f"equal to the undisturbed study: {trials} trials, {runs} MLflow runs, {points} points, rungs, best, student")


if __name__ == "__main__":
    main()
