"""Studies with thousands of trials: overhead of the driver per trial, and duration of other commands afterwards.

    make scale                                                  (about an hour on two idle cores)
    python -m tests.benchmarks.scale --trials 500 1000          (a few minutes)
    python -m tests.benchmarks.scale --trials 1000 --cpus 100 --seconds 10 --search random
                                                                (a cluster of 100 logical CPUs on this machine)

Trials report simulated curves without training (`made_up_trials`). Everything else is real: the command `launch` with
its planner, searcher, scheduler, event log and MLflow on SQLite, then `status`, `report` and `export`, each in a
separate process.

`first` and `last` are the milliseconds per trial in the first and in the last thousand trials; if there are fewer
trials, in the first and in the second half. `CPU ms` is the CPU time of the driver per trial, including its start,
MLflow and the report. `a second` is the number of trials that the driver starts and ends per second, once every CPU has
run one trial.
"""

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from typing import Any
from unittest.mock import patch

from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file, save_file

from ensdistill.runtime.weights import read_metadata
from ensdistill_tune import StudyConfig, launch, load_results
from ensdistill_tune.execution import inline_runner
from ensdistill_tune.execution.executor import Name
from ensdistill_tune.execution.shared_inputs import SharedInputs
from ensdistill_tune.records.event_log import read_journal
from ensdistill_tune.records.events import SessionEnded, SessionStarted, TrialEnded
from ensdistill_tune.records.study_directory import StudyDirectory
from tests.benchmarks import made_up_trials
from tests.benchmarks.made_up_trials import STUDENT, MadeUpInputs
from tests.benchmarks.processes import peak_mib

Figures = dict[str, Any]
PART = 1000  # number of trials in the first and in the last part
SPACE: dict[str, Any] = {
    "preset": "latentbe",
    "config": {
        "data": {"kind": "digits", "train_size": 60, "val_size": 100},
        "model": {"width": 4},
        "teachers": {"count": 2, "model": {"width": 4}, "training": {"epochs": 1}},
        "training": {"epochs": 4, "batch_size": 10},
    },
    "search": {
        "loss.temperature": {"log_uniform": [1, 10]},
        "perturbation.step_size": {"log_uniform": [0.002, 0.2]},
        "training.optimizer.lr": {"log_uniform": [0.01, 1]},
        "averaging.kind": {"choice": ["none", "ema"]},
        "averaging.decay": {"uniform": [0.5, 0.9], "when": {"averaging.kind": "ema"}},
    },
    "baselines": ["kd", "latentbe"],
    "confirmation": {"top_k": 2, "seeds": 2},
}
SEARCHES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "random": ({"kind": "random"}, {"kind": "none"}),
    "tpe + asha": ({"kind": "tpe"}, {"kind": "asha", "grace_epochs": 1}),
}


def study_of(search: str, trials: int, epochs: int) -> StudyConfig:
    """Returns the study of one case."""
    searcher, scheduler = SEARCHES[search]
    config = SPACE["config"] | {"training": {"epochs": epochs, "batch_size": 10}}
    more = {"config": config, "searcher": searcher, "scheduler": scheduler, "budget": {"trials": trials}}
    return StudyConfig.model_validate(SPACE | more)


# --- inside the process of one study ---


@contextmanager
def made_up(epochs: int) -> Iterator[None]:
    """Replaces the trials of both executors inside the block."""

    def inputs(study: StudyConfig, folder: StudyDirectory, *_: Any) -> MadeUpInputs:
        return MadeUpInputs(str(folder.path.resolve()), epochs)

    with (
        patch.object(SharedInputs, "of", inputs),
        patch.object(inline_runner, "run_trial", made_up_trials.run_trial),
        patch("ensdistill_tune.execution.ray_runner.run_in_worker", made_up_trials.run_in_worker),
    ):
        yield


def prepare(studies: Path) -> None:
    """Trains teachers, and one student that all trials share."""
    study = study_of("random", 1, 1).model_dump(mode="json") | {"baselines": [], "confirmation": {"top_k": 0}}
    launch(StudyConfig.model_validate(study), name="first", studies_dir=studies, executor="inline", progress="off")
    shutil.copyfile(studies / "first" / "best" / STUDENT, studies / STUDENT)


@contextmanager
def cluster(cpus: int) -> Iterator[None]:
    """Starts Ray with this number of logical CPUs; with 0, the study itself starts Ray."""
    if not cpus:
        yield
        return
    import ray

    ray.init(address="local", num_cpus=cpus, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        yield
    finally:
        ray.shutdown()


def drive(study: StudyConfig, studies: Path, executor: Name, cpus: int) -> Figures:
    """Launches a study and returns its cost. CPU times do not depend on other load on the machine."""
    cpu = time.process_time()
    with made_up(study.epochs), cluster(cpus):
        launch(study, name="study", studies_dir=studies, executor=executor, progress="off")
    ended, cpu, peak = time.time(), time.process_time() - cpu, peak_mib()
    began = time.perf_counter()
    events = read_journal(studies / "study" / "events.jsonl")
    read = time.perf_counter() - began
    started = next(event.at for event in events if isinstance(event, SessionStarted))
    closed = next(event.at for event in events if isinstance(event, SessionEnded))
    times = [started, *(event.at for event in events if isinstance(event, TrialEnded))]
    count = len(times) - 1
    part = min(PART, count // 2)
    return {
        "trials": count,
        "first": (times[part] - times[0]) / part * 1000,
        "last": (times[-1] - times[-1 - part]) / part * 1000,
        "a trial": (times[-1] - times[0]) / count * 1000,
        "a second": (count - 2 * cpus) / (times[-1 - cpus] - times[cpus]) if count > 2 * cpus else math.nan,
        "with MLflow": (times[-1] - times[0] + ended - closed) / count * 1000,
        "CPU ms": cpu / count * 1000,
        "driver MiB": peak,
        "log MB": (studies / "study" / "events.jsonl").stat().st_size / 1e6,
        "log s": read,
    }


# --- the table ---


def command_seconds(*words: str) -> tuple[float, float]:
    """Returns the wall time and the CPU time of one command in a separate process, in seconds."""
    began, before = time.perf_counter(), getrusage(RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "ensdistill_tune", *words], check=True, stdout=subprocess.DEVNULL)
    after = getrusage(RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - began, used


def give_student(studies: Path) -> None:
    """Writes the student of the best trial with the settings of this trial, because `export` compares them."""
    results = load_results(studies / "study")
    trial = results.confirmed[0].best(results.study) if results.confirmed else results.order[0]
    config = results.study.config_for(trial)
    about = read_metadata(studies / STUDENT) | {"settings": config.hash, "config": config.model_dump_json()}
    file = studies / "study" / "trials" / f"{trial.number:05d}" / STUDENT
    file.unlink()  # a link to the student of all trials
    save_file(load_file(studies / STUDENT), file, about)


def measure(case: list[str], prepared: Path, seconds: str) -> Figures:
    """Returns all measurements of one study, which runs in a separate process. Each trial waits for `seconds`."""
    with tempfile.TemporaryDirectory() as folder:
        studies = Path(folder)
        shutil.copytree(prepared / "teachers", studies / "teachers")
        shutil.copyfile(prepared / STUDENT, studies / STUDENT)
        own = [sys.executable, "-m", "tests.benchmarks.scale", "--drive", folder, *case]
        environment = os.environ | {made_up_trials.SECONDS: seconds}
        done = subprocess.run(own, check=True, stdout=subprocess.PIPE, env=environment)
        figures: Figures = json.loads(done.stdout.splitlines()[-1])  # Ray prints warnings before it
        place = ("study", "--studies-dir", folder)
        give_student(studies)
        for command in ("status", "report", "export"):
            figures[f"{command} s"], figures[f"{command} CPU s"] = command_seconds(command, *place)
        figures["report MB"] = (studies / "study" / "report.html").stat().st_size / 1e6
    return figures


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[500, 1000, 2500, 5000])
    parser.add_argument("--epochs", type=int, default=4, help="number of epochs of each trial")
    parser.add_argument("--search", nargs="+", choices=SEARCHES, default=list(SEARCHES))
    parser.add_argument("--executor", choices=["ray", "inline"], default="ray")
    parser.add_argument("--cpus", type=int, default=0, help="logical CPUs of Ray (default: those of the machine)")
    parser.add_argument("--seconds", type=float, default=0, help="seconds that each trial waits")
    parser.add_argument("--json", type=Path, help="file to which the numbers are also written")
    parser.add_argument("--drive", type=Path, help=argparse.SUPPRESS)  # the process of one study
    options = parser.parse_args()
    if options.drive:
        study = study_of(options.search[0], options.trials[0], options.epochs)
        print(json.dumps(drive(study, options.drive, options.executor, options.cpus)))
        return
    console, rows = Console(width=100), []
    table = Table("", title=f"milliseconds a trial, and more; load {os.getloadavg()[1]:.1f} at the start")
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        for search in options.search:
            for trials in options.trials:
                case = ["--search", search, "--trials", str(trials)]
                case += ["--epochs", str(options.epochs), "--executor", options.executor, "--cpus", str(options.cpus)]
                rows.append({"search": search} | measure(case, Path(folder), str(options.seconds)))
                console.print(rows[-1])
    for row in rows:
        table.add_column(row["search"], justify="right")
    for name in list(rows[0])[1:]:
        table.add_row(name, *(f"{row[name]:,.0f}" if row[name] >= 1000 else f"{row[name]:.3g}" for row in rows))
    console.print(table)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
