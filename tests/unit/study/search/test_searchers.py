"""Suggestions are inside the space and depend only on seed, index and results reported to the searcher."""

import math
from collections import Counter
from typing import Any

import pytest

from ensdistill_tune.execution.trial_planner import suggester_of
from ensdistill_tune.records.trial_record import TrialRecord
from ensdistill_tune.study.study_config import StudyConfig

SPACE = {
    "loss.temperature": {"log_uniform": [1, 10]},
    "student.subnetworks": {"integer": [1, 4]},
    "averaging.kind": {"choice": ["none", "ema"]},
    "averaging.decay": {"uniform": [0.5, 0.9], "when": {"averaging.kind": "ema"}},
}
LISTED = {
    "student.subnetworks": {"integer": [1, 4]},
    "averaging.kind": {"choice": ["none", "ema"]},
    "averaging.decay": {"grid": [0.5, 0.9], "when": {"averaging.kind": "ema"}},
}
every_searcher = pytest.mark.parametrize("kind", ["tpe", "gp", "nsga2", "qmc", "random"])


def study(kind: str, seed: int = 0, search: dict[str, Any] | None = None, **more: Any) -> StudyConfig:
    tree = {"preset": "latentbe", "search": search or SPACE, "searcher": {"kind": kind, "seed": seed}, **more}
    return StudyConfig.model_validate(tree)


def trial(number: int, sampled: dict[str, Any], memory: dict[str, Any], **more: Any) -> TrialRecord:
    """Returns a finished trial; the best temperature is 2."""
    value = abs(sampled.get("loss.temperature", 2) - 2)
    last = {"epoch": 3.0, "epochs": 3.0, "val/nll": value, "cost/flops": 1 - value / 10}
    return TrialRecord(number, None, sampled, "", "finished", [last], memory=memory, **more)


def suggested(of: StudyConfig, count: int) -> list[TrialRecord]:
    """Returns trials, each reported before the next suggestion."""
    suggester, made = suggester_of(of), list[TrialRecord]()
    for number in range(1, count + 1):
        suggestion = suggester.suggest(number)
        assert suggestion is not None
        made.append(trial(number, *suggestion))
        suggester.report(made[-1])
        suggester.tell(made[-1])
    return made


@every_searcher
def test_the_same_seed_gives_the_same_suggestions(kind: str) -> None:
    first, again, other = ([t.sampled for t in suggested(study(kind, seed), 12)] for seed in (0, 0, 1))
    assert first == again != other


@every_searcher
def test_every_searcher_respects_the_space_and_its_conditions(kind: str) -> None:
    of = study(kind)
    for sampled in (t.sampled for t in suggested(of, 20)):
        assert 1 <= sampled["loss.temperature"] <= 10
        assert sampled["student.subnetworks"] in (1, 2, 3, 4)
        assert ("averaging.decay" in sampled) == (sampled["averaging.kind"] == "ema")
        of.trial_config(sampled)


@pytest.mark.parametrize("secondary_objectives", [[], ["cost/flops"]], ids=["one objective", "two objectives"])
@pytest.mark.parametrize("kind", ["tpe", "nsga2", "qmc", "random"])
def test_a_restored_searcher_makes_the_same_suggestions_as_an_uninterrupted_one(
    kind: str, secondary_objectives: list[str]
) -> None:
    of = study(kind, secondary_objectives=secondary_objectives)
    whole = suggested(of, 24)
    for known in (1, 9, 17, 23):
        suggester = suggester_of(of)
        for record in whole[:known]:
            suggester.restore(record)
        suggestion = suggester.suggest(known + 1)
        assert suggestion is not None
        assert suggestion[0] == whole[known].sampled, f"after {known} trials"


def test_a_trial_that_is_restored_as_interrupted_can_end_later() -> None:
    of = study("tpe")
    whole = suggested(of, 12)
    suggester = suggester_of(of)
    for record in whole[:-1]:
        suggester.restore(record)
    last = whole[-1]
    suggester.restore(TrialRecord(last.number, None, last.sampled, "", "interrupted", memory=last.memory))
    suggester.report(last)
    suggester.tell(last)
    direct = suggester_of(of)
    for record in whole:
        direct.restore(record)
    assert suggester.suggest(13) == direct.suggest(13)


def test_optuna_receives_the_states_complete_and_pruned_and_failed() -> None:
    suggester = suggester_of(study("tpe"))
    for number, state in enumerate(["finished", "pruned", "failed", "interrupted"], start=1):
        suggestion = suggester.suggest(number)
        assert suggestion is not None
        record = trial(number, *suggestion)
        record.state = state  # type: ignore[assignment]
        suggester.tell(record)
    assert [known.state.name for known in suggester._known()] == ["COMPLETE", "PRUNED", "FAIL", "RUNNING"]


def test_a_grid_contains_every_combination_once_and_respects_conditions() -> None:
    of = study("grid", search=LISTED)
    suggester, found = suggester_of(of), []
    while (suggestion := suggester.suggest(len(found) + 1)) is not None:
        found.append(tuple(sorted(suggestion[0].items())))
    expected = {(k, kind, decay) for k in (1, 2, 3, 4) for kind, decay in [("none", None), ("ema", 0.5), ("ema", 0.9)]}
    assert len(found) == len(set(found)) == len(expected) == len(list(of.space.combinations()))
    assert {
        (d["student.subnetworks"], d["averaging.kind"], d.get("averaging.decay")) for d in map(dict, found)
    } == expected


@every_searcher
def test_every_searcher_tries_all_combinations_of_grid_values_equally_often(kind: str) -> None:
    if kind == "qmc":
        pytest.skip("its points hold a value of every axis")
    search = SPACE | {"student.subnetworks": {"grid": [1, 2, 4]}, "averaging.kind": {"grid": ["none", "ema"]}}
    found = suggested(study(kind, search=search), 12)
    cells = Counter((t.sampled["student.subnetworks"], t.sampled["averaging.kind"]) for t in found)
    assert cells == {(k, a): 2 for k in (1, 2, 4) for a in ("none", "ema")}


def test_sobol_points_cover_the_search_space_evenly() -> None:
    found = [t.sampled for t in suggested(study("qmc"), 64)]
    eighths = Counter(int(8 * math.log(s["loss.temperature"]) / math.log(10)) for s in found)
    assert set(eighths.values()) == {8}
    assert set(Counter(s["student.subnetworks"] for s in found).values()) == {16}


@every_searcher
def test_points_to_evaluate_are_tried_first_and_the_searcher_fills_in_missing_settings(kind: str) -> None:
    first = [{"loss.temperature": 2.5}, {"loss.temperature": 3.5, "averaging.kind": "none"}]
    found = suggested(study(kind, points_to_evaluate=first), 4)
    assert [t.sampled["loss.temperature"] for t in found[:2]] == [2.5, 3.5]
    assert found[1].sampled["averaging.kind"] == "none"
    assert all(t.sampled["student.subnetworks"] in (1, 2, 3, 4) for t in found)
    assert found[2].sampled["loss.temperature"] not in (2.5, 3.5)


def test_a_model_based_searcher_finds_better_settings_than_random_search() -> None:
    def best_of_the_last(kind: str) -> float:
        return min(abs(t.sampled["loss.temperature"] - 2) for t in suggested(study(kind), 40)[20:])

    assert best_of_the_last("tpe") < 0.05


def test_a_restored_gaussian_process_makes_the_same_suggestions() -> None:
    of = study("gp")
    whole, suggester = suggested(of, 11), suggester_of(of)
    for record in whole[:10]:
        suggester.restore(record)
    suggestion = suggester.suggest(11)
    assert suggestion is not None
    assert suggestion[0] == whole[10].sampled


def test_optuna_prints_nothing_about_its_internal_study(capfd: pytest.CaptureFixture[str]) -> None:
    suggested(study("tpe"), 1)
    assert capfd.readouterr().err == ""
