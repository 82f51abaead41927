"""Search space files: every fault is found before anything runs, with the setting it is about."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from ensdistill.errors import ConfigError
from ensdistill.members import Ensemble
from tune import trial
from tune.axis import Axis
from tune.load import load_study
from tune.record import FAILURE, StudyFolder
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


def faults_of(tree: object, tmp_path: Path) -> list[str]:
    file = tmp_path / "space.yaml"
    file.write_text(tree if isinstance(tree, str) else yaml.safe_dump(tree))
    with pytest.raises(ConfigError) as caught:
        load_study(file)
    return caught.value.faults


def with_search(**axes: object) -> dict[str, object]:
    return GOOD | {"search": GOOD["search"] | {name.replace("__", "."): axis for name, axis in axes.items()}}  # type: ignore[operator]


@pytest.mark.parametrize("file", sorted((ROOT / "search_spaces").glob("*.yaml")), ids=lambda file: file.name)
def test_every_search_space_that_ships_has_no_fault(file: Path) -> None:
    assert load_study(file).search


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        (
            with_search(transfer__temprature={"uniform": [1, 2]}),
            "no such setting of one_to_one (did you mean temperature?)",
        ),
        (
            with_search(transfer__temperature={"uniform": [0, 4]}),
            "search.transfer.temperature: must be greater than or equal",
        ),
        (
            with_search(student__subnetworks={"integer": [0, 4]}),
            "search.student.subnetworks: must be greater than or equal to 1",
        ),
        (
            with_search(student__subnetworks={"choice": [2, 2.5]}),
            "search.student.subnetworks: must be a valid integer, not 2.5",
        ),
        (with_search(perturbation__step_size={"uniform": [-1, 0.1]}), "search.perturbation.step_size: must be greater"),
        (with_search(student__kind={"choice": ["single", "batchensemble"]}), "did you mean batch_ensemble?"),
        (with_search(averaging__start={"uniform": [0, 0.5]}), "search.averaging.start: no such setting of none"),
        (
            with_search(averaging__decay={"uniform": [0.1, 0.2], "when": {"averaging.kind": "swa"}}),
            "averaging.decay.when.averaging.kind: 'swa' can never occur; averaging.kind is choice ['none', 'ema']",
        ),
        (
            with_search(averaging__decay={"uniform": [0.1, 0.2], "when": {"averaging.knd": "ema"}}),
            "not a searched setting (did you mean averaging.kind?)",
        ),
        (
            with_search(training__lr={"uniform": [0.1, 0.2], "when": {"training.momentum": 0.5}}),
            "search.training.lr.when.training.momentum: not a searched setting",
        ),
        (with_search(transfer__temperature={"uniform": [4, 1]}), "the first number must be below the second"),
        (with_search(transfer__temperature={"log_uniform": [0, 1]}), "both numbers must be above 0"),
        (with_search(transfer__temperature={"uniform": [1, 2], "choice": [1]}), "exactly one of"),
        (with_search(transfer__temperature={"unifrom": [1, 2]}), "did you mean uniform?"),
        (with_search(transfer__temperature={"uniform": [1, "two"]}), "must be a valid number, not 'two'"),
        (with_search(teachers__count={"integer": [2, 4]}), "search.teachers.count: all trials of a study share"),
        (with_search(training__epochs={"integer": [2, 4]}), "search.training.epochs: all trials of a study share"),
        (
            with_search(averaging__decay={"uniform": [0.1, 0.2], "when": {"averaging.kind": "ema", "seed": 2}})
            | {"config": {"training": {"batch_size": 1000}}},
            "config.training.batch_size: 1000 is more than the 150 training images",
        ),
        (
            with_search(training__lr={"uniform": [0.1, 0.2], "when": {"transfer.temperature": 2.0}}),
            "2.0 can never occur",
        ),
        (
            with_search(
                seed={"choice": [1, 2], "when": {"averaging.kind": "none"}},
                averaging__decay={"uniform": [-5, 77], "when": {"averaging.kind": "ema", "seed": 2}},
            ),
            "search.averaging.decay.when: its conditions can never hold together",
        ),
        (GOOD | {"config": [1, 2]}, "config: must be a valid dictionary"),
        (GOOD | {"trial": {"cpu": 0.00001}}, "trial.cpu: must be greater than or equal to 0.01"),
        (GOOD | {"preset": "latentb"}, "latentb: no such preset (did you mean latentbe?)"),
        (GOOD | {"baselines": ["kdd"]}, "kdd: no such preset (did you mean kd?)"),
        (
            GOOD | {"config": {"training": {"epoch": 3}}},
            "config.training.epoch: no such setting (did you mean epochs?)",
        ),
        (GOOD | {"objective": "val/los"}, "objective: 'val/los' is none of"),
        (GOOD | {"budget": {"trials": 0}}, "budget.trials: must be greater than or equal to 1, not 0"),
        (GOOD | {"serach": {}}, "serach: no such setting (did you mean search?)"),
        (GOOD | {"search": {}}, "search:"),
        ({"preset": "kd"}, "search: must be given"),
        ("", "settings are a mapping of names to values, this holds nothing"),
        ("- 1\n- 2\n", "this holds a list"),
        ("search: !!python/object/apply:os.system ['true']\n", "no objects are built"),
        ("search: {a: 1\n", "line"),
    ],
)
def test_a_fault_is_named_with_its_place_and_way_out(tree: object, expected: str, tmp_path: Path) -> None:
    faults = faults_of(tree, tmp_path)
    assert any(expected in fault for fault in faults), faults


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    tree = with_search(
        transfer__temperature={"uniform": [0, 4]},
        perturbation__step_size={"uniform": [-1, 0.1]},
        student__subnetwork={"integer": [1, 2]},
    )
    faults = faults_of(tree, tmp_path)
    assert len(faults) == 3
    assert all(
        any(part in fault for fault in faults)
        for part in ("transfer.temperature", "perturbation.step_size", "subnetworks")
    )


def test_faults_of_different_kinds_are_told_at_once(tmp_path: Path) -> None:
    axes = {
        "transfer.temperature": {"log_uniform": [0, 10]},  # no logarithm
        "transfer.alpha": {"uniform": [0, 2]},  # out of range
        "student.subnetworks": {"integer": [5, 2]},  # reversed
        "averaging.kind": {"choice": ["none", "ema"]},
        "averaging.decay": {"uniform": [0.5, 0.9], "when": {"averaging.knd": "ema"}},  # unknown condition
        "averaging.start": {"uniform": [0.1, 0.5], "when": {"averaging.kind": "swa"}},  # never
        "perturbation.step_sise": {"uniform": [0, 0.1]},  # misspelt
        "training.lr": {"choice": [0.1], "when": {"training.momentum": 0.5}},
        "training.momentum": {"choice": [0.5], "when": {"training.lr": 0.1}},  # wait for each other
    }
    budget = {"trials": 0}
    faults = faults_of(GOOD | {"search": axes, "baselines": ["kdd"], "budget": budget, "objectiv": "x"}, tmp_path)
    expected = ("temperature", "alpha", "subnetworks", "averaging.knd", "'swa' can never", "step_sise", "wait for each")
    for part in (*expected, "kdd: no such preset", "budget.trials", "objectiv: no such setting"):
        assert any(part in fault for fault in faults), (part, faults)
    assert len(faults) == 10


def test_conditions_that_wait_for_each_other_are_refused(tmp_path: Path) -> None:
    tree = with_search(
        averaging__kind={"choice": ["none", "ema"], "when": {"averaging.decay": 0.5}},
    )
    assert any("wait for each other" in fault for fault in faults_of(tree, tmp_path))


def test_overrides_reach_every_part_of_the_file() -> None:
    words = ["budget.trials=3", "config.training.epochs=2", "scheduler.kind=none", "search.seed={choice: [1, 2]}"]
    study = load_study(ROOT / "search_spaces" / "digits.yaml", words)
    assert (study.budget.trials, study.epochs, study.scheduler.kind, study.search["seed"].values) == (
        3,
        2,
        "none",
        [1, 2],
    )


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("training.epochs=2", "did you mean config.training?"),
        ("budget.trials.x=5", "budget.trials: must be a valid integer"),
        ("preset.x=1", "preset: must be a valid string"),
        ("config=5", "config: must be a valid dictionary"),
    ],
)
def test_an_override_in_the_wrong_place_is_told(word: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected.replace("?", r"\?")):
        load_study(ROOT / "search_spaces" / "digits.yaml", [word])


def test_a_baseline_takes_the_studys_training_but_its_own_published_method(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(yaml.safe_dump(GOOD | {"config": {"training": {"epochs": 3}, "transfer": {"temperature": 9.0}}}))
    study = load_study(file)
    config = study.baseline_config("latentbe")
    assert (config.training.epochs, config.transfer.temperature) == (3, 4.0)


def test_values_that_do_not_go_together_are_found_before_the_first_trial(tmp_path: Path) -> None:
    search = {
        "student.merge": {"choice": ["product_of_means", "mean_of_probabilities"]},
        "student.merge_at": {"choice": [1.0, 0.5]},
        "transfer.temperature": {"uniform": [1, 4]},
    }
    file = tmp_path / "pair.yaml"
    file.write_text(yaml.safe_dump({"preset": "latentbe", "search": search}))
    with pytest.raises(ConfigError) as caught:
        load_study(file)
    (line,) = caught.value.faults
    assert line.startswith("search.student.merge = 'mean_of_probabilities' with search.student.merge_at = 0.5: student")


def test_a_trial_whose_settings_do_not_go_together_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    study = Study(search={"student.merge": Axis(choice=["mean_of_probabilities"])})
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(trial.tune, "report", told.append)
    sampled = {"student.merge": "mean_of_probabilities", "student.merge_at": 0.5}
    inputs = Inputs(study, StudyFolder(Path()), {}, ("a", "b"), "data", Ensemble([], 2, "none"), [])
    run_trial({"number": 1, "baseline": None, "sampled": sampled, "seed": None}, inputs)
    (result,) = told
    assert "merges no weights" in result[FAILURE]
    assert result["epoch"] < result["epochs"]
