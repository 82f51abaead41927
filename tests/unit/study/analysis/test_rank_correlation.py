"""How well the ranking at an early epoch predicts the final ranking, in cases that can be counted by hand."""

from itertools import combinations
from typing import Any

import pytest

from ensdistill_tune.analysis.rank_correlation import epochs_to_ask, foresight, selected
from ensdistill_tune.records.trial_record import TrialRecord
from tests.unit.report.synthetic import EPOCHS, RUNGS, facts, reports, study

NONE = {"kind": "none"}


def trials(then: list[float], final: list[float], **more: Any) -> list[TrialRecord]:
    """Returns finished trials with constant values at every epoch except the last, and their final values."""
    pairs = zip(then, final, strict=True)
    return [
        TrialRecord(n, None, {}, "", "finished", reports([a] * (EPOCHS - 1) + [b]), **more)
        for n, (a, b) in enumerate(pairs, 1)
    ]


def test_tau_is_one_for_equal_and_minus_one_for_reversed_rankings() -> None:
    same = foresight(trials([5, 6, 7, 8], [1, 2, 3, 4]), study())
    assert [(f.tau, f.low, f.high, f.trials) for f in same] == [(pytest.approx(1), 1, 1, 4)] * len(RUNGS)
    assert foresight(trials([8, 7, 6, 5], [1, 2, 3, 4]), study())[0].tau == pytest.approx(-1)


def test_tau_is_the_share_of_concordant_pairs_minus_that_of_discordant_pairs() -> None:
    then, final = [3.0, 1.0, 2.0, 5.0, 4.0], [1.0, 2.0, 3.0, 4.0, 5.0]
    signs = [1 if (then[i] < then[j]) == (final[i] < final[j]) else -1 for i, j in combinations(range(5), 2)]
    found = foresight(trials(then, final), study())[0]
    assert found.tau == pytest.approx(sum(signs) / len(signs))
    assert found.low < found.tau < found.high


def test_trials_are_ranked_by_their_best_values_up_to_the_rung() -> None:
    own = trials([5, 6, 7, 8], [1, 2, 3, 4])
    for trial, best in zip(own, [4.0, 3.0, 2.0, 1.0], strict=True):
        trial.epochs[0]["val/nll"] = best
    assert [found.tau for found in foresight(own, study())] == [pytest.approx(-1)] * len(RUNGS)


def test_correlations_are_computed_at_scheduler_rungs_or_at_evenly_spaced_epochs() -> None:
    assert epochs_to_ask(study()) == list(RUNGS)
    assert epochs_to_ask(study(scheduler=NONE)) == [6, 12, 18, 24]
    median = epochs_to_ask(study(scheduler={"kind": "median", "grace_epochs": 10}))
    assert median == [10, 15, 20, 25]
    assert epochs_to_ask(study(scheduler=NONE, config={"training": {"epochs": 2}})) == [1]
    assert epochs_to_ask(study(scheduler=NONE, config={"training": {"epochs": 1}})) == []


def test_only_completed_search_trials_are_compared() -> None:
    own = trials([5, 6, 7, 8], [1, 2, 3, 4])
    others = trials([9, 9], [0.1, 0.1], replicate_of=1, seed=5)
    others += [TrialRecord(7, "kd", {}, "", "finished", reports([9] * EPOCHS))]
    others += [TrialRecord(8, None, {}, "", "pruned", reports([9] * 6))]
    assert foresight([*own, *others], study()) == foresight(own, study())


def test_the_analysis_states_that_early_stopping_selected_the_trials() -> None:
    assert selected(facts().trials)
    assert not selected(facts(scheduler=NONE).trials)


def test_no_correlation_is_returned_for_too_few_trials_or_equal_values() -> None:
    assert foresight(trials([5, 6, 7], [1, 2, 3]), study()) == []
    assert foresight(trials([5, 5, 5, 5], [1, 2, 3, 4]), study()) == []


def test_trials_started_from_another_checkpoint_count_only_at_their_reported_epochs() -> None:
    own = trials([5, 6, 7, 8, 9], [1, 2, 3, 4, 5])
    own[0].epochs = own[0].epochs[RUNGS[0] :]
    assert [f.trials for f in foresight(own, study())] == [4, 5, 5]


def test_later_epochs_predict_the_final_ranking_better_than_earlier_epochs() -> None:
    found = foresight(facts(200, scheduler=NONE, noise=0.05).trials, study())
    assert found[0].tau < found[-1].tau
    assert found == foresight(facts(200, scheduler=NONE, noise=0.05).trials, study())
