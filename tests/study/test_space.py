"""Search space files: what is read out of them, and what is suggested from them."""

from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from ensdistill.members import Ensemble
from tune import trial
from tune.axis import Axis
from tune.load import load_study
from tune.record import FAILURE
from tune.searchers import StudySearch, Suggest
from tune.space import Study
from tune.trial import Inputs, run_trial

ROOT = Path(__file__).parents[2]
GOOD = {
    "preset": "latentbe",
    "config": {"training": {"epochs": 3}},
    "search": {
        "transfer.temperature": {"log_uniform": [1, 10]},
        "averaging.kind": {"choice": ["none", "ema"]},
        "averaging.decay": {"uniform": [0.5, 0.9], "when": {"averaging.kind": "ema"}},
    },
    "baselines": ["kd"],
}


@pytest.mark.parametrize("file", sorted((ROOT / "search_spaces").glob("*.yaml")), ids=lambda file: file.name)
def test_every_search_space_that_ships_has_no_fault(file: Path) -> None:
    assert load_study(file).search


def test_overrides_reach_every_part_of_the_file() -> None:
    words = ["budget.trials=3", "config.training.epochs=2", "scheduler.kind=none", "search.seed={choice: [1, 2]}"]
    study = load_study(ROOT / "search_spaces" / "digits.yaml", words)
    assert (study.budget.trials, study.epochs, study.scheduler.kind, study.search["seed"].values) == (
        3,
        2,
        "none",
        [1, 2],
    )


def test_a_baseline_takes_the_studys_training_but_its_own_published_method(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(yaml.safe_dump(GOOD | {"config": {"training": {"epochs": 3}, "transfer": {"temperature": 9.0}}}))
    study = load_study(file)
    config = study.baseline_config("latentbe")
    assert (config.training.epochs, config.transfer.temperature) == (3, 4.0)


def test_suggestions_cover_the_space_and_keep_to_its_conditions() -> None:
    study = Study.model_validate(GOOD)
    suggest = Suggest(study.search, study.order)
    sampler = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(50):
        trial = sampler.ask()
        suggest(trial)
        assert 1 <= trial.params["transfer.temperature"] <= 10
        assert ("averaging.decay" in trial.params) == (trial.params["averaging.kind"] == "ema")
        study.trial_config(trial.params)


def search_of(study: Study) -> StudySearch:
    return StudySearch(
        Suggest(study.search, study.order), study.baselines, study.searcher.sampler(), study.objective, study.mode
    )


every_searcher = pytest.mark.parametrize("kind", ["tpe", "gp", "qmc", "random"])


def suggested(kind: str, seed: int) -> list[dict[str, Any]]:
    """Twelve suggestions, each answered before the next; the best temperature is 2."""
    search = search_of(Study.model_validate(GOOD | {"searcher": {"kind": kind, "seed": seed}, "baselines": []}))
    made = []
    for n in range(12):
        sampled = search.suggest(f"trial{n}")["sampled"]
        made.append(sampled)
        value = abs(sampled["transfer.temperature"] - 2)
        result = {"val/nll": value, "training_iteration": 1, "epoch": 3, "epochs": 3}
        search.on_trial_result(f"trial{n}", result)
        search.on_trial_complete(f"trial{n}", result)
    return made


@every_searcher
def test_the_same_seed_suggests_the_same_trials(kind: str) -> None:
    assert suggested(kind, 0) == suggested(kind, 0) != suggested(kind, 1)


@every_searcher
def test_every_searcher_keeps_to_the_space_and_its_conditions(kind: str) -> None:
    study = Study.model_validate(GOOD)
    for sampled in suggested(kind, 0):
        assert 1 <= sampled["transfer.temperature"] <= 10
        assert ("averaging.decay" in sampled) == (sampled["averaging.kind"] == "ema")
        study.trial_config(sampled)


def test_optuna_is_told_pruned_complete_and_failed_trials_apart_and_no_baseline() -> None:
    search = search_of(Study.model_validate(GOOD))
    assert search.suggest("base")["baseline"] == "kd"
    for name in ("whole", "early", "dead", "nan"):
        search.suggest(name)
    report = {"val/nll": 0.5, "training_iteration": 1, "epoch": 1, "epochs": 3}
    for name in ("base", "whole", "early", "dead"):
        search.on_trial_result(name, report)
    search.on_trial_complete("base", report | {"epoch": 3})
    search.on_trial_complete("whole", report | {"epoch": 3})
    search.on_trial_complete("early", report)
    search.on_trial_complete("dead", error=True)
    search.on_trial_complete("nan", {"val/nll": 1e30, "epoch": 3, "epochs": 3, "failure": "the loss became nan"})
    states = [trial.state.name for trial in search._ot_study.trials]
    assert states == ["COMPLETE", "PRUNED", "FAIL", "FAIL"]


def test_a_trial_whose_settings_do_not_go_together_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    study = Study(search={"student.merge": Axis(choice=["mean_of_probabilities"])})
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(trial.tune, "report", told.append)
    sampled = {"student.merge": "mean_of_probabilities", "student.merge_at": 0.5}
    inputs = Inputs(study, {}, ("a", "b"), "data", Ensemble([], 2, "none"), [])
    run_trial({"number": 1, "baseline": None, "sampled": sampled}, inputs)
    (result,) = told
    assert "merges no weights" in result[FAILURE]
    assert result["epoch"] < result["epochs"]
