"""Measures the memory growth and the peak memory of a process that runs many trials.

    python -m tests.benchmarks.memory_growth              (200 trials; about 2 minutes on one core)

Every trial begins and ends as in a Ray worker; every third trial is stopped after its first epoch, as by a scheduler.
Growth is the difference between the mean of the last 20 trials and the mean of trials 21 to 40.
"""

import argparse
import json
from pathlib import Path
from statistics import fmean

from rich.console import Console
from rich.table import Table

from ensdistill import TeacherEnsemble, distill, load_config, load_data
from ensdistill.config import Config
from ensdistill.data import DataSplits
from ensdistill.models import build
from ensdistill.runtime.allocator import disable_malloc_trim
from ensdistill_tune.execution.memory import memory_limit
from tests.benchmarks.processes import peak_mib

MIB = 2**20
SMALL = ["model.width=8", "teachers.model.width=8", "training.epochs=2"]
WINDOW = 20  # number of trials after which the allocator is warm, and number of trials averaged at each end


def trial(config: Config, ensemble: TeacherEnsemble, data: DataSplits, *, stopped: bool) -> None:
    """Runs one trial from beginning to end."""
    try:
        with memory_limit(0):
            run = distill(config, ensemble, data)
            for _ in run:
                run.student()
                if stopped:
                    raise SystemExit  # as Ray ends a trial
    except SystemExit:
        pass


def resident_mib() -> float:
    """Returns the resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / MIB


def measure(trials: int, preset: str) -> dict[str, float]:
    """Returns the measurements in MiB."""
    disable_malloc_trim()  # as Ray workers do
    config = load_config(preset, SMALL)
    data = load_data(config.data)
    networks = [build(config.teachers.model, data, seed).eval() for seed in range(config.teachers.count)]
    ensemble = TeacherEnsemble(networks, len(data.class_names), "untrained")
    before, sizes = resident_mib(), []
    for number in range(trials):
        trial(config, ensemble, data, stopped=number % 3 == 0)
        sizes.append(resident_mib())
    early, late = fmean(sizes[WINDOW : 2 * WINDOW]), fmean(sizes[-WINDOW:])
    return {
        "trials": trials,
        "before the first trial": before,
        "after the first trial": sizes[0],
        f"after trials {WINDOW + 1} to {2 * WINDOW}": early,
        "after the last": late,
        "growth": late - early,
        "growth a trial": (late - early) / (trials - 2 * WINDOW),
        "peak of the process": peak_mib(),
        "of that since the first trial began": peak_mib() - before,
    }


def main() -> None:
    """Measures and prints all values."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--preset", default="latentbe")
    parser.add_argument("--json", type=Path, help="file for the measurements")
    options = parser.parse_args()
    figures = measure(options.trials, options.preset)
    table = Table("what", "MiB", title=f"memory of a worker, {options.preset} (no growth over 200 trials)")
    for name, value in figures.items():
        table.add_row(name, f"{value:.4g}")
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
