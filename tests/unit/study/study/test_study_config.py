"""Search space files: the settings read from them, and the suggestions made from them."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from ensdistill.errors import ConfigError
from ensdistill.methods.members import TeacherEnsemble
from ensdistill.training.teacher_logits import TeacherLogitCache
from ensdistill_tune.execution.shared_inputs import SharedData, SharedInputs
from ensdistill_tune.execution.worker import run_trial
from ensdistill_tune.records.study_directory import StudyDirectory
from ensdistill_tune.records.trial_record import EPOCHS, FAILURE
from ensdistill_tune.search.hyperparameter import Hyperparameter
from ensdistill_tune.study.loading import load_study
from ensdistill_tune.study.study_config import StudyConfig

ROOT = Path(__file__).parents[4]
GOOD = {
    "preset": "latentbe",
    "config": {"training": {"epochs": 3}},
    "search": {
        "loss.temperature": {"log_uniform": [1, 10]},
        "averaging.kind": {"choice": ["none", "ema"]},
        "averaging.decay": {"uniform": [0.5, 0.9], "when": {"averaging.kind": "ema"}},
    },
    "baselines": ["kd"],
}


@pytest.mark.parametrize("file", sorted((ROOT / "search_spaces").glob("*.yaml")), ids=lambda file: file.name)
def test_every_packaged_search_space_is_valid(file: Path) -> None:
    assert load_study(file).search


def test_overrides_can_change_every_section_of_the_study_file() -> None:
    words = ["budget.trials=3", "config.training.epochs=2", "scheduler.kind=none", "search.seed={choice: [1, 2]}"]
    study = load_study(ROOT / "search_spaces" / "digits.yaml", words)
    assert (study.budget.trials, study.epochs, study.scheduler.kind, study.search["seed"].values) == (
        3,
        2,
        "none",
        [1, 2],
    )


def test_names_in_a_study_file_may_be_dotted_like_the_names_in_overrides(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(
        "search.seed: {choice: [1, 2]}\nsearch: {training.optimizer.lr: {uniform: [0.1, 0.2]}}\n"
        "budget.trials: 010\nconfig.training.epochs: 0100\nconfig: {training.batch_size: 8}\n"
    )
    study = load_study(file)
    assert (study.budget.trials, study.epochs, study.base_config.training.batch_size) == (10, 100, 8)
    assert list(study.search) == ["training.optimizer.lr", "seed"]


def test_hyperparameter_names_may_be_nested_and_single_hyperparameters_can_be_overridden(tmp_path: Path) -> None:
    file = tmp_path / "nested.yaml"
    file.write_text(
        "search:\n"
        "  loss: {temperature: {log_uniform: [1, 10]}, alpha: {uniform: [0, 1]}}\n"
        "  averaging:\n"
        "    kind: {choice: [none, ema]}\n"
        "    decay: {uniform: [0.8, 0.9], when: {averaging.kind: ema}}\n"
    )
    names = ["loss.temperature", "loss.alpha", "averaging.kind", "averaging.decay"]
    assert list(load_study(file).search) == names
    overrides = ["search.loss.temperature.log_uniform=[2, 3]", "search.seed.choice=[1, 2]"]
    study = load_study(file, overrides)
    assert list(study.search) == [*names, "seed"]
    assert study.search["loss.temperature"].log_uniform == [2, 3]
    assert study.search["seed"].choice == [1, 2]


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        ("budget.trials: 3\nbudget: {trials: 4}\n", "line 2: budget.trials: set twice"),
        ("search.seed: {choice: [2]}\n", "line 2: search.seed: set twice"),
        ("budget.trails: 3\n", "line 2: budget.trails: no such setting (did you mean trials?)"),
        (
            "config: {teachers: {training.optimizer.lr: 1}}\n",
            "config.teachers.training.optimizer.lr: no such setting. Write it as",
        ),
        ("config: {training: {epochs: 1:30}}\n", "line 2: config.training.epochs: must be a whole number, not '1:30'"),
        (
            "config: {training: {optimizer: {nesterov: yes}}}\n",
            "config.training.optimizer.nesterov: must be true or false, not 'yes'",
        ),
    ],
)
def test_invalid_names_and_numbers_in_a_study_file_are_refused(tmp_path: Path, more: str, fault: str) -> None:
    file = tmp_path / "space.yaml"
    file.write_text("search: {seed: {choice: [1]}}\n" + more)
    with pytest.raises(ConfigError) as caught:
        load_study(file)
    assert fault in str(caught.value)


def test_a_baseline_uses_its_published_method_with_the_training_settings_of_the_study(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(yaml.safe_dump(GOOD | {"config": {"training": {"epochs": 3}, "loss": {"temperature": 9.0}}}))
    study = load_study(file)
    config = study.baseline_config("latentbe")
    assert (config.training.epochs, config.loss.temperature) == (3, 4.0)


def test_a_trial_with_incompatible_settings_fails_alone() -> None:
    study = StudyConfig(search={"student.merge": Hyperparameter(choice=["mean_of_probabilities"])})
    told: list[dict[str, Any]] = []
    sampled = {"student.merge": "mean_of_probabilities", "student.merge_after": 0.5}
    data = SharedData(study.base_config.data, Path(), {}, ("a", "b"), "data")
    inputs = SharedInputs(study, StudyDirectory(Path()), data, TeacherLogitCache(TeacherEnsemble([], 2, "none")), [])
    run_trial({"number": 1, "baseline": None, "sampled": sampled, "seed": None}, inputs, told.append)
    (result,) = told
    assert "does not merge weights" in result[FAILURE]
    assert result[EPOCHS] == []
