"""Measures how many epochs a searcher with a scheduler requires to reach the final best value of random search.

    make bench-search                                             (40 seeds of all searchers and of other packages)
    python -m tests.benchmarks.search_speed --who "tpe + asha"    (one searcher)
    python -m tests.benchmarks.search_speed --first 1000          (other seeds, for choosing defaults)

Trials are rows of tables of real learning curves (learning_curves.py), without a model of the curves. Random search
trains half of the rows (a quarter on `digits`) to their last epoch, in random order. Every other searcher gets the same
number of epochs. A suggestion is mapped to the nearest unused row (row_points.py), and the searcher receives the
settings of this row as its own suggestion; `random` takes any unused row. Two trials run at a time.

A search uses the curves of one seed: the first seed for even benchmark seeds, and the second seed for odd ones. Its
best three trials are then confirmed with the other seed (`digits` has a single seed and no confirmation). The output
has the following values, with 95 % intervals over paired benchmark seeds:

- epochs: epochs of all trials until one completes with a value as low as the best of random search, divided by the
  epochs of random search; 1 if no trial does
- regret: NLL of the confirmed trial minus the NLL of the best row of the table, both as means of the two seeds, in
  units of the mean regret of random search
- false winners: share of searches whose best trial is not the best of the three candidates by the mean of both seeds
"""

import argparse
import json
import math
import multiprocessing
import statistics
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import optuna
from numpy.typing import NDArray

from ensdistill.evaluation.tables import markdown_table
from tests.benchmarks.curve_table import CurveTable
from tests.benchmarks.learning_curves import METRICS, TASKS, Task
from tests.benchmarks.search_peers import PEERS
from tests.benchmarks.search_peers_environment import MISSING, environment, run
from tests.benchmarks.table_search import WAYS, Story, random_search, search

CANDIDATES = 3
OURS, RANDOM = "tpe + asha", "random"
DRAWS = 10_000  # number of bootstrap samples
# Random search trains one in n rows, where n depends on the task. The rungs of `digits` are so early that with half of
# the rows, early stopping would reach all rows.
SHARE = {"four_settings": 2, "five_systems": 2, "digits": 4}


@dataclass(frozen=True)
class Outcome:
    """Result of one search.

    Attributes:
        epochs: Epochs until a trial is as good as the best of random search, divided by the epochs of random search;
            1 if no trial is.
        regret: Regret of the confirmed trial, in NLL or in units of the mean regret of random search.
        false_winner: 1 if the best trial of the search is not the best of its candidates, else 0; NaN if there is no
            second seed.
    """

    epochs: float
    regret: float
    false_winner: float


def judge(story: Story, table: CurveTable, seed: int, trials: int) -> Outcome:
    """Returns the outcome of a search."""
    ends = table.curves[:, :, -1]
    own = seed % ends.shape[1]
    seen, other = ends[:, own], ends[:, own - 1]  # equal if there is a single seed
    limit = trials * table.epochs
    target = min(seen[row] for _, row in random_search(table, seed, trials))
    reached = [trained for trained, row in story if seen[row] <= target]
    rows = [row for trained, row in story if trained <= limit] or [story[0][1]]
    candidates = sorted(rows, key=lambda row: seen[row])[:CANDIDATES]
    confirmed = min(candidates, key=lambda row: other[row])
    best = min(candidates, key=lambda row: table.truth[row])
    regret = float(table.truth[confirmed] - table.truth.min())
    wrong = math.nan if ends.shape[1] == 1 else float(best != candidates[0])
    return Outcome(min([1.0, *(trained / limit for trained in reached)]), regret, wrong)


Outcomes = dict[str, list[Outcome]]  # outcomes of each searcher, in the order of the seeds


def quiet() -> None:
    """Hides Optuna's warnings about conditional settings, which repeat for each suggestion."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def measure(table: CurveTable, who: Iterable[str], python: Path | None, trials: int, seeds: range) -> Outcomes:
    """Returns the outcomes of all searches of a task; one search per core runs at a time.

    Args:
        table: The learning curves.
        who: Names of the searchers of this package.
        python: Interpreter in which the peers are installed, or None to leave them out.
        trials: Number of trials of random search.
        seeds: The benchmark seeds.
    """
    stories = {RANDOM: [random_search(table, seed, trials) for seed in seeds]}
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn"), initializer=quiet) as pool:
        for name in who:
            stories[name] = list(pool.map(partial(search, WAYS[name], table, trials=trials), seeds))
            print(f"{table.task.name}: {name}", flush=True)
    for name in PEERS if python else ():
        try:
            stories[name] = run(python, name, table, trials, seeds)
        except RuntimeError as error:  # the results of the other packages are kept
            print(error, flush=True)
        else:
            print(f"{table.task.name}: {name}", flush=True)
    found = {
        name: [judge(story, table, seed, trials) for story, seed in zip(runs, seeds, strict=True)]
        for name, runs in stories.items()
    }
    unit = statistics.fmean(run.regret for run in found[RANDOM])
    found[RANDOM] = [replace(run, epochs=1.0) for run in found[RANDOM]]  # by definition
    return {name: [replace(run, regret=run.regret / unit) for run in runs] for name, runs in found.items()}


def interval(values: Sequence[float]) -> str:
    """Returns the mean of paired values and its 95 % bootstrap interval."""
    low, high = np.quantile(_resampled(values), [0.025, 0.975])
    return f"{statistics.fmean(values):.2f} ({low:.2f} to {high:.2f})"


def ratio(values: Sequence[float], reference: Sequence[float]) -> str:
    """Returns the ratio of two means over the same seeds and its 95 % bootstrap interval."""
    low, high = np.quantile(_resampled(values) / _resampled(reference), [0.025, 0.975])
    return f"{statistics.fmean(values) / statistics.fmean(reference):.2f} ({low:.2f} to {high:.2f})"


def _resampled(values: Sequence[float]) -> NDArray[np.float64]:
    """Returns means over resampled seeds; sequences of the same length use the same resampled seeds."""
    draws = np.random.default_rng(0).integers(len(values), size=(DRAWS, len(values)))
    means: NDArray[np.float64] = np.asarray(values)[draws].mean(1)
    return means


def table_of(found: Outcomes) -> str:
    """Returns a table with one row per searcher."""
    reference = OURS if OURS in found else RANDOM
    against = (f"epochs / those of {reference}", f"regret of {reference} minus this")
    columns = ("searcher", "epochs", against[0], "regret", against[1], "false winners")
    ours, rows = found[reference], []
    for name, runs in found.items():
        epochs, regrets = [run.epochs for run in runs], [run.regret for run in runs]
        difference = [mine.regret - regret for mine, regret in zip(ours, regrets, strict=True)]
        wrong = f"{statistics.fmean(run.false_winner for run in runs):.2f}".replace("nan", "-")
        paired = ratio(epochs, [run.epochs for run in ours])
        rows.append([name, interval(epochs), paired, interval(regrets), interval(difference), wrong])
    return markdown_table(columns, rows)


def pooled(tasks: Mapping[str, Outcomes]) -> Outcomes:
    """Returns the means over tasks, seed by seed, of each searcher that has completed all tasks."""
    first = next(iter(tasks.values()))
    return {
        name: [
            Outcome(
                *(float(np.nanmean([getattr(run, field) for run in runs])) for field in Outcome.__dataclass_fields__)
            )
            for runs in zip(*(found[name] for found in tasks.values()), strict=True)
        ]
        for name in first
        if all(name in found for found in tasks.values())
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--who", nargs="*", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--peers", action="store_true", help="also run other packages, in a separate environment")
    parser.add_argument("--tasks", nargs="+", default=TASKS, choices=TASKS)
    parser.add_argument("--metric", default="nll", choices=METRICS)
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--first", type=int, default=0, help="first benchmark seed")
    parser.add_argument("--json", type=Path, help="file to which the outcomes are also written")
    options = parser.parse_args()
    seeds, found = range(options.first, options.first + options.seeds), dict[str, Outcomes]()
    with environment() if options.peers else nullcontext() as python:
        for name in options.tasks:
            table = CurveTable(Task(name), options.metric)
            trials = len(table.settings) // SHARE[name]
            found[name] = measure(table, options.who, python, trials, seeds)
            print(f"\n{name}: {table}; random search of {trials} trials; {options.seeds} benchmark seeds\n")
            print(table_of(found[name]), flush=True)
    if len(found) > 1:
        print(f"\nmean over tasks\n\n{table_of(pooled(found))}")
    if options.peers:
        print(f"\nnot installed: {MISSING}")
    if options.json:
        plain = {task: {who: [asdict(run) for run in runs] for who, runs in of.items()} for task, of in found.items()}
        options.json.write_text(json.dumps(plain) + "\n")


if __name__ == "__main__":
    main()
