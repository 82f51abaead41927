"""Fronts agree with brute force, hypervolumes with closed forms; early stopping on problems with a known front."""

import heapq
import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pytest
from ray.tune.schedulers.async_hyperband import _Bracket

from ensdistill_tune.search.pareto import (
    ParetoRungs,
    fronts,
    pareto_front_indices,
    rungs,
    select_diverse,
    to_minimization,
)

NAN, INF = math.nan, math.inf


def objective_vectors(seed: int, n: int, objectives: int, levels: int | None = 4) -> list[list[float]]:
    """Returns random points; few levels make many of them equal in some or all objectives."""
    rng = random.Random(seed)
    draw = rng.random if levels is None else lambda: float(rng.randrange(levels))
    return [[draw() for _ in range(objectives)] for _ in range(n)]


def is_dominated(b: Sequence[float], others: Sequence[Sequence[float]]) -> bool:
    """Implements the definition with plain loops."""
    return any(
        all(x <= y for x, y in zip(a, b, strict=True)) and any(x < y for x, y in zip(a, b, strict=True)) for a in others
    )


def fronts_by_definition(values: list[list[float]]) -> list[list[int]]:
    left, found = list(range(len(values))), []
    while left:
        found.append([i for i in left if not is_dominated(values[i], [values[j] for j in left])])
        left = [i for i in left if i not in found[-1]]
    return found


# Dominance


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([1, 2], [1, 3], True),
        ([1, 3], [1, 2], False),
        ([1, 2], [1, 2], False),
        ([1, 3], [2, 2], False),
        ([0], [1], True),
        ([1, 2], [NAN, 2], True),
        ([NAN, 2], [1, 2], False),
        ([NAN, 1], [INF, 2], True),
    ],
)
def test_a_point_dominates_another_if_it_is_never_worse_and_better_in_at_least_one_objective(
    a: list[float], b: list[float], expected: bool
) -> None:
    assert (fronts([a, b]) == [[0], [1]]) is expected


def test_maximized_objectives_are_negated() -> None:
    assert to_minimization([0.1, 0.9, 3], ["min", "max", "min"]) == (0.1, -0.9, 3)
    with pytest.raises(ValueError, match="zip"):
        to_minimization([0.1, 0.9], ["min"])


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(10))
def test_fronts_agree_with_the_definition(objectives: int, seed: int) -> None:
    for levels in (2, 5, None):
        values = objective_vectors(seed, 40, objectives, levels)
        assert fronts(values) == fronts_by_definition(values)
        assert pareto_front_indices(values) == fronts_by_definition(values)[0]


@pytest.mark.parametrize("seed", range(10))
def test_a_permutation_of_the_points_only_permutes_the_fronts(seed: int) -> None:
    values = objective_vectors(seed, 50, 2)
    order = list(range(50))
    random.Random(seed).shuffle(order)
    moved = fronts([values[i] for i in order])
    assert [sorted(order[i] for i in some) for some in moved] == fronts(values)


def test_an_empty_set_of_points_has_no_front() -> None:
    assert (fronts([]), pareto_front_indices([]), select_diverse([], 3)) == ([], [], [])


# Selection of diverse points


def test_diverse_points_begin_with_both_ends_of_the_front_followed_by_points_between_them() -> None:
    line = [[0.55, 45], [0.0, 100], [0.1, 90], [1.0, 0], [1.0, 50]]  # the last point is dominated
    assert [select_diverse(line, k) for k in (0, 1, 2, 3, 9)] == [[], [1], [1, 3], [1, 3, 0], [1, 3, 0, 2]]


@pytest.mark.parametrize("seed", range(20))
def test_diverse_points_are_distinct_points_of_the_front_and_begin_with_the_best_point(seed: int) -> None:
    values = objective_vectors(seed, 40, 3)
    different = {tuple(values[i]) for i in pareto_front_indices(values)}
    for k in range(1, 12):
        chosen = select_diverse(values, k)
        assert set(chosen) <= set(pareto_front_indices(values))
        assert len({tuple(values[i]) for i in chosen}) == len(chosen) == min(k, len(different))
        assert values[chosen[0]] == min(values[i] for i in pareto_front_indices(values))


def test_diverse_points_do_not_depend_on_units() -> None:
    steep = [[0.0, 1000.0], [1.0, 0.0], [0.02, 500.0], [0.5, 450.0]]
    assert select_diverse(steep, 3) == select_diverse([[1000 * a, b] for a, b in steep], 3) == [0, 1, 3]


# Hypervolume


def hypervolume(values: Sequence[Sequence[float]], reference: Sequence[float]) -> float:
    """Returns the area between points and a reference that is worse in both objectives, by a sweep; larger is better.

    Points that are not better than the reference in both objectives add nothing. Zitzler and Thiele 1999.
    """
    points = np.array(sorted(tuple(point) for point in values if point[0] < reference[0] and point[1] < reference[1]))
    if not len(points):
        return 0.0
    heights = np.diff(np.minimum.accumulate(points[:, 1]), prepend=reference[1])
    return float((reference[0] - points[:, 0]) @ -heights)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([[1, 1]], 6),  # 2 x 3
        ([[1, 1], [1, 1]], 6),
        ([[2, 1], [1, 3]], 1 * 3 + 2 * 1 - 1 * 1),
        ([[2, 1], [1, 3], [2.5, 3.5]], 4),  # one is dominated
        ([[2, 1], [1, 3], [0, 4], [-9, 5]], 4),  # one on the border, one outside
        ([[2, 1], [1, 3], [0, NAN]], 4),
    ],
)
def test_hypervolume_of_two_objectives_equals_the_hand_computed_value(
    values: list[list[float]], expected: float
) -> None:
    assert hypervolume(values, [3, 4]) == expected


# Rungs


@pytest.mark.parametrize("factor", [2, 3, 4, 2.5, 1.5])
@pytest.mark.parametrize("grace", [1, 3, 5])
def test_rungs_are_at_the_same_epochs_as_those_of_asha_in_ray(grace: int, factor: float) -> None:
    for epochs in range(grace, 100):
        theirs = {math.ceil(milestone) for milestone, _ in _Bracket(grace, epochs, factor, 0)._rungs}
        assert rungs(grace, factor, epochs) == sorted(rung for rung in theirs if rung < epochs)


def test_the_second_trial_is_stopped_only_if_the_first_dominates_it() -> None:
    for values, stopped in [((2, 2), True), ((1, 2), True), ((1, 1), False), ((2, 0), False), ((0, 0), False)]:
        rule = ParetoRungs([5], 3)
        assert not rule.report(1, 5, (1, 1))
        assert rule.report(2, 5, values) is stopped


def test_a_dominated_trial_continues_if_better_fronts_contain_less_than_a_third_of_the_trials() -> None:
    rule = ParetoRungs([5], 3)
    for number, (values, better, stopped) in enumerate(
        [
            ((0, 4), 0, False),
            ((4, 0), 0, False),
            ((9, 9), 2, True),  # 2 of 3
            ((5, 5), 2, True),
            ((1, 5), 2, True),
            ((5, 1), 2, True),  # 2 of 6: not less than one third
            ((6, 6), 5, True),
            ((1, 5), 2, False),  # 2 of 8
        ]
    ):
        assert rule.report(number, 5, values) is stopped
        assert stopped == (better > 0 and better >= (number + 1) / 3)


@pytest.mark.parametrize("seed", range(5))
def test_with_one_objective_pareto_rungs_equal_asynchronous_successive_halving(seed: int) -> None:
    rule, seen = ParetoRungs([1], 3), []
    for number, (value,) in enumerate(objective_vectors(seed, 60, 1, None)):
        rank = sum(other < value for other in seen)
        seen.append(value)
        assert rule.report(number, 1, (value,)) == (rank > 0 and rank >= len(seen) / 3)


def test_a_trial_that_is_not_dominated_at_its_rung_always_continues() -> None:
    for seed in range(10):
        rule, values = ParetoRungs([1], 4), objective_vectors(seed, 80, 3, 8)
        for number, own in enumerate(values):
            stopped = rule.report(number, 1, own)
            assert is_dominated(own, values[:number]) or not stopped


def test_a_trial_with_nan_is_stopped_and_causes_no_other_trial_to_stop() -> None:
    rule = ParetoRungs([1], 3)
    assert [rule.report(n, 1, v) for n, v in enumerate([(NAN, 2), (9, 2), (NAN, 2)])] == [False, False, True]


def test_only_the_first_report_at_or_after_a_rung_is_recorded() -> None:
    rule = ParetoRungs([3, 9], 3)
    assert not rule.report(1, 2, (0, 0))
    assert not rule.report(1, 4, (1, 1))
    assert not rule.report(1, 5, (9, 9))
    assert not rule.report(2, 10, (2, 2))
    assert rule.recorded == {3: {1: (1, 1)}, 9: {2: (2, 2)}}


def test_a_repeated_report_gives_the_same_decision_even_after_a_restart() -> None:
    rule, values = ParetoRungs([2, 4], 3), objective_vectors(3, 60, 2, 9)
    answers = {(n, e): rule.report(n, e, own) for n, own in enumerate(values) for e in range(1, 7)}
    kept = json.loads(json.dumps(rule.recorded))
    state = {int(rung): {int(n): tuple(own) for n, own in some.items()} for rung, some in kept.items()}
    for again in (rule, ParetoRungs([2, 4], 3, recorded=state)):
        assert {(n, e): again.report(n, e, (0, 0)) for n, e in reversed(answers)} == answers
    assert 0 < sum(answers.values()) < len(answers)


def test_with_a_tolerance_trials_within_the_margin_of_the_front_continue() -> None:
    for loss, stopped in [(1.04, False), (1.06, True)]:
        rule = ParetoRungs([1], 3, tolerance=(0.05, 0))
        assert not rule.report(1, 1, (1.0, 4))
        assert rule.report(2, 1, (loss, 4)) is stopped
    rule = ParetoRungs([1], 3, tolerance=(0.05,))
    assert not rule.report(1, 1, to_minimization([0.90], ["max"]))
    assert not rule.report(2, 1, to_minimization([0.87], ["max"]))
    assert rule.report(3, 1, to_minimization([0.85], ["max"]))


# A problem with a known front: cost c in 1..8 and a setting x whose best value is 0.3 at every cost

EPOCHS, FACTOR = 81, 3
RUNGS = rungs(3, FACTOR, EPOCHS)
REFERENCE = (1.6, 9.0)
KNOWN = [(0.2 + 0.8 / c, c) for c in range(1, 9)]  # final value for x = 0.3

Curve = Callable[[int, int, float, int], float]  # trial, c, x, epoch -> loss


def final_loss(c: int, x: float) -> float:
    return 0.2 + 0.8 / c + 1.5 * (x - 0.3) ** 2


def never_crossing(trial: int, c: int, x: float, epoch: int) -> float:
    """All trials lose the same share of their excess, so curves never cross."""
    return final_loss(c, x) * (1 + 2 * math.exp(-epoch / 10))


def crossing(trial: int, c: int, x: float, epoch: int) -> float:
    """Costly trials learn slowly, so curves cross."""
    return final_loss(c, x) * (1 + 2 * math.exp(-epoch / (3 + 2 * c)))


def noisy(trial: int, c: int, x: float, epoch: int) -> float:
    """Adds 5 % noise at each epoch."""
    return never_crossing(trial, c, x, epoch) * math.exp(random.Random(f"{trial} {epoch}").gauss(0, 0.05))


def never_stops(number: int, epoch: int, values: Sequence[float]) -> bool:
    return False


def asha_of_the_first_objective() -> Callable[[int, int, Sequence[float]], bool]:
    """Returns the ASHA rule of Ray."""
    bracket = _Bracket(RUNGS[0], EPOCHS, FACTOR, 0, stop_last_trials=False)
    return lambda n, epoch, values: bracket.on_result(SimpleNamespace(trial_id=n), epoch, -values[0]) == "STOP"


@dataclass
class Outcome:
    """Result of a simulated study, by trial number."""

    settings: dict[int, tuple[int, float]] = field(default_factory=dict)
    stopped: set[int] = field(default_factory=set)
    finished: set[int] = field(default_factory=set)
    epochs: int = 0

    def ends(self, n: int) -> tuple[float, float]:
        """Returns the final objectives that the trial reaches if it is not stopped."""
        return final_loss(*self.settings[n]), self.settings[n][0]

    def true_front(self) -> list[int]:
        """Returns the front of all trials if none had been stopped."""
        return pareto_front_indices([self.ends(n) for n in range(len(self.settings))])

    def lost(self) -> list[int]:
        """Returns the trials of that front that were stopped."""
        return [n for n in self.true_front() if n in self.stopped]

    def volume(self) -> float:
        """Returns the hypervolume of completed trials as a fraction of that of the known front."""
        return hypervolume([self.ends(n) for n in self.finished], REFERENCE) / hypervolume(KNOWN, REFERENCE)


def simulate(
    rule: Callable[[int, int, Sequence[float]], bool],
    sampler: optuna.samplers.BaseSampler,
    seed: int,
    *,
    curve: Curve = never_crossing,
    epochs: float = INF,
    trials: float = INF,
    workers: int = 4,
) -> Outcome:
    """Simulates parallel trials of different speeds until a number of epochs or of completed trials is reached."""
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
    speeds, out = random.Random(seed), Outcome()
    running: list[tuple[float, int, int, float, optuna.Trial]] = []  # time, number, epoch, duration of an epoch, trial

    def start(time: float) -> None:
        if len(out.settings) < trials:
            trial, number, duration = study.ask(), len(out.settings), speeds.uniform(0.5, 1.5)
            out.settings[number] = (trial.suggest_int("c", 1, 8), trial.suggest_float("x", 0, 1))
            heapq.heappush(running, (time + duration, number, 1, duration, trial))

    for _ in range(workers):
        start(0)
    while running and out.epochs < epochs:
        time, number, epoch, duration, trial = heapq.heappop(running)
        out.epochs += 1
        c, x = out.settings[number]
        if epoch == EPOCHS:
            out.finished.add(number)
            study.tell(trial, out.ends(number))
        elif rule(number, epoch, (curve(number, c, x, epoch), c)):
            out.stopped.add(number)
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            heapq.heappush(running, (time + duration, number, epoch + 1, duration, trial))
            continue
        start(time)
    return out


SAMPLERS: dict[str, Callable[[int], Any]] = {
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    "nsga2": lambda seed: optuna.samplers.NSGAIISampler(seed=seed, population_size=16),
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed, n_startup_trials=8, constant_liar=True),
}
BUDGET = 24 * EPOCHS


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)


@pytest.fixture(scope="module", params=SAMPLERS)
def studies(request: pytest.FixtureRequest) -> dict[str, list[Outcome]]:
    """The outcomes of each rule with the same number of epochs, for twelve seeds."""
    rules: dict[str, Callable[[], Any]] = {
        "none": lambda: never_stops,
        "asha": asha_of_the_first_objective,
        "pareto": lambda: ParetoRungs(RUNGS, FACTOR).report,
    }
    sampler = SAMPLERS[request.param]
    return {
        name: [simulate(rule(), sampler(seed), seed, epochs=BUDGET) for seed in range(12)]
        for name, rule in rules.items()
    }


def test_no_trial_of_the_final_front_is_stopped_if_curves_do_not_cross(studies: dict[str, list[Outcome]]) -> None:
    assert [outcome.lost() for outcome in studies["pareto"]] == [[]] * 12
    assert sum(len(o.stopped) for o in studies["pareto"]) > sum(len(o.finished) for o in studies["pareto"])


@pytest.mark.parametrize("workers", [1, 2, 16])
def test_no_trial_of_the_final_front_is_stopped_with_any_number_of_parallel_trials(workers: int) -> None:
    for seed in range(5):
        rule = ParetoRungs(RUNGS, FACTOR).report
        outcome = simulate(rule, SAMPLERS["random"](seed), seed, trials=64, workers=workers)
        assert outcome.lost() == []
        assert len(outcome.stopped) > 32


def test_with_the_same_number_of_epochs_pareto_rungs_find_a_better_front_than_a_search_without_stopping(
    studies: dict[str, list[Outcome]],
) -> None:
    volumes = {rule: [outcome.volume() for outcome in outcomes] for rule, outcomes in studies.items()}
    print({rule: f"{median(some):.3f}" for rule, some in volumes.items()})
    assert all(outcome.epochs == BUDGET for outcomes in studies.values() for outcome in outcomes)
    assert median(volumes["pareto"]) > median(volumes["none"])
    assert median(a - b for a, b in zip(volumes["pareto"], volumes["none"], strict=True)) > 0
    assert 0.98 < median(volumes["pareto"]) <= 1


def test_asha_on_the_first_objective_stops_trials_at_the_cheap_end_of_the_front(
    studies: dict[str, list[Outcome]],
) -> None:
    cheap = [sum(o.settings[n][0] <= 3 for n in o.lost()) for o in studies["asha"]]
    assert min(cheap) >= 1
    assert median(cheap) == 3
    assert median(o.volume() for o in studies["asha"]) < median(o.volume() for o in studies["none"])


@pytest.mark.parametrize("curve", [never_crossing, crossing, noisy])
def test_with_a_tolerance_fewer_trials_of_the_front_are_stopped_if_curves_cross_or_are_noisy(curve: Curve) -> None:
    lost, epochs = {}, {}
    for tolerance in (0.0, 0.05, 0.1):
        outcomes = [
            simulate(
                ParetoRungs(RUNGS, FACTOR, (tolerance, 0)).report, SAMPLERS["random"](s), s, curve=curve, trials=64
            )
            for s in range(10)
        ]
        lost[tolerance] = sum(len(o.lost()) for o in outcomes) / sum(len(o.true_front()) for o in outcomes)
        epochs[tolerance] = fmean(o.epochs for o in outcomes) / (64 * EPOCHS)
        print(f"{curve.__name__} tolerance {tolerance}: {lost[tolerance]:.3f} lost, {epochs[tolerance]:.2f} of epochs")
    if curve is never_crossing:
        assert set(lost.values()) == {0.0}
    else:
        assert lost[0.0] > 0
        assert lost[0.1] < lost[0.0] / 3
    assert epochs[0.0] < epochs[0.05] < epochs[0.1] < 0.6
