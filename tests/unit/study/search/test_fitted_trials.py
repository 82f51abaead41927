"""Selection of the trials to which the model of a searcher is fitted."""

import random
from typing import Any

import optuna
import pytest
from optuna.samplers import TPESampler
from optuna.trial import TrialState, create_trial

from ensdistill_tune.execution.trial_planner import suggester_of
from ensdistill_tune.search.fitted_trials import BEST, FittedTrials, SubsetSampler, key_of
from ensdistill_tune.search.searchers import Tpe
from tests.unit.study.search.test_searchers import study, suggested

LIMIT = 40


def filled(keys: dict[int, Any], order: list[int]) -> FittedTrials:
    fitted = FittedTrials(LIMIT)
    for place in range(len(keys)):
        fitted.begun(place)
    for place in order:
        fitted.ended(place, keys[place])
    return fitted


def test_best_and_evenly_spaced_trials_are_selected_regardless_of_the_order_of_completion() -> None:
    values = random.Random(0)
    keys: dict[int, Any] = {place: (0.0, values.random()) for place in range(200)}
    keys[8] = None  # failed
    order = list(keys)[:198]  # the last two are running
    chosen = filled(keys, order).places
    random.Random(1).shuffle(order)
    assert filled(keys, order).places == chosen
    best = sorted((place for place in order if keys[place]), key=keys.__getitem__)[:BEST]
    every_eighth = [place for place in range(0, 198, 8) if place != 8]  # every fourth would be 50
    assert chosen == sorted({*best, *every_eighth, 198, 199})


def test_all_trials_are_selected_up_to_the_limit() -> None:
    keys: dict[int, Any] = {place: (0.0, float(place)) for place in range(LIMIT)}
    assert filled(keys, list(keys)).places == list(keys)


def test_sort_keys_rank_trials_in_the_same_order_as_optuna() -> None:
    def trial(state: TrialState, value: float, steps: int, **more: Any) -> Any:
        reported = dict.fromkeys(range(1, steps + 1), value)
        final = value if state == TrialState.COMPLETE else None
        return create_trial(state=state, value=final, intermediate_values=reported, **more)

    order = [
        trial(TrialState.COMPLETE, 3.0, 9),
        trial(TrialState.COMPLETE, 2.0, 9),
        trial(TrialState.PRUNED, 1.0, 6),
        trial(TrialState.PRUNED, 9.0, 3),
        trial(TrialState.PRUNED, 8.0, 3),
    ]
    keys = [key_of(one, sign=-1) for one in order]
    assert keys == sorted(keys)


def test_a_resumed_search_makes_the_same_suggestion_from_selected_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tpe, "fitted_trials", LIMIT)
    of = study("tpe")
    whole, suggester = suggested(of, 91), suggester_of(of)
    for record in whole[:90]:
        suggester.restore(record)
    suggestion = suggester.suggest(91)
    assert suggestion is not None
    assert suggestion[0] == whole[90].sampled
    monkeypatch.setattr(Tpe, "fitted_trials", None)
    assert [trial.sampled for trial in suggested(of, 60)] != [trial.sampled for trial in whole[:60]]


def test_if_all_trials_are_selected_the_suggestion_equals_that_of_the_plain_sampler() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    known = optuna.create_study(sampler=TPESampler(seed=0))
    known.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=30)
    plain, wrapped = (
        TPESampler(seed=7, multivariate=False),
        SubsetSampler(TPESampler(seed=7, multivariate=False), known.trials),
    )
    drawn = []
    for sampler in (plain, wrapped):
        known.sampler = sampler
        trial = known.ask()
        drawn.append(trial.suggest_float("x", 0, 1))
        known.tell(trial, state=TrialState.FAIL)
    assert drawn[0] == drawn[1]
