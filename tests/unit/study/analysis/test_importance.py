"""Importance of settings, where the effects are planted and therefore known."""

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ensdistill_tune.analysis.effect_test import Column, p_values
from ensdistill_tune.analysis.importance import Importance, importance, merits, why_unknown
from ensdistill_tune.records.trial_record import TrialRecord
from ensdistill_tune.study.study_config import StudyConfig
from tests.unit.report.synthetic import facts, reports, study

FOUR = {f"training.{name}": {"uniform": [0, 1]} for name in "abcd"}


def searched(
    values: list[tuple[dict[str, Any], float]], search: dict[str, Any]
) -> tuple[list[TrialRecord], StudyConfig]:
    """Returns completed trials with these settings and objective values."""
    trials = [TrialRecord(n, None, s, f"{n}", "finished", reports([v])) for n, (s, v) in enumerate(values, 1)]
    return trials, study(search=search, baselines=[])


def drawn(seed: int, rule: Any, trials: int = 60) -> tuple[list[TrialRecord], StudyConfig]:
    """Returns trials with four random settings; the objective is a rule plus noise of 0.3."""
    chance = np.random.default_rng(seed)
    rows = [{name: float(chance.random()) for name in FOUR} for _ in range(trials)]
    return searched([(row, 10 + rule(*row.values()) + 0.3 * chance.normal()) for row in rows], FOUR)


def by_name(found: list[Importance]) -> dict[str, Importance]:
    return {knob.name: knob for knob in found}


@pytest.mark.parametrize("seed", range(4))
def test_only_a_strong_and_a_weak_effect_are_found_and_the_strong_effect_is_first(seed: int) -> None:
    found = importance(*drawn(seed, lambda a, b, c, d: 1.5 * b + 4 * c, trials=120))
    assert [knob.name for knob in found[:2]] == ["training.c", "training.b"]
    assert found[0].matters
    assert found[0].share > 0.6 > 0.2 > found[1].share
    assert found[1].matters
    assert not any(knob.matters for knob in found[2:])


@pytest.mark.parametrize("seed", range(6))
def test_no_setting_is_significant_in_pure_noise(seed: int) -> None:
    found = importance(*drawn(seed, lambda *_: 0.0, trials=30))
    assert not any(knob.matters for knob in found)


def test_the_variance_share_of_an_interaction_is_attributed_to_no_setting() -> None:
    found = importance(*drawn(0, lambda a, b, c, d: 8 * (a - 0.5) * (b - 0.5), trials=200))
    assert sum(knob.share for knob in found) < 0.5


def test_the_importance_of_a_log_scaled_setting_is_computed_on_a_log_scale() -> None:
    axis = {"log_uniform": [1e-6, 1.0]}
    chance = np.random.default_rng(0)
    powers = chance.uniform(-6, 0, size=(80, 2))
    rows = [({"training.a": 10**p, "training.b": 10**q}, 10 + p + 0.1 * chance.normal()) for p, q in powers]
    strong, weak = importance(*searched(rows, {"training.a": axis, "training.b": axis}))
    assert (strong.name, strong.matters, weak.matters) == ("training.a", True, False)
    assert strong.share > 0.9  # on a linear axis, nearly all trials are below 0.01, in one of sixteen steps


def test_effects_are_found_although_the_worse_half_of_the_trials_was_stopped_early() -> None:
    whole = facts(120)
    found = by_name(importance(whole.trials, whole.study))
    left = by_name(importance([t for t in whole.trials if t.state == "finished"], whole.study))
    assert sum(t.state == "pruned" for t in whole.trials) > 50
    assert found["perturbation.step_size"].matters
    assert found["perturbation.step_size"].share > left["perturbation.step_size"].share


def test_the_effect_of_a_condition_is_not_attributed_to_its_conditional_setting() -> None:
    for seed in range(3):
        whole = facts(150, seed=seed, scheduler={"kind": "none"}, noise=0.005)
        found = by_name(importance(whole.trials, whole.study))
        assert found["averaging.kind"].matters
        assert not found["averaging.decay"].matters
        assert not found["averaging.start"].matters


def test_the_effect_of_a_conditional_setting_is_found_where_it_is_active() -> None:
    search = {
        "averaging.kind": {"choice": ["none", "ema"]},
        "averaging.decay": {"uniform": [0, 1], "when": {"averaging.kind": "ema"}},
    }
    chance = np.random.default_rng(0)
    rows: list[tuple[dict[str, Any], float]] = [({"averaging.kind": "none"}, 10 + chance.normal()) for _ in range(40)]
    decays = chance.random(40).tolist()
    rows += [({"averaging.kind": "ema", "averaging.decay": d}, 5 + 10 * d + chance.normal()) for d in decays]
    found = by_name(importance(*searched(rows, search)))
    assert found["averaging.decay"].matters


def test_completed_trials_are_ranked_before_stopped_trials_and_stopped_before_failed_trials() -> None:
    order = [
        TrialRecord(1, None, {}, "", "finished", reports([9.0, 2.0])),
        TrialRecord(2, None, {}, "", "finished", reports([1.0, 3.0])),
        TrialRecord(3, None, {}, "", "pruned", reports([1.0, 8.0])),
        TrialRecord(4, None, {}, "", "pruned", reports([1.0])),
        TrialRecord(5, None, {}, "", "pruned", reports([2.0])),
        TrialRecord(6, None, {}, "", "failed", reports([0.1, 0.1])),
        TrialRecord(7, None, {}, "", "failed"),
    ]
    found = merits(order, study())
    assert found.tolist() == pytest.approx([1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 0.5 / 6, 0.5 / 6])
    assert merits(order[:2], study(objective="val/accuracy")).tolist() == [1, 0]  # accuracy decreases with NLL here


def test_importance_uses_the_last_values_of_settings_that_change_during_training() -> None:
    trials, own = drawn(0, lambda a, b, c, d: 4 * c)
    moved = [
        replace(t, sampled={**t.sampled, "training.c": 0.5}, schedule=[{"after_epoch": 1, "set": {"training.c": c}}])
        for t in trials
        for c in [t.sampled["training.c"]]
    ]
    assert importance(moved, own) == importance(trials, own)


def test_importance_excludes_baselines_and_replicates_and_running_trials() -> None:
    trials, own = drawn(0, lambda a, b, c, d: 4 * c)
    others = [
        TrialRecord(101, "kd", {}, "", "finished", reports([0.1])),
        TrialRecord(102, None, trials[0].sampled, "", "finished", reports([0.1]), replicate_of=1, seed=3),
        TrialRecord(103, None, trials[0].sampled, "", "running", reports([0.1])),
        TrialRecord(104, None, trials[0].sampled, "", "interrupted", reports([0.1])),
    ]
    assert importance([*trials, *others], own) == importance(trials, own)


def test_importance_can_be_computed_for_choices_and_grids_and_integers() -> None:
    search = {
        "training.a": {"grid": [[1, 2], "x", None, 3]},
        "training.b": {"integer": [1, 100]},
        "training.c": {"choice": list(range(20))},
    }
    chance = np.random.default_rng(0)
    every = [axis.finite_values or [] for axis in study(search=search).search.values()]
    rows = [dict(zip(search, (e[chance.integers(len(e))] for e in every), strict=True)) for _ in range(60)]
    found = importance(*searched([(row, 10 + row["training.b"] + chance.normal()) for row in rows], search))
    assert found[0].name == "training.b"
    assert found[0].matters


@pytest.mark.parametrize(
    ("trials", "search", "reason"),
    [
        (7, FOUR, "7 search trials are too few to detect an effect (8 are required)"),
        (30, {"training.a": FOUR["training.a"]}, "only one setting was searched; at least two are required"),
        (30, FOUR, "all trials have the same result"),
    ],
)
def test_with_too_little_data_the_reason_is_returned_instead_of_an_importance(
    trials: int, search: Any, reason: str
) -> None:
    rows = [(dict.fromkeys(search, k / trials), 1.0) for k in range(trials)]
    done, own = searched(rows, search)
    assert (why_unknown(done, own) or "").startswith(reason)
    assert importance(done, own) == []


def test_the_same_trials_give_the_same_importance() -> None:
    trials, own = drawn(0, lambda a, b, c, d: 4 * c, trials=20)
    assert importance(trials, own) == importance(trials, own)
    assert why_unknown(trials, own) is None


def test_no_setting_is_important_if_results_are_nearly_equal() -> None:
    known = facts(9, seeds=0)
    alike = [replace(t, state="failed") if t.kind == "search" and t.number > 4 else t for t in known.trials]
    found = importance(alike, known.study)
    assert len(found) == len(known.study.search)
    assert not any(knob.matters for knob in found)


def test_optuna_logs_nothing_about_temporary_studies(caplog: pytest.LogCaptureFixture) -> None:
    optunas = logging.getLogger("optuna")
    optunas.addHandler(caplog.handler)  # the message is not propagated
    try:
        importance(*drawn(0, lambda *_: 0.0, trials=30))
    finally:
        optunas.removeHandler(caplog.handler)
    assert not caplog.records


def test_an_effect_causing_half_the_variance_is_found_in_80_percent_of_studies_with_24_trials() -> None:
    hits, false = 0, 0
    for seed in range(100):
        chance = np.random.default_rng(seed)
        values = chance.random((24, 6))
        merit = values[:, 2] * 12**0.5 + chance.normal(size=24)  # half of the variance each
        ps = p_values([Column(column, categorical=False) for column in values.T], merit)
        hits, false = hits + (ps[2] <= 0.05), false + any(p <= 0.05 for n, p in enumerate(ps) if n != 2)
    assert hits >= 80
    assert false <= 10  # 5 % of the studies plus three standard deviations


def test_a_choice_is_tested_as_unordered_and_a_conditional_setting_is_tested_only_where_it_is_active() -> None:
    chance = np.random.default_rng(0)
    level = chance.integers(3, size=60) / 2
    merit = (level == 0.5) + 0.3 * chance.normal(size=60)
    alone = np.where(level == 0.5, chance.random(60), np.nan)  # active only in the good trials
    ps = p_values([Column(level, categorical=True), Column(alone, categorical=False)], merit)
    assert ps[0] < 0.01 < 0.05 < ps[1]
    assert p_values([Column(np.full(60, np.nan), categorical=False)], merit) == [1.0]
