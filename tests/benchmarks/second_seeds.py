"""Simulates whether a second seed for the leader during the search helps, with equal numbers of trainings.

    python -m tests.benchmarks.second_seeds                 (80 seeds; about 5 minutes on one idle core)

Settings are suggested by the TPE searcher of this package in the space of curves/digits.yaml, and mapped to the nearest
unused row of the table. The true value is the log NLL of the row after its last epoch; each training adds normal noise.
`plain` trains each row once. The other policies train the leader again instead of a new row, up to a maximum number of
seeds: `close` only while the lead is smaller than the standard deviation of the noise, `always` without this condition.
The searcher receives the mean values.

After the search, the best three rows by mean become candidates. They are confirmed with fresh seeds by the code of this
package, without a baseline. Each candidate has three seeds, clearly worse candidates are dropped, and there are at most
18 replicates.

- regret: true value minus the true value of the best row, for the row that ranks first in the search and for the winner
  of the confirmation;
- false winner: the row that ranks first in the search is not the best of the three candidates;
- optimism: true value minus score of the row that ranks first;
- rows: number of different settings that are trained.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import numpy as np

from ensdistill_tune.analysis.confirmation import confirmation_of
from ensdistill_tune.execution.trial_planner import suggester_of
from ensdistill_tune.records.trial_record import METRICS, TrialRecord
from ensdistill_tune.study.study_config import StudyConfig
from tests.benchmarks.curve_table import CurveTable
from tests.benchmarks.learning_curves import Task

POLICIES: dict[str, tuple[float, int]] = {  # (lead in standard deviations below which a seed is added, maximum seeds)
    "plain": (0.0, 1),
    "close, 2 seeds": (1.0, 2),
    "close, 3 seeds": (1.0, 3),
    "always, 2 seeds": (float("inf"), 2),
}
FIGURES = ("regret of the first", "regret of the winner", "false winner", "optimism", "rows")


@dataclass
class Noisy:
    """A table with noise.

    Attributes:
        table: The table.
        study: The space and its searcher.
        noise: Standard deviation of the noise.
        seed: Seed of the noise.
    """

    table: CurveTable
    study: StudyConfig
    noise: float
    seed: int

    def true(self, row: int) -> float:
        """Returns the true log NLL of a row."""
        return float(np.log(self.table.truth[row]))

    def train(self, row: int, number: int) -> float:
        """Returns the log NLL of the n-th training of a row."""
        return self.true(row) + self.noise * float(np.random.default_rng([self.seed, row, number]).standard_normal())


@dataclass
class Trained:
    """A row with the values of its trainings."""

    row: int
    sampled: dict[str, Any]
    memory: dict[str, Any]
    values: list[float] = field(default_factory=list)

    @property
    def mean(self) -> float:
        return fmean(self.values)

    def record(self, number: int, **more: Any) -> TrialRecord:
        last = {"epoch": 1.0, "epochs": 1.0, **dict.fromkeys(METRICS, self.mean)}
        hashed, memory = f"row{self.row}", self.memory
        return TrialRecord(number, None, self.sampled, hashed, "finished", [last], memory=memory, **more)


def search(task: Noisy, trainings: int, policy: tuple[float, int]) -> list[Trained]:
    """Returns the rows of one search, best mean first."""
    found: list[Trained] = []
    for _ in range(trainings):
        order = sorted(found, key=lambda one: one.mean)
        if needs_a_seed(order, policy, task.noise):
            order[0].values.append(task.train(order[0].row, len(order[0].values)))
            continue
        searcher = suggester_of(task.study)
        for number, one in enumerate(found, 1):
            searcher.restore(one.record(number))
        suggested = searcher.suggest(len(found) + 1)
        assert suggested is not None
        row = task.table.points.nearest(suggested[0], [one.row for one in found])
        found.append(Trained(row, task.table.settings[row], suggested[1], [task.train(row, 0)]))
    return sorted(found, key=lambda one: one.mean)


def needs_a_seed(order: Sequence[Trained], policy: tuple[float, int], noise: float) -> bool:
    """Returns whether the leader is trained again."""
    lead, most = policy
    return len(order) > 1 and len(order[0].values) < most and order[1].mean - order[0].mean < lead * noise


def winner(task: Noisy, chosen: Sequence[Trained]) -> Trained:
    """Returns the winner of the confirmation."""
    trials, done = [one.record(n) for n, one in enumerate(chosen)], list[TrialRecord]()
    while todo := confirmation_of(trials, done, task.study).todo:
        for of, seed in todo:
            one = chosen[of.number]
            again = Trained(one.row, one.sampled, {}, [task.train(one.row, 1000 + seed)])
            done.append(again.record(len(trials) + len(done), replicate_of=of.number, seed=seed))
    return chosen[confirmation_of(trials, done, task.study).candidates[0].trial.number]


def figures(table: CurveTable, seed: int, trainings: int, noise: float, policy: str) -> list[float]:
    """Returns the values of `FIGURES` for one search."""
    changed = {"searcher": {"kind": "tpe", "seed": seed}, "baselines": [], "confirmation": {"top_k": 3, "seeds": 6}}
    study = table.task.study.model_dump(mode="json") | changed | {"budget": {"trials": trainings}}
    task = Noisy(table, StudyConfig.model_validate(study), noise, seed)
    order = search(task, trainings, POLICIES[policy])
    true, best = [task.true(one.row) for one in order[:3]], float(np.log(table.truth.min()))
    final = task.true(winner(task, order[:3]).row)
    return [true[0] - best, final - best, float(true[0] > min(true)), true[0] - order[0].mean, len(order)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=80)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--trainings", type=int, default=24)
    parser.add_argument("--noise", type=float, nargs="+", default=[0.09, 0.27], help="standard deviations of log NLL")
    options = parser.parse_args()
    table = CurveTable(Task("digits"))
    seeds = range(options.first, options.first + options.seeds)
    for noise in options.noise:
        spread = np.log(table.truth).std()
        print(f"{options.trainings} trainings, sd of noise {noise:.2f}, of the rows {spread:.2f}: {', '.join(FIGURES)}")
        rows = {
            name: np.array([figures(table, seed, options.trainings, noise, name) for seed in seeds])
            for name in POLICIES
        }
        for name, own in rows.items():
            apart = (own - rows["plain"])[:, :4]
            half = 1.96 * apart.std(0, ddof=1) / len(apart) ** 0.5
            print(f"  {name:16s} " + "  ".join(f"{x:.4f}" for x in own.mean(0)))
            pairs = zip(apart.mean(0), half, strict=True)
            print("      minus plain  " + "  ".join(f"{d:+.4f} +- {h:.4f}" for d, h in pairs), flush=True)


if __name__ == "__main__":
    main()
