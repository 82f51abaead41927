"""Compares students trained in bfloat16 with students trained in float32: five seeds each, with the same teachers.

    python -m tests.benchmarks.precision            (digits, the five systems; about 3 minutes on two cores)

Each seed determines the split, the teachers and the student, so differences are paired by seed. `z` is the mean
difference divided by its standard error. With five seeds, |z| exceeds 2.8 by chance in one case out of twenty.
"""

import argparse
import json
import statistics
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ensdistill import distill, get_ensemble, load_config, load_data

SYSTEMS = ("latentbe", "diversity", "ekd", "unikd", "aekd")
PRECISIONS = ("float32", "bfloat16")
Metrics = dict[str, float]


def trained(system: str, seed: int, precision: str, store: str) -> Metrics:
    """Returns the validation metrics of one student."""
    seeds = [f"seed={seed}", f"data.seed={seed}", f"teachers.seed={10 * seed}"]
    config = load_config(system, ["training.epochs=60", f"training.precision={precision}", *seeds])
    data = load_data(config.data)
    *_, last = distill(config, get_ensemble(config, data, store), data)
    return last.val


def compared(float32: list[Metrics], bfloat16: list[Metrics], metric: str) -> Metrics:
    """Returns the means for both precisions, their difference and its z value."""
    apart = [two[metric] - one[metric] for one, two in zip(float32, bfloat16, strict=True)]
    error = statistics.stdev(apart) / len(apart) ** 0.5
    return {
        "float32": statistics.fmean(run[metric] for run in float32),
        "bfloat16": statistics.fmean(run[metric] for run in bfloat16),
        "sd over seeds": statistics.stdev(run[metric] for run in float32),
        "difference": statistics.fmean(apart),
        "z": statistics.fmean(apart) / error if error else 0.0,
    }


def measure(systems: list[str], seeds: int, store: str) -> dict[str, dict[str, Metrics]]:
    """Returns the comparison of every system, by metric."""
    for seed in range(seeds):  # teachers are trained first, so that no process waits for them later
        print(f"teachers of seed {seed}", flush=True)
        config = load_config(systems[0], [f"data.seed={seed}", f"teachers.seed={10 * seed}"])
        get_ensemble(config, load_data(config.data), store)
    todo = list(product(systems, PRECISIONS, range(seeds)))
    found: dict[tuple[str, str], list[Metrics]] = {(system, precision): [] for system, precision, _ in todo}
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:  # in a process forked after a training, torch hangs
        jobs = [pool.submit(trained, system, seed, precision, store) for system, precision, seed in todo]
        for (system, precision, seed), job in zip(todo, jobs, strict=True):
            found[system, precision].append(job.result())
            nll = found[system, precision][-1]["nll"]
            print(f"{system}, seed {seed}, {precision}: validation NLL {nll:.3f}", flush=True)
    both = {system: [found[system, precision] for precision in PRECISIONS] for system in systems}
    return {s: {m: compared(*runs, m) for m in ("accuracy", "nll", "ece")} for s, runs in both.items()}


def table_of(figures: dict[str, dict[str, Metrics]]) -> Table:
    """Returns a table with one row per system and metric."""
    names = [*PRECISIONS, "sd over seeds", "difference", "z"]
    table = Table("system", "metric", *names, title="validation: bfloat16 beside float32")
    for system, metrics in figures.items():
        for metric, values in metrics.items():
            cells = [f"{values[name]:.4f}" for name in names[:-1]]
            table.add_row(system, metric, *cells, f"{values['z']:.1f}")
    return table


def main() -> None:
    """Measures and prints the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--store", default="studies/teachers", help="folder of the teachers")
    parser.add_argument("--json", type=Path, help="file for the measurements")
    options = parser.parse_args()
    figures = measure(options.systems, options.seeds, options.store)
    Console().print(table_of(figures))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
