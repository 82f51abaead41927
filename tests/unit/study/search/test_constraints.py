"""Bounds on metrics: violations, their effect on early stopping and searchers, and the ranking of trials."""

import math
from dataclasses import replace
from typing import Any

import pytest

from ensdistill.errors import ConfigError
from ensdistill.settings.validation import validate
from ensdistill_tune.execution.trial_planner import suggester_of
from ensdistill_tune.records.trial_record import METRICS, TrialRecord
from ensdistill_tune.search.constraints import Constraint, broken, total_violation, violations
from ensdistill_tune.search.decision import Decision
from ensdistill_tune.study.study_config import StudyConfig

BOUNDS = {"val/accuracy": {"at_least": 0.8}, "cost/flops": {"at_least": 10.0, "at_most": 200.0}}
MIXED = {name: Constraint.model_validate(bound) for name, bound in BOUNDS.items()}


def study(**more: Any) -> StudyConfig:
    search = {"loss.temperature": {"uniform": [1, 10]}} | more.pop("idle", {})
    return StudyConfig.model_validate({"search": search, "constraints": {"val/ece": {"at_most": 0.1}}, **more})


def trial(number: int, nll: float, ece: float, **more: Any) -> TrialRecord:
    last = {"epoch": 4.0, "epochs": 4.0} | dict.fromkeys(METRICS, nll) | {"val/ece": ece}
    sampled = {"loss.temperature": 1 + 9 * ece}
    return TrialRecord(number, None, sampled, f"{number}", more.pop("state", "finished"), [last], **more)


@pytest.mark.parametrize(
    ("accuracy", "flops", "expected"),
    [(0.9, 100.0, 0.0), (0.8, 200.0, 0.0), (0.6, 100.0, 0.25), (0.6, 300.0, 0.75), (0.8, 5.0, 0.5)],
)
def test_total_violation_is_the_sum_of_distances_relative_to_the_bounds(
    accuracy: float, flops: float, expected: float
) -> None:
    assert total_violation(MIXED, {"val/accuracy": accuracy, "cost/flops": flops}) == pytest.approx(expected)


def test_bounds_that_are_met_have_a_negative_violation() -> None:
    found = violations(MIXED, {"val/accuracy": 1.0, "cost/flops": 100.0})
    assert found == pytest.approx(
        {"val/accuracy at least": -0.25, "cost/flops at least": -9, "cost/flops at most": -0.5}
    )


def test_a_metric_that_is_missing_or_nan_violates_its_bounds() -> None:
    assert total_violation(MIXED, {"cost/flops": 100.0}) == math.inf
    assert total_violation(MIXED, {"val/accuracy": math.nan, "cost/flops": 100.0}) == math.inf
    assert broken(MIXED, {"cost/flops": 300.0}) == ["val/accuracy not measured", "cost/flops 300, at most 200"]


@pytest.mark.parametrize(
    ("bound", "message"),
    [
        ({}, "constraints.val/nll: must have at_least, at_most or both"),
        ({"at_least": 2, "at_most": 1}, "constraints.val/nll.at_least: must not exceed at_most 1, got 2"),
        ({"at_mots": 1}, "constraints.val/nll.at_mots: no such setting (did you mean at_most?)"),
    ],
)
def test_contradictory_bounds_are_refused(bound: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        validate(StudyConfig, {"search": {"seed": {"choice": [1]}}, "constraints": {"val/nll": bound}})
    assert str(raised.value).startswith(message)


def test_feasible_trials_are_ranked_first_and_all_others_by_their_distance_from_feasibility() -> None:
    trials = [trial(1, 0.1, 0.3), trial(2, 0.2, 0.2), trial(3, 0.9, 0.1), trial(4, 0.8, 0.05), trial(5, 0.1, 0.2)]
    assert [t.number for t in study().rank(trials)] == [4, 3, 5, 2, 1]
    assert [t.number for t in study(constraints={}).rank(trials)] == [1, 5, 2, 4, 3]


@pytest.mark.parametrize("objective", ["val/nll", "val/accuracy"])
@pytest.mark.parametrize("secondary", [[], ["cost/flops"]])
@pytest.mark.parametrize("kind", ["asha", "hyperband", "median"])
def test_early_stopping_prefers_feasible_trials_to_infeasible_trials_with_better_objectives(
    objective: str, secondary: list[str], kind: str
) -> None:
    if secondary and kind != "asha":
        return
    own = study(
        objective=objective,
        secondary_objectives=secondary,
        scheduler={"kind": kind, "grace_epochs": 1},
        config={"training": {"epochs": 4}},
    )
    rule, good = own.make_stopping_rule(), 0.1 if objective == "val/nll" else 0.9
    for number in range(1, 6):  # five trials that violate the constraint and are better
        rule.decide(number, 1, own.compared_values({objective: good, "cost/flops": 1.0, "val/ece": 0.2}))
    meets = own.compared_values({objective: 0.5, "cost/flops": 2.0, "val/ece": 0.1})
    assert rule.decide(6, 1, meets) is Decision.CONTINUE
    breaks = own.compared_values({objective: good, "cost/flops": 1.0, "val/ece": 0.5})
    if kind != "hyperband":  # the rule may assign it to a bracket whose first rung comes later
        assert rule.decide(7, 1, breaks) is Decision.STOP, "farther from the bound than all others"


def suggested(own: StudyConfig, *, restored: bool) -> list[float]:
    """Returns temperatures after the first eight. NLL decreases with temperature; ECE exceeds its bound from 5.5 on."""
    suggester, records = suggester_of(own), list[TrialRecord]()
    for number in range(1, 33):
        sampled, memory = suggester.suggest(number)  # type: ignore[misc]
        temperature = sampled["loss.temperature"]
        record = trial(number, 1 / temperature, 0.05 if temperature < 5.5 else temperature / 10, memory=memory)
        records.append(replace(record, sampled=sampled))
        if restored:
            suggester = suggester_of(own)
            for known in records:
                suggester.restore(known)
        else:
            suggester.report(records[-1])
            suggester.tell(records[-1])
    return [record.sampled["loss.temperature"] for record in records[8:]]


@pytest.mark.parametrize("kind", ["tpe", "gp", "nsga2"])
def test_searchers_that_support_constraints_suggest_feasible_settings_even_after_a_restart(kind: str) -> None:
    searcher = {"kind": kind} | ({"population": 8} if kind == "nsga2" else {"startup_trials": 8})
    idle = {f"idle.{n}": {"uniform": [0, 1]} for n in range(4)}  # nsga2 mutates one of all settings of a child
    settings: dict[str, Any] = {"searcher": searcher, "idle": idle if kind == "nsga2" else {}}
    found = suggested(study(**settings), restored=False)
    free = suggested(study(**settings, constraints={}), restored=False)
    meet, meet_by_chance = (sum(temperature < 5.5 for temperature in some) for some in (found, free))
    assert meet >= meet_by_chance + 6
    assert suggested(study(**settings), restored=True) == found
