"""Measures the overhead of a study: trials of about 5 s on two slots, compared with a plain loop in two processes.

    python -m tests.benchmarks.study_speed                  (40 trials; about 4 minutes on two cores)
    python -m tests.benchmarks.study_speed --trials 12      (a quick run)

`efficiency` is the pure training time, divided by the number of slots and by the wall time from the start of the
session to the end of the last trial. The plain loop trains the same students without a study, half of them before and
half after the study, so that other load on the machine affects both. The ratio of the two wall times is the cost of the
study. The fixed cost per trial is measured with trials of one epoch: their duration without this epoch, after both
workers are warm.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from ensdistill import distill, get_ensemble, load_data
from ensdistill.data import DataSplits
from ensdistill.methods.members import TeacherEnsemble
from ensdistill.runtime.allocator import disable_malloc_trim
from ensdistill_tune.records.event_log import read_journal
from ensdistill_tune.records.events import EpochReported, Event, SessionStarted, TrialEnded, TrialStarted
from ensdistill_tune.records.study_directory import StudyDirectory
from ensdistill_tune.records.trial_record import TrialRecord
from ensdistill_tune.study.study_config import StudyConfig
from tests.benchmarks.processes import Use, Watch

SLOTS = 2
SPACE: dict[str, Any] = {
    "preset": "latentbe",
    "config": {"data": {"kind": "digits"}, "training": {"epochs": 56}},
    "search": {
        "loss.temperature": {"log_uniform": [1, 10]},
        "perturbation.step_size": {"log_uniform": [0.002, 0.2]},
    },
    "searcher": {"kind": "random"},
    "scheduler": {"kind": "none"},
    "confirmation": {"top_k": 0},
    "resources": {"max_concurrent": SLOTS},
}
Figures = dict[str, float]


def study_of(trials: int, epochs: int) -> StudyConfig:
    """Returns a study whose trials all have the same cost."""
    config = SPACE["config"] | {"training": {"epochs": epochs}}
    return StudyConfig.model_validate(SPACE | {"config": config, "budget": {"trials": trials}})


# --- the study ---


def run_study(study: StudyConfig, studies: Path, name: str) -> tuple[list[Event], float, dict[str, Use]]:
    """Launches a study as users do; returns its events, its duration in seconds, and the resources by process kind."""
    file = studies / f"{name}.yaml"
    file.write_text(yaml.safe_dump(study.model_dump(mode="json", exclude_unset=True)))
    command = [
        sys.executable,
        "-m",
        "ensdistill_tune",
        "launch",
        str(file),
        "--studies-dir",
        str(studies),
        "--name",
        name,
    ]
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as running, Watch(running.pid) as watch:
        if running.wait():
            raise SystemExit(f"the study failed: {' '.join(command)}")
    seconds = time.perf_counter() - began
    return read_journal(StudyDirectory(studies / name).journal), seconds, watch.used


def pure(events: list[Event]) -> dict[int, float]:
    """Returns the training seconds of each trial."""
    seconds: dict[int, float] = {}
    for event in events:
        if isinstance(event, EpochReported):
            seconds[event.trial] = seconds.get(event.trial, 0.0) + event.metrics["time/epoch_seconds"]
    return seconds


def times(events: list[Event], what: type) -> dict[int, float]:
    """Returns the time of this type of event for each trial; key 0 is the session."""
    return {getattr(event, "trial", 0): event.at for event in events if isinstance(event, what)}


def efficiency(events: list[Event], whole: float) -> Figures:
    """Returns the efficiency of the search and of the whole command."""
    trained = sum(pure(events).values()) / SLOTS
    wall = max(times(events, TrialEnded).values()) - times(events, SessionStarted)[0]
    return {
        "seconds a trial": fmean(pure(events).values()),
        "wall seconds, study": wall,
        "wall seconds, whole command": whole,
        "efficiency": trained / wall,
        "efficiency, whole command": trained / whole,
    }


def fixed_cost(events: list[Event]) -> float:
    """Returns the slot seconds per trial outside training, for trials that began after every worker was warm."""
    started, ended, trained = times(events, TrialStarted), times(events, TrialEnded), pure(events)
    warm = sorted(ended.values())[SLOTS - 1]
    later = [trial for trial, at in started.items() if at >= warm]
    slot_seconds = (max(ended.values()) - warm) * SLOTS
    return slot_seconds / len(later) - fmean(trained[trial] for trial in later)


def beside_training(events: list[Event]) -> float:
    """Returns the mean seconds of a trial outside training, without the first trial of each slot."""
    started, ended, trained = times(events, TrialStarted), times(events, TrialEnded), pure(events)
    later = sorted(trained)[SLOTS:]
    return fmean(ended[trial] - started[trial] - trained[trial] for trial in later)


# --- the plain loop ---

_shared: tuple[StudyConfig, DataSplits, TeacherEnsemble]


def _prepare(study: StudyConfig, store: Path) -> None:
    global _shared
    os.nice(15)  # this variable and the next as in Ray workers
    disable_malloc_trim()
    data = load_data(study.base_config.data)
    _shared = study, data, get_ensemble(study.base_config, data, store)


def _train(seed: int) -> tuple[float, float]:
    """Returns the seconds of all epochs, and the CPU seconds."""
    study, data, ensemble = _shared
    cpu = time.process_time()
    config = study.config_for(TrialRecord(1, None, {}, "", seed=seed))
    seconds = sum(epoch.seconds for epoch in distill(config, ensemble, data))
    return seconds, time.process_time() - cpu


class PlainLoop:
    """Two warm processes, each of which trains one student after another."""

    def __init__(self, study: StudyConfig, store: Path) -> None:
        os.environ["OMP_NUM_THREADS"] = "1"  # as in Ray's workers
        self._pool = ProcessPoolExecutor(SLOTS, get_context("spawn"), _prepare, (study, store))
        self.wall = self.trained = self.cpu = 0.0
        list(self._pool.map(_train, range(2 * SLOTS)))  # the first step of a process takes longer
        self._seed = 0

    def train(self, trials: int) -> None:
        """Trains this number of further students."""
        began = time.perf_counter()
        done = list(self._pool.map(_train, range(self._seed, self._seed + trials)))
        self.wall += time.perf_counter() - began
        self._seed += trials
        self.trained += sum(seconds for seconds, _ in done)
        self.cpu += sum(cpu for _, cpu in done)

    def close(self) -> None:
        """Stops both processes."""
        self._pool.shutdown()


# --- the table ---


def measure(trials: int, epochs: int, short: int) -> Figures:
    """Returns all measurements; `short` is the number of trials of one epoch that measure the fixed cost."""
    study = study_of(trials, epochs)
    with tempfile.TemporaryDirectory() as home:
        studies = Path(home)
        get_ensemble(study.base_config, load_data(study.base_config.data), studies / "teachers")
        plain = PlainLoop(study, studies / "teachers")
        plain.train(trials // 2)
        events, whole, used = run_study(study, studies, "long")
        plain.train(trials - trials // 2)
        plain.close()
        of_short, _, _ = run_study(study_of(short, 1), studies, "short")
    figures = {"trials": trials, "load": os.getloadavg()[1]} | efficiency(events, whole)
    figures |= {
        "plain loop: seconds a trial": plain.trained / trials,
        "plain loop: wall seconds": plain.wall,
        "plain loop: efficiency": plain.trained / SLOTS / plain.wall,
        "plain loop / study, wall": plain.wall / figures["wall seconds, study"],
        "plain loop: CPU seconds": plain.cpu,
        "seconds of a trial without training": beside_training(events),
        "fixed cost a trial, seconds": fixed_cost(of_short),
    }
    for who, use in used.items():
        figures |= {f"{who}: CPU seconds": use.cpu_seconds, f"{who}: peak MiB": use.peak_mib}
    return figures


def main() -> None:
    """Measures and prints all values."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--epochs", type=int, default=56, help="epochs of each trial; 56 epochs take about 5 s")
    parser.add_argument("--short", type=int, default=64, help="trials of one epoch that measure the fixed cost")
    parser.add_argument("--json", type=Path, help="file for the measurements")
    options = parser.parse_args()
    figures = measure(options.trials, options.epochs, options.short)
    table = Table("what", "figure", title="study speed (targets: efficiency >= 0.90, fixed cost <= 0.2 s)")
    for name, value in figures.items():
        table.add_row(name, f"{value:.3g}")
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
