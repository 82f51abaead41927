"""Learning curves of real trainings, in tables whose rows are the trials of the searcher benchmark.

    python -m tests.benchmarks.learning_curves --rows 60        (about an hour and a half on one idle core)

A row of `curves/<task>.csv` is one training: its index in a scrambled Sobol sequence over the search space in
`curves/<task>.yaml`, its seed, its duration, its settings, and the validation NLL and calibrated NLL after each epoch.
All trainings of a task have the same teachers. Existing rows are not trained again, so the command can be resumed, and
a larger number of rows extends the tables.
"""

import argparse
import contextlib
import math
import time
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from ensdistill import distill, get_ensemble, load_data
from ensdistill.errors import DataError, DivergedError
from ensdistill.training.teacher_logits import TeacherLogitCache
from ensdistill_tune.search.search_space import Sampled
from ensdistill_tune.study.loading import load_study
from ensdistill_tune.study.study_config import StudyConfig
from tests.benchmarks.csv_rows import append_row, read_rows

CURVES = Path(__file__).parent / "curves"
TASKS = {"four_settings": (0, 1), "five_systems": (0, 1), "digits": (0,)}  # seeds of each task
METRICS = ("nll", "cnll")
GUESSING = math.log(10)  # value of a training that diverged, and upper limit of all values


class Task:
    """A search space and the file of its learning curves.

    Attributes:
        name: Name of both files.
        seeds: Seeds with which every row is trained.
        file: File of the learning curves.
    """

    def __init__(self, name: str) -> None:
        self.name, self.seeds, self.file = name, TASKS[name], CURVES / f"{name}.csv"

    @cached_property
    def study(self) -> StudyConfig:
        """The study of the search space, with suggestions from a Sobol sequence."""
        return load_study(self.file.with_suffix(".yaml"), ["searcher={kind: qmc}"])

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        curves = [f"{metric}_{epoch}" for metric in METRICS for epoch in range(1, self.study.epochs + 1)]
        return ["place", "seed", "seconds", *self.study.space.order, *curves]

    def rows(self) -> list[dict[str, str]]:
        """Returns the rows of the file; empty if the file is missing."""
        return read_rows(self.file)

    def settings(self, place: int) -> Sampled:
        """Returns the sampled settings at an index of the sequence."""
        return self.study.searcher.fixed_values(self.study.space, place) or {}

    def missing(self, rows: int) -> Iterator[tuple[int, int]]:
        """Yields the index and the seed of every training that is missing from the file.

        Raises:
            DataError: The settings of a row differ from those at its index in the sequence.
        """
        known = set()
        for row in self.rows():
            expected = as_text(self.settings(int(row["place"])))
            if {name: row[name] for name in expected} != expected:
                raise DataError(
                    f"{self.file}: settings must be those of {self.name}.yaml, got different settings at place "
                    f"{row['place']}. Delete the file, or restore the search space."
                )
            known.add((int(row["place"]), int(row["seed"])))
        return ((place, seed) for place in range(rows) for seed in self.seeds if (place, seed) not in known)


def as_text(sampled: Mapping[str, Any]) -> dict[str, str]:
    """Returns settings as a cell of the file."""
    return {name: f"{value:.4g}" if isinstance(value, float) else str(value) for name, value in sampled.items()}


class Trainer:
    """Trains and appends the rows of one task."""

    def __init__(self, task: Task, store: Path) -> None:
        self._task = task
        self._data = load_data(task.study.base_config.data, store)
        self._ensemble = get_ensemble(task.study.base_config, self._data, store / "teachers")
        self._cache = TeacherLogitCache(self._ensemble)

    def train(self, place: int, seed: int) -> None:
        """Trains one student and appends its row."""
        sampled, start = self._task.settings(place), time.perf_counter()
        epochs = range(1, self._task.study.epochs + 1)
        values = {f"{metric}_{epoch}": f"{GUESSING:.4g}" for metric in METRICS for epoch in epochs}
        with contextlib.suppress(DivergedError):
            config = self._task.study.trial_config({**sampled, "seed": seed})
            for epoch in distill(config, self._ensemble, self._data, cache=self._cache):
                for metric in METRICS:
                    values[f"{metric}_{epoch.number}"] = f"{min(epoch.val[metric], GUESSING):.4g}"
        seconds = f"{time.perf_counter() - start:.1f}"
        row = {"place": place, "seed": seed, "seconds": seconds, **as_text(sampled), **values}
        append_row(self._task.file, self._task.columns, row)


def main() -> None:
    """Runs the missing trainings, alternating between the tasks, so that all tables grow together."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=60, help="number of settings of each task")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--store", type=Path, default=Path("studies"), help="folder of the teachers")
    options = parser.parse_args()
    tasks = [Task(name) for name in options.tasks]
    trainers = {task.name: Trainer(task, options.store) for task in tasks}
    todo = sorted((place, n, seed) for n, task in enumerate(tasks) for place, seed in task.missing(options.rows))
    for done, (place, n, seed) in enumerate(todo):
        print(f"{done} of {len(todo)}: {tasks[n].name}, place {place}, seed {seed}", flush=True)
        trainers[tasks[n].name].train(place, seed)


if __name__ == "__main__":
    main()
