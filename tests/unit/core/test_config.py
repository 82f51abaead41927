"""Presets, YAML and overrides form one settings tree, which has a YAML representation and a hash."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ensdistill.config import (
    Config,
    Teachers,
    build_config,
    flatten,
    load_config,
    merge_settings,
    nest,
    parse_overrides,
    presets,
    to_yaml,
)
from ensdistill.data import ImageFolder
from ensdistill.errors import ConfigError
from ensdistill.methods.averaging import Ema
from ensdistill.methods.losses import Averaged, Labels, OneToOne
from ensdistill.methods.perturbations import TDivSDiv
from ensdistill.methods.students import BatchEnsemble, Single
from tests.unit.core.core_stand_ins import tiny_config

# --- presets and overrides ---


def test_without_any_settings_the_config_has_all_default_values() -> None:
    assert build_config({}) == Config()


def test_kd_has_the_published_settings_of_knowledge_distillation() -> None:
    config = load_config("kd")
    assert config.student == Single()
    assert config.loss == Averaged(temperature=4.0, alpha=0.9, average="tempered_probabilities")
    assert config.perturbation.kind == config.averaging.kind == "none"


def test_latentbe_has_the_published_settings() -> None:
    config = load_config("latentbe")
    assert config.student == BatchEnsemble(subnetworks=4, factor_gradient="sum", merge="product_of_means")
    assert config.perturbation == TDivSDiv(step_size=1 / 255, label_images="perturbed")
    assert config.loss == OneToOne(temperature=4.0, alpha=1.0)


def test_overrides_take_precedence_over_the_preset() -> None:
    config = load_config("kd", ["loss.temperature=2", "training.optimizer.nesterov=false", "seed=7"])
    assert (config.loss.temperature, config.training.optimizer.nesterov, config.seed) == (2.0, False, 7)
    assert config.loss.alpha == 0.9


def test_overrides_take_precedence_over_the_file_and_the_file_over_its_preset(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("preset: kd\nseed: 3\nloss:\n  temperature: 2.0\n  alpha: 0.5\n")
    config = load_config(tmp_path / "mine.yaml", ["loss.alpha=0.25"])
    assert config.loss == Averaged(temperature=2.0, alpha=0.25)
    assert config.seed == 3


def test_the_value_of_an_override_may_contain_an_equals_sign() -> None:
    assert parse_overrides(["data.path=a=b"]) == {"data.path": "a=b"}


@pytest.mark.parametrize("override", ["seed", "=1", ""])
def test_an_override_without_an_equals_sign_is_rejected(override: str) -> None:
    with pytest.raises(ConfigError, match="name=value"):
        parse_overrides([override])


def test_an_unknown_preset_is_rejected_and_the_closest_name_is_suggested() -> None:
    with pytest.raises(ConfigError, match="did you mean latentbe"):
        load_config("latentbee")


def test_a_missing_file_is_named_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.yaml"):
        load_config(tmp_path / "nothing.yaml")


# --- merging ---


def test_an_override_without_a_kind_keeps_the_other_settings() -> None:
    changed = merge_settings({"loss": {"kind": "averaged", "alpha": 0.5}}, {"loss": {"temperature": 2}})
    assert changed == {"loss": {"kind": "averaged", "alpha": 0.5, "temperature": 2}}


def test_an_override_with_the_same_kind_keeps_the_other_settings() -> None:
    changed = merge_settings({"kind": "averaged", "alpha": 0.5}, {"kind": "averaged", "temperature": 2})
    assert changed == {"kind": "averaged", "alpha": 0.5, "temperature": 2}


def test_an_override_with_a_different_kind_removes_all_settings_of_the_previous_kind() -> None:
    config = load_config("kd", ["loss.kind=one_to_one", "loss.temperature=2"])
    assert config.loss == OneToOne(temperature=2.0)


def test_settings_of_the_previous_kind_are_rejected_after_a_change_of_kind() -> None:
    with pytest.raises(ConfigError, match=r"student\.subnetworks: no such setting of single"):
        load_config("latentbe", ["student.kind=single", "student.subnetworks=2"])


def test_merging_modifies_neither_argument() -> None:
    base, changes = {"a": {"b": 1}}, {"a": {"c": 2}}
    merge_settings(base, changes)["a"]["d"] = 3
    assert (base, changes) == ({"a": {"b": 1}}, {"a": {"c": 2}})


@pytest.mark.parametrize("names", [["training.epochs", "training"], ["training", "training.epochs"]])
def test_dotted_and_nested_names_in_a_file_are_merged_in_any_order(names: list[str]) -> None:
    values: dict[str, Any] = {"training.epochs": 3, "training": {"optimizer": {"lr": 0.2}}}
    config = build_config({name: values[name] for name in names})
    assert (config.training.epochs, config.training.optimizer.lr) == (3, 0.2)
    assert values["training"] == {"optimizer": {"lr": 0.2}}  # arguments are unchanged


def test_nesting_is_the_inverse_of_flattening() -> None:
    tree = load_config("latentbe").model_dump(mode="json")
    assert nest(flatten(tree)) == tree


@pytest.mark.parametrize("dotted", [{"a": 1, "a.b": 2}, {"a.b": 2, "a": 1}, {"a.b": 1, "a.b.c": 2}])
def test_a_name_that_is_both_a_value_and_a_group_is_rejected(dotted: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        nest(dotted)


# --- writing and reading YAML ---


@pytest.mark.parametrize("preset", presets())
def test_a_preset_written_as_yaml_is_read_back_as_the_same_settings(preset: str, tmp_path: Path) -> None:
    config = load_config(preset, ["seed=5", "training.optimizer.weight_decay=1e-5"])
    (tmp_path / "c.yaml").write_text(to_yaml(config, "two lines\nof comment"))
    assert load_config(tmp_path / "c.yaml") == config


@pytest.mark.parametrize("value", [1e-300, 1e-05, 1 / 3, 0.1 + 0.2, 1.0])
def test_numbers_are_preserved_by_yaml_bit_for_bit(value: float) -> None:
    config = build_config({"training": {"optimizer": {"weight_decay": value}}})
    assert build_config(yaml.safe_load(to_yaml(config))).training.optimizer.weight_decay == value


@pytest.mark.parametrize("path", ["data", "true", "12", "1e3", "null", "a: b", "# c", "~/über", "x\ny", "2026-01-01"])
def test_any_path_is_preserved_by_yaml(path: str, tmp_path: Path) -> None:
    config = build_config({"data": ImageFolder(path=f"/{path}").model_dump()})
    (tmp_path / "c.yaml").write_text(to_yaml(config), encoding="utf-8")
    assert load_config(tmp_path / "c.yaml") == config


# --- hash ---


def test_the_hash_is_the_sha256_of_the_sorted_settings() -> None:
    config = load_config("latentbe")
    text = json.dumps(config.model_dump(), sort_keys=True, separators=(",", ":"))
    assert config.hash == hashlib.sha256(text.encode()).hexdigest()[:16]


def test_the_hash_does_not_depend_on_the_order_or_notation_of_settings() -> None:
    first = build_config({"seed": 1, "loss": {"alpha": 1, "temperature": 2.0}})
    second = build_config({"loss": {"temperature": 2, "alpha": 1.0}}, {"seed": 1})
    assert first.hash == second.hash


@pytest.mark.parametrize(
    "override",
    ["seed=1", "data.seed=1", "training.threads=2", "loss.alpha=0.8", "teachers.count=3", "averaging.kind=ema"],
)
def test_the_hash_changes_with_any_setting(override: str) -> None:
    assert load_config("kd", [override]).hash != load_config("kd").hash


@pytest.mark.e2e
def test_the_hash_is_the_same_in_another_process() -> None:
    code = "from ensdistill import load_config; print(load_config('latentbe').hash)"
    environment = {"PYTHONHASHSEED": "12345", "PATH": ""}
    printed = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == load_config("latentbe").hash


def test_settings_cannot_be_changed_in_place() -> None:
    with pytest.raises(ValueError, match="frozen"):
        tiny_config().seed = 3


# --- settings that depend on each other ---


def test_tdiv_sdiv_with_one_teacher_is_rejected() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("latentbe", ["teachers.count=1"])
    (fault,) = [str(issue) for issue in caught.value.issues]
    assert fault.startswith("perturbation: tdiv_sdiv requires at least two teachers")
    assert "teachers.count" in fault


def test_tdiv_sdiv_with_two_teachers_and_one_subnetwork_is_allowed() -> None:
    config = load_config("kd", ["perturbation.kind=tdiv_sdiv", "teachers.count=2"])
    assert config.perturbation == TDivSDiv()


def test_components_of_different_presets_can_be_combined() -> None:
    config = load_config("kd", ["student.kind=batch_ensemble", "loss.kind=labels", "averaging.kind=ema"])
    assert (config.student, config.loss, config.averaging) == (BatchEnsemble(), Labels(), Ema())


def test_teachers_have_separate_model_and_training_settings() -> None:
    config = load_config("kd", ["teachers.model.width=3", "teachers.training.optimizer.lr=0.3"])
    assert config.teachers.model.width == 3
    assert config.teachers.training.optimizer.lr == 0.3
    assert config.model == Config().model
    assert config.teachers.seed == Teachers().seed
