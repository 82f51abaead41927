"""Simulates whether a second seed for the leader during the search helps, with equal numbers of trainings.

    python -m tests.benchmarks.second_seeds                 (100 seeds; about 15 minutes on one core)

Settings are sampled from the space of search_spaces/digits.yaml by the TPE searcher of this project. Their true value
is the mean of log NLL in curves_model.py, and each training adds the noise of a real training, multiplied by a factor.
`plain` trains all settings once. The other policies train the leader again instead of new settings, up to a number of
seeds: always (`always`), or as long as its lead is below the standard deviation of the noise (`close`). The searcher
receives the means.

After the search, the best three settings by mean become candidates. They are confirmed with fresh seeds by the rules of
this project without a baseline: three seeds, clearly worse candidates are dropped, at most 18 replicates.

- regret: true value minus the best true value of 20,000 random settings, for the settings that rank first in the search
  and for the winner of the confirmation;
- false winner: the settings that rank first in the search are not the best of the three candidates;
- optimism: true value minus score, for the settings that rank first.
"""

import argparse
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import numpy as np
from tests.benchmarks.curves_model import Curves
from tests.benchmarks.digits_curves import study_of

from ensdistill_tune.analysis.confirmation import confirmation_of
from ensdistill_tune.execution.trial_planner import suggester_of
from ensdistill_tune.records.trial_record import METRICS, TrialRecord
from ensdistill_tune.study.study_config import StudyConfig

POLICIES: dict[str, tuple[float, int]] = {  # lead in standard deviations below which a seed is added; most seeds
    "plain": (0.0, 1),
    "close, 2 seeds": (1.0, 2),
    "close, 3 seeds": (1.0, 3),
    "always, 2 seeds": (float("inf"), 2),
}
FIGURES = ("regret of the first", "regret of the winner", "false winner", "optimism", "settings")


@dataclass
class Task:
    """True values and noise.

    Attributes:
        curves: Model fitted to real trainings.
        study: The search space and its searcher.
        factor: Factor of the noise.
        seed: Seed of the noise.
    """

    curves: Curves
    study: StudyConfig
    factor: float
    seed: int = 0

    def true(self, sampled: dict[str, Any]) -> float:
        """Returns the true log NLL of settings."""
        point = np.array([self.curves._point(sampled)])
        return float(self.curves._mean(self.curves._model, point)[0, -1])

    def train(self, sampled: dict[str, Any], number: int) -> float:
        """Returns the log NLL of the n-th training of settings."""
        words = json.dumps([sampled, number, self.seed], sort_keys=True).encode()
        place = int.from_bytes(hashlib.sha256(words).digest()[:8], "big") % len(self.curves.residuals)
        return self.true(sampled) + self.factor * float(self.curves.residuals[place, -1])

    @property
    def noise(self) -> float:
        """Standard deviation of the noise."""
        return self.factor * float(self.curves.residuals[:, -1].std())


@dataclass
class Settings:
    """Settings with the values of their trainings."""

    sampled: dict[str, Any]
    memory: dict[str, Any]
    values: list[float] = field(default_factory=list)

    @property
    def mean(self) -> float:
        return fmean(self.values)

    def record(self, number: int, **more: Any) -> TrialRecord:
        last = {"epoch": 1.0, "epochs": 1.0, **dict.fromkeys(METRICS, self.mean)}
        return TrialRecord(
            number, None, self.sampled, repr(self.sampled), "finished", [last], memory=self.memory, **more
        )


def search(task: Task, trainings: int, policy: tuple[float, int]) -> list[Settings]:
    """Returns the settings of one search, sorted by mean, best first."""
    found: list[Settings] = []
    for _ in range(trainings):
        order = sorted(found, key=lambda s: s.mean)
        if needs_a_seed(order, policy, task.noise):
            order[0].values.append(task.train(order[0].sampled, len(order[0].values)))
            continue
        searcher = suggester_of(task.study)
        for number, settings in enumerate(found, 1):
            searcher.restore(settings.record(number))
        suggested = searcher.suggest(len(found) + 1)
        assert suggested is not None
        found.append(Settings(*suggested))
        found[-1].values.append(task.train(found[-1].sampled, 0))
    return sorted(found, key=lambda s: s.mean)


def needs_a_seed(order: Sequence[Settings], policy: tuple[float, int], noise: float) -> bool:
    """Returns whether the leader is trained again."""
    lead, most = policy
    return len(order) > 1 and len(order[0].values) < most and order[1].mean - order[0].mean < lead * noise


def winner(task: Task, chosen: Sequence[Settings]) -> int:
    """Returns the index of the winner of the confirmation."""
    trials, done = [s.record(n) for n, s in enumerate(chosen)], list[TrialRecord]()
    while todo := confirmation_of(trials, done, task.study).todo:
        for of, seed in todo:
            value = task.train(of.sampled, 1000 + seed)
            again = Settings(of.sampled, {}, [value])
            done.append(again.record(len(trials) + len(done), replicate_of=of.number, seed=seed))
    return confirmation_of(trials, done, task.study).candidates[0].trial.number


def one(curves: Curves, seed: int, trainings: int, factor: float, policy: str, best: float) -> list[float]:
    """Returns the results of one search."""
    changed = {"searcher": {"kind": "tpe", "seed": seed}, "baselines": [], "confirmation": {"top_k": 3, "seeds": 6}}
    study = StudyConfig.model_validate(study_of().model_dump(mode="json") | changed | {"budget": {"trials": trainings}})
    task = Task(curves, study, factor, seed)
    order = search(task, trainings, POLICIES[policy])
    true = [task.true(s.sampled) for s in order[:3]]
    final = true[winner(task, order[:3])]
    return [true[0] - best, final - best, float(true[0] > min(true)), true[0] - order[0].mean, len(order)]


def best_value(curves: Curves, study: StudyConfig) -> float:
    """Returns the best true value of 20,000 random settings."""
    random = np.random.default_rng(0)
    points = [study.space.draw(lambda _, axis: axis.from_unit_interval(random.random())) for _ in range(20_000)]
    parts = np.array_split(np.array([curves._point(p) for p in points]), 20)
    return min(float(curves._mean(curves._model, part)[:, -1].min()) for part in parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--trainings", type=int, nargs="+", default=[24])
    parser.add_argument("--factors", type=float, nargs="+", default=[1.0, 3.0])
    options = parser.parse_args()
    curves = Curves(study_of())
    best = best_value(curves, study_of())
    for trainings in options.trainings:
        for factor in options.factors:
            noise = factor * curves.residuals[:, -1].std()
            print(f"{trainings} trainings, sd of noise {noise:.3f}, of all {curves.spread:.3f}: {', '.join(FIGURES)}")
            plain = None
            for policy in POLICIES:
                seeds = range(options.first, options.first + options.seeds)
                rows = np.array([one(curves, seed, trainings, factor, policy, best) for seed in seeds])
                plain = rows if plain is None else plain
                apart = rows[:, :4] - plain[:, :4]
                half = 1.96 * apart.std(0, ddof=1) / len(apart) ** 0.5
                means = "  ".join(f"{x:.4f}" for x in rows.mean(0))
                print(f"  {policy:16s} {means}", flush=True)
                print(
                    f"  {'  minus plain':16s} "
                    + "  ".join(f"{d:+.4f} +- {h:.4f}" for d, h in zip(apart.mean(0), half, strict=True))
                )


if __name__ == "__main__":
    main()
