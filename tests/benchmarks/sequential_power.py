"""Error rates, power and cost of the sequential test, by simulation.

    python tests/benchmarks/sequential_power.py --draws 1200
    python tests/benchmarks/sequential_power.py --draws 300 --alternatives      (other rules for the confirmation)

`compare` compares two settings with the decision rule of `ensdistill-tune compare`. `confirmation` runs the
confirmation of a study with the code of this package, for one or two baselines and up to three candidates. The total
rate of false "better" verdicts must be at most 5 %. Differences are in units of the standard deviation of the paired
differences. The cost is the number of replicates divided by the number of candidates, including baselines, so five
seeds per candidate have a cost of 5.
"""

import argparse
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from types import ModuleType
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ensdistill_tune.analysis import confirmation
from ensdistill_tune.analysis import verdict as about_verdict
from ensdistill_tune.analysis.confirmation import confirmation_of
from ensdistill_tune.analysis.replication import Candidate
from ensdistill_tune.analysis.sequential_test import FEWEST_TO_STOP, LEVEL, MOST_PAIRS, SequentialTest, crossing
from ensdistill_tune.analysis.verdict import compare, verdict
from ensdistill_tune.records.trial_record import METRICS, TrialRecord
from ensdistill_tune.study.study_config import StudyConfig

Array = NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, ...]], Array]
NEVER = MOST_PAIRS + 1
SCENARIOS: list[tuple[tuple[float, ...], tuple[float, ...]]] = [  # baselines, candidates
    ((0,), (0, 0, 0)),
    ((0,), (2, 0, 0)),
    ((0,), (2, 1, 0)),
    ((0,), (2, 2, 2)),
    ((0,), (1, 0, 0)),
    ((0,), (1, 1, 1)),
    ((0,), (0,)),
    ((0,), (2,)),
    ((0, 0), (0, 0, 0)),
    ((0, -0.5), (0, 0, 0)),
    ((0, -1), (0, 0, 0)),
    ((0, -2), (0, 0, 0)),
    ((0, -1), (2, 0, 0)),
]


def normal(random: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return random.standard_normal(shape)


def lognormal(random: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Returns samples with mean 0 and standard deviation 1; the skewness is 6.2."""
    return (np.exp(random.standard_normal(shape)) - np.exp(0.5)) / np.sqrt((np.e - 1) * np.e)


NOISE: dict[str, Draw] = {"normal": normal, "lognormal": lognormal}


def values(random: np.random.Generator, draw: Draw, draws: int, effects: tuple[float, ...]) -> Array:
    """Returns differences from the baseline (draws, candidates, pairs) with standard deviation 1."""
    arms = draw(random, (draws, len(effects) + 1, MOST_PAIRS)) / np.sqrt(2)
    return arms[:, 1:] - arms[:, :1] + np.array(effects)[:, None]


def decisions(differences: Array) -> tuple[float, float, float]:
    """Returns the rates of "better" and "worse" for pairs (draws, pairs), and the mean number of pairs."""
    up, down = (np.array([crossing(d, LEVEL / 2) or NEVER for d in sign * differences]) for sign in (1, -1))
    pairs = np.minimum(np.minimum(up, down), MOST_PAIRS)
    return float((up < down).mean()), float((down < up).mean()), float(pairs.mean())


def with_hopeless(differences: Array) -> tuple[float, float]:
    """Returns the rate of "better" and the mean number of pairs if hopeless comparisons end early."""
    outcomes, pairs = [], []
    for own in differences:
        for count in range(FEWEST_TO_STOP, MOST_PAIRS + 1):
            test = SequentialTest(tuple(own[:count]))
            if test.outcome != "undecided" or test.hopeless:
                break
        outcomes.append(test.outcome == "better")
        pairs.append(count)
    return float(np.mean(outcomes)), float(np.mean(pairs))


@dataclass(frozen=True)
class Race:
    """Confirmations of simulated studies with the code of this package.

    Attributes:
        baselines: True values of the baselines in standard deviations of paired differences; larger is better.
        effects: True values of the searched candidates, in the same unit.
        seeds: The setting `confirmation.seeds`.
    """

    baselines: tuple[float, ...]
    effects: tuple[float, ...]
    seeds: int

    @cached_property
    def study(self) -> StudyConfig:
        return StudyConfig(
            search={"loss.temperature": {"uniform": [1, 2]}},
            objective="val/accuracy",
            confirmation={"top_k": max(1, len(self.effects)), "seeds": self.seeds},
        )

    @cached_property
    def trials(self) -> list[TrialRecord]:
        return [record(n, n < len(self.baselines), 0.0) for n in range(len(self.baselines) + len(self.effects))]

    def one(self, values: Array) -> tuple[Candidate, Candidate | None, bool, float]:
        """Returns the winner, the best baseline, whether the verdict is "better", and the cost.

        Args:
            values: Values (candidates, pairs); baselines are the first candidates.
        """
        first = self.study.max_search_seed + 1
        replicates = [
            replace(record(n, n < len(self.baselines), float(v)), replicate_of=n, seed=first + k)
            for n, own in enumerate(values)
            for k, v in enumerate(own)
        ]
        found = confirmation_of(self.trials, replicates, self.study)
        about = verdict(found.candidates, self.study)
        return about.winner, about.baseline, about.better, found.planned / len(self.trials)

    def report(self, random: np.random.Generator, draw: Draw, draws: int) -> tuple[float, float, float, float]:
        """Returns the rates of false "better", correct "better" and wins of the best candidate, and the mean cost.

        "Better" is false if the winner is not better than the best baseline, including dropped baselines.
        """
        true, every = (*self.baselines, *self.effects), []
        for values in arms(random, draw, draws, true):
            winner, _, better, cost = self.one(values)
            right = true[winner.trial.number] > max(self.baselines)
            every.append((better and not right, better and right, true[winner.trial.number] == max(true), cost))
        return tuple(float(x) for x in np.mean(every, axis=0))  # type: ignore[return-value]


def record(number: int, baseline: bool, value: float) -> TrialRecord:
    """Returns a completed trial with the given value for each metric."""
    last = {"epoch": 1.0, "epochs": 1.0, **dict.fromkeys(METRICS, value)}
    name = f"baseline{number}" if baseline else None
    return TrialRecord(number, name, {}, f"hash{number}", "finished", [last])


def arms(random: np.random.Generator, draw: Draw, draws: int, true: tuple[float, ...]) -> Array:
    """Returns values (draws, settings, pairs) whose paired differences have standard deviation 1."""
    return draw(random, (draws, len(true), MOST_PAIRS)) / np.sqrt(2) + np.array(true)[:, None]


def report_pairs(random: np.random.Generator, draws: int) -> None:
    print("compare: better, worse, mean pairs")
    for (name, draw), effect in product(NOISE.items(), (0.0, 0.5, 0.75, 1.0, 1.5, 2.0)):
        own = values(random, draw, draws if not effect else draws // 4, (effect,))[:, 0]
        print(f"  {name:9s} {effect:4.2f} sd: {'  '.join(f'{x:.4f}' for x in decisions(own))}", flush=True)


def report_not_exchangeable(random: np.random.Generator, draws: int) -> None:
    print("equal means, not exchangeable: better, worse, mean pairs")
    skewed, plain, other = (draw(random, (draws, MOST_PAIRS)) for draw in (lognormal, normal, normal))
    for name, own in {
        "normal, spread 1 against 3": plain - 3 * other,
        "lognormal against normal, equal spread": skewed - plain,
        "lognormal against a constant": skewed,
    }.items():
        print(f"  {name}: {'  '.join(f'{x:.4f}' for x in decisions(own))}", flush=True)


def report_hopeless(random: np.random.Generator, draws: int) -> None:
    print("comparisons that also end if no decision is expected: better, mean pairs")
    for effect in (0.0, 0.75, 1.0):
        own = values(random, normal, draws, (effect,))[:, 0]
        print(f"  {effect:4.2f} sd: {'  '.join(f'{x:.4f}' for x in with_hopeless(own))}", flush=True)


def report_races(random: np.random.Generator, draws: int, seeds: int) -> None:
    print(f"confirmation with {seeds} seeds: false better, correct better, best candidate wins, cost")
    for (baselines, effects), (name, draw) in product(SCENARIOS, NOISE.items()):
        number = draws if max(effects) <= max(baselines) else draws // 4
        found = Race(baselines, effects, seeds).report(random, draw, number)
        print(f"  {name:9s} {baselines} {effects}: {'  '.join(f'{x:.4f}' for x in found)}", flush=True)


def report_unequal(random: np.random.Generator, draws: int, seeds: int) -> None:
    print(f"one baseline, three candidates of equal mean, not exchangeable, {seeds} seeds: false better")
    race = Race((0.0,), (0.0, 0.0, 0.0), seeds)
    normals, skewed = (draw(random, (draws, 4, MOST_PAIRS)) for draw in (normal, lognormal))
    spread, others = np.array([1.0, 3.0, 3.0, 3.0])[:, None], normals[:, 1:]
    some = {
        "baseline with a third of the spread": normals * spread,
        "baseline with three times the spread": normals / spread,
        "skewed baseline, rare bad seeds": np.concatenate([-skewed[:, :1], others], axis=1),
        "skewed baseline, rare good seeds": np.concatenate([skewed[:, :1], others], axis=1),
        "skewed baseline, rare good seeds, against constants": np.concatenate([skewed[:, :1], 0 * others], axis=1),
        "skewed candidates, rare bad seeds": np.concatenate([normals[:, :1], -skewed[:, 1:]], axis=1),
    }
    for name, values in some.items():
        print(f"  {name}: {np.mean([race.one(own)[2] for own in values]):.4f}", flush=True)


def never_won(candidate: Candidate, rival: Candidate, study: StudyConfig) -> bool:
    """Returns whether a candidate is worse than the rival in each pair; a rule for dropping candidates."""
    sign = 1 if study.mode == "max" else -1
    gains = [sign * d for d in compare(candidate, rival, study).differences]
    return len(gains) >= confirmation.FIRST_SEEDS and max(gains) < 0


DROP_RULE: tuple[ModuleType, str] = (confirmation, "is_clearly_behind")
ALTERNATIVES: dict[str, tuple[int, dict[tuple[ModuleType, str], Any]]] = {  # `confirmation.seeds`, replaced attributes
    "the rule of this package": (6, {}),
    "dropped if worse in each pair": (6, {DROP_RULE: never_won}),
    "dropped at two standard errors": (6, {(confirmation, "BEHIND"): 2.0}),
    "all dropped except the best": (6, {DROP_RULE: lambda *_: True}),
    "5 seeds": (5, {}),
    "8 seeds": (8, {}),
    "20 seeds": (20, {}),
    "exponent 1/3, 6 seeds": (6, {(about_verdict, "EARLY"): 1 / 3}),
    "exponent 1/3, 20 seeds": (20, {(about_verdict, "EARLY"): 1 / 3}),
}


def report_alternatives(seed: int, draws: int) -> None:
    """Prints power and cost of other rules on the same draws with normal noise."""
    print("other rules: false better, correct better, best candidate wins, cost")
    for name, (seeds, attributes) in ALTERNATIVES.items():
        with ExitStack() as stack:
            for (module, attribute), value in attributes.items():
                stack.enter_context(patch.object(module, attribute, value))
            for effects in ((0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (2.0, 0.0, 0.0), (2.0, 2.0, 2.0)):
                found = Race((0.0,), effects, seeds).report(np.random.default_rng(seed), normal, draws)
                print(f"  {name} {effects}: {'  '.join(f'{x:.4f}' for x in found)}", flush=True)


def students_t(effect: float, pairs: int, among: int) -> float:
    """Returns the power of Student's t, two-sided at 5 % divided by the number of candidates (noncentral t)."""
    limit = stats.t.ppf(1 - LEVEL / among / 2, pairs - 1)
    return float(stats.nct.sf(limit, pairs - 1, effect * pairs**0.5))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1200)
    parser.add_argument("--confirmation", type=int, nargs="*", default=[6], help="values of `confirmation.seeds`")
    parser.add_argument("--only-confirmation", action="store_true")
    parser.add_argument("--alternatives", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    random = np.random.default_rng(options.seed)
    if options.alternatives:
        report_alternatives(options.seed, options.draws)
        return
    print(f"{options.draws} draws, 95 % range of a rate of .05: +- {1.96 * (0.05 * 0.95 / options.draws) ** 0.5:.4f}")
    print(f"Student's t with five pairs, three candidates, 2 sd: {students_t(2.0, 5, 3):.2f}")
    for seeds in options.confirmation:
        report_races(random, options.draws, seeds)
        report_unequal(random, options.draws, seeds)
    if options.only_confirmation:
        return
    report_pairs(random, options.draws)
    report_not_exchangeable(random, options.draws)
    report_hopeless(random, options.draws // 16)


if __name__ == "__main__":
    main()
