"""Which trials each scheduler stops early, and which are never stopped."""

from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

import numpy as np
import pytest
from ray.tune.schedulers import MedianStoppingRule, TrialScheduler

from ensdistill_tune.search.decision import Decision
from ensdistill_tune.search.pbt import Pbt
from ensdistill_tune.search.schedulers import Asha, Hyperband, Median, NoScheduler, StoppingRule

STOP = Decision.STOP


def reports(rule: StoppingRule, number: int, values: list[float]) -> bool:
    """Reports one epoch after another until the trial is stopped; returns whether it was stopped."""
    return any(rule.decide(number, epoch, [value]) is STOP for epoch, value in enumerate(values, start=1))


OTHERS = ([0.9, 0.5, 0.4], [0.8, 0.6, 0.5], [0.7, 0.7, 0.6])


@pytest.mark.parametrize("value", [0.55, 0.575, 0.59, 0.61, 0.7])
def test_the_median_rule_stops_a_trial_whose_best_value_is_worse_than_the_median_mean_of_others(value: float) -> None:
    rule = Median(grace_epochs=2, min_trials=3)(10, ["min"])
    for number, values in enumerate(OTHERS):
        assert not reports(rule, number, values)
    bound = median(fmean(values[1:2]) for values in OTHERS)  # from the grace epoch on, by epoch 2
    assert reports(rule, 9, [0.95, value]) == (value > bound)


def test_the_median_rule_stops_no_trial_before_enough_others_can_be_compared() -> None:
    rule = Median(grace_epochs=1, min_trials=3)(10, ["min"])
    for number, values in enumerate(OTHERS[:2]):
        reports(rule, number, values)
    assert not reports(rule, 9, [5.0, 5.0, 5.0])


def test_the_median_rule_stops_no_trial_before_the_end_of_its_grace_epochs() -> None:
    rule = Median(grace_epochs=3, min_trials=1)(10, ["min"])
    reports(rule, 1, OTHERS[0])
    assert not reports(rule, 2, [5.0, 5.0])
    assert reports(rule, 3, [5.0, 5.0, 5.0])


def test_the_median_rule_supports_maximized_objectives() -> None:
    rule = Median(grace_epochs=1, min_trials=1)(10, ["max"])
    reports(rule, 1, [0.9, 0.9])
    assert reports(rule, 2, [0.8])
    assert not reports(rule, 3, [0.95])


@dataclass(frozen=True)
class SimpleTrial:
    """The part of a trial that the rule of Ray uses."""

    trial_id: int


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("seed", range(10))
def test_the_median_rule_makes_the_same_decisions_as_that_of_ray(mode: str, seed: int) -> None:
    class Others(MedianStoppingRule):
        def _on_insufficient_samples(self, *about: Any) -> str:
            return str(TrialScheduler.CONTINUE)

    chance, alive = np.random.default_rng(seed), dict.fromkeys(range(12), 0)
    trials, own = [SimpleTrial(number) for number in range(12)], chance.random(12)
    theirs = Others("epoch", "value", mode, grace_period=3, min_samples_required=2)
    ours, stopped = Median(grace_epochs=3, min_trials=2)(9, [mode]), 0
    while alive:
        number = int(chance.choice(list(alive)))
        value = own[number] + 0.2 * float(chance.random())
        alive[number] += 1
        answer = theirs.on_trial_result(None, trials[number], {"epoch": alive[number], "value": value})
        assert (ours.decide(number, alive[number], [value]) is STOP) == (answer == TrialScheduler.STOP)
        stopped += answer == TrialScheduler.STOP
        if answer == TrialScheduler.STOP or alive[number] == 9:
            del alive[number]
    assert stopped


def test_asha_stops_a_trial_that_is_worse_than_the_median_of_earlier_trials_at_its_rung() -> None:
    rule = Asha(grace_epochs=1, reduction_factor=2)(8, ["min"])
    values = [0.5, 0.4, 0.6, 0.3, 0.45, 0.2]
    seen: list[float] = []
    for number, value in enumerate(values):
        expected = bool(seen) and value > np.percentile(seen, 50)  # among trials that reached the rung earlier
        assert reports(rule, number, [value]) == expected
        seen.append(value)


@pytest.mark.parametrize(("mode", "sign"), [("min", 1), ("max", -1)])
@pytest.mark.parametrize(
    "settings", [Asha(grace_epochs=3), Hyperband(grace_epochs=3, brackets=1)], ids=["asha", "hyperband"]
)
def test_trials_are_compared_by_their_best_values_up_to_the_rung(settings: Any, mode: str, sign: int) -> None:
    def stopped(curves: list[list[float]]) -> list[bool]:
        rule = settings(8, [mode])
        return [reports(rule, number, [sign * value for value in curve]) for number, curve in enumerate(curves)]

    assert stopped([[0.5, 0.5, 0.5], [0.9, 0.4, 0.9]]) == [False, False]  # best 0.4; the value at the rung is worse
    assert stopped([[0.9, 0.4, 0.9], [0.5, 0.5, 0.5]]) == [False, True]


def test_hyperband_brackets_depend_only_on_the_seed_and_the_trial_number() -> None:
    def stopped(seed: int, numbers: range) -> list[bool]:
        rule = Hyperband(grace_epochs=1, reduction_factor=2, brackets=3, seed=seed)(8, ["min"])
        return [reports(rule, number, [1.0 + number] * 7) for number in numbers]

    assert stopped(0, range(40)) == stopped(0, range(40))
    assert stopped(0, range(40)) != stopped(1, range(40))
    worst_after_grace_of_one = sum(stopped(0, range(40)))
    assert worst_after_grace_of_one > 0


def test_the_number_of_brackets_is_lower_for_short_trials() -> None:
    rule = Hyperband(grace_epochs=2, reduction_factor=3, brackets=5)(4, ["min"])
    assert not any(reports(rule, number, [1.0]) for number in range(5))


@pytest.mark.parametrize(
    "settings", [Asha(grace_epochs=1), Hyperband(grace_epochs=1), Median(grace_epochs=1, min_trials=2), NoScheduler()]
)
def test_a_rule_makes_the_same_decisions_for_the_same_reports(settings: Any) -> None:
    chance = np.random.default_rng(0)
    heard = [(int(n), epoch, float(chance.random())) for n in chance.permutation(30) for epoch in range(1, 9)]
    first, second = settings(9, ["min"]), settings(9, ["min"])
    decisions = [first.decide(n, epoch, [value]) for n, epoch, value in heard]
    assert decisions == [second.decide(n, epoch, [value]) for n, epoch, value in heard]
    assert (STOP in decisions) != isinstance(settings, NoScheduler)


@pytest.mark.parametrize(
    "scheduler",
    [
        NoScheduler(),
        Asha(grace_epochs=2, reduction_factor=1.7),
        Hyperband(grace_epochs=1, reduction_factor=2, brackets=3),
        Median(grace_epochs=3, min_trials=2),
        Pbt(population=3, interval_epochs=4, quantile=0.5),
    ],
    ids=lambda scheduler: scheduler.kind,
)
def test_trials_are_stopped_only_after_decision_epochs(scheduler: Any) -> None:
    chance, rule, stopped = np.random.default_rng(0), scheduler(20, ["min"]), set()
    for number in range(60):
        for epoch in range(1, 21):
            if rule.decide(number, epoch, [chance.random()]) is STOP and epoch < 20:
                stopped.add(epoch)
                break
    assert stopped <= set(scheduler.decision_epochs(20))
    assert bool(stopped) == (scheduler.kind != "none")
