"""Error rates, power and cost of the sequential test, by simulation.

    python tests/benchmarks/sequential_power.py --draws 4000

`compare`: two settings, with the decision rule of `ensdistill-tune compare`. `race`: several candidates against one
baseline, with a total error rate of 5 % for all false "better" decisions. Candidates that are clearly worse are
dropped, and the race ends with the first decision. Differences are in units of the standard deviation of the paired
differences. `cost` is the number of trainings divided by the number of settings, so 5 is the cost of five seeds for
each setting.
"""

import argparse
from collections.abc import Callable
from itertools import product

import numpy as np
from numpy.typing import NDArray

from ensdistill_tune.analysis.sequential_test import (
    EARLY,
    EXPONENT,
    FEWEST_TO_DROP,
    LEVEL,
    MOST_PAIRS,
    SequentialTest,
    clearly_behind,
    crossing,
)
from ensdistill_tune.analysis.statistics import power

Array = NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, ...]], Array]
NEVER = MOST_PAIRS + 1


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
    """Returns the rate of "better" and the mean number of pairs if a comparison also ends when it is hopeless."""
    outcomes, pairs = [], []
    for own in differences:
        for count in range(FEWEST_TO_DROP, MOST_PAIRS + 1):
            test = SequentialTest(tuple(own[:count]))
            if test.outcome != "undecided" or test.hopeless:
                break
        outcomes.append(test.outcome == "better")
        pairs.append(count)
    return float(np.mean(outcomes)), float(np.mean(pairs))


def first_crossings(own: Array, exponent: float) -> dict[tuple[int, int], int]:
    """Returns the number of pairs until a decision, for each candidate and each size of a subset."""
    sizes = range(1, len(own) + 1)
    return {(c, m): crossing(own[c], LEVEL / m, exponent) or NEVER for c, m in product(range(len(own)), sizes)}


def race(own: Array, first: dict[tuple[int, int], int], most: int) -> tuple[set[int], int]:
    """Returns the candidates (candidates, pairs) decided to be better, and the number of trainings."""
    candidates = range(len(own))
    known, left = dict.fromkeys(candidates, 0), set(candidates)
    for pairs in range(FEWEST_TO_DROP, most + 1):
        known |= dict.fromkeys(left, pairs)
        decided = [{c for c in candidates if first[c, m] <= known[c]} for m in range(1, len(own) + 1)]
        better = {c for c in candidates if all(c in d or len(own) - len(d) < m for m, d in enumerate(decided, 1))}
        if better:
            break
        leader = max(left, key=lambda c: own[c, :pairs].mean())
        left -= {c for c in left if clearly_behind(own[c, :pairs], own[leader, :pairs])}
    return better, sum(known.values()) + pairs


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
    print("comparisons that also end where no decision is to be expected: better, mean pairs")
    for effect in (0.0, 0.75, 1.0):
        own = values(random, normal, draws, (effect,))[:, 0]
        print(f"  {effect:4.2f} sd: {'  '.join(f'{x:.4f}' for x in with_hopeless(own))}", flush=True)


def report_race(random: np.random.Generator, draws: int, exponent: float) -> None:
    print(f"race with exponent {exponent:.2f}: a false better, a right better, cost; at most 20 pairs, then at most 8")
    scenarios = [(0.0, 0.0, 0.0), (2.0, 0.0, 0.0), (2.0, 1.0, 0.0), (2.0, 2.0, 2.0), (1.0, 0.0, 0.0)]
    for effects, (name, draw) in product(scenarios, NOISE.items()):
        drawn = values(random, draw, draws if not any(effects) else draws // 4, effects)
        first = [first_crossings(own, exponent) for own in drawn]
        true = {c for c, effect in enumerate(effects) if effect}
        for most in (MOST_PAIRS, 8):
            found = [race(own, known, most) for own, known in zip(drawn, first, strict=True)]
            wrong, right = (np.mean([bool(f(better)) for better, _ in found]) for f in (true.__rsub__, true.__and__))
            cost = np.mean([trainings for _, trainings in found]) / (len(effects) + 1)
            print(f"  {name:9s} {effects} {most}: {wrong:.4f}  {right:.4f}  {cost:.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=4000)
    parser.add_argument("--exponents", type=float, nargs="+", default=[EXPONENT, EARLY], help="of races")
    parser.add_argument("--race", action="store_true", help="only races")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    random = np.random.default_rng(options.seed)
    print(f"{options.draws} draws, 95 % range of a rate of .05: +- {1.96 * (0.05 * 0.95 / options.draws) ** 0.5:.4f}")
    print(f"Student's t with five pairs, three candidates, 2 sd: {power(2.0, 5, 3):.2f}")
    for exponent in options.exponents:
        report_race(random, options.draws, exponent)
    if options.race:
        return
    report_pairs(random, options.draws)
    report_not_exchangeable(random, options.draws)
    report_hopeless(random, options.draws // 16)


if __name__ == "__main__":
    main()
