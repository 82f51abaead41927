"""Every error is one line with the setting, the rule, the value and, if available, the fix."""

import math
import pickle
from typing import Any

import pytest

from ensdistill.config import Config, build_config, flatten
from ensdistill.errors import NO_VALUE, ConfigError, ConfigIssue, DataError, DivergedError, EnsdistillError
from ensdistill.settings.validation import closest_match, settings_table

TDIV = {"kind": "tdiv_sdiv"}


def faults(tree: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        build_config(tree)
    return [str(issue) for issue in caught.value.issues]


@pytest.mark.parametrize(
    ("tree", "begins", "holds"),
    [
        # an unknown name, with the closest match
        ({"traning": {}}, "traning: no such setting", "did you mean training?"),
        ({"training": {"epoch": 3}}, "training.epoch: no such setting", "did you mean epochs?"),
        ({"perturbation": TDIV | {"step_sise": 0.1}}, "perturbation.step_sise: no such", "did you mean step_size?"),
        ({"teachers": {"model": {"widht": 3}}}, "teachers.model.widht: no such", "did you mean width?"),
        ({"student": {"kind": "single", "zzz": 3}}, "student.zzz: no such setting of single", "available: kind"),
        # a name that exists elsewhere
        ({"epochs": 3}, "epochs: no such setting", "did you mean training.epochs?"),
        ({"teachers": {"epochs": 3}}, "teachers.epochs: no such setting", "did you mean teachers.training.epochs?"),
        ({"averaging": {"kind": "swa", "decay": 0.9}}, "averaging.decay: no such", "of swa (it belongs to ema)"),
        ({"loss": {"step_size": 0.1}}, "loss.step_size: no such", "did you mean perturbation.step_size?"),
        # a dotted name in place of nested names
        ({"training.epoch": 3}, "training.epoch: no such setting", "did you mean epochs?"),
        (
            {"teachers": {"training.optimizer.lr": 1}},
            "teachers.training.optimizer.lr: no such",
            ". Write it as training: {optimizer: {lr: ...}}",
        ),
        (
            {"teachers": {"trainin.epochs": 1}},
            "teachers.trainin.epochs: no such",
            "did you mean teachers.training.epochs?",
        ),
        ({"training": {"optimizer": {"lr": 1}}, "training.optimizer.lr": 2}, "training.optimizer.lr: set twice", ""),
        ({"training.optimizer.lr": 2, "training": {"optimizer": {"lr": 1}}}, "training.optimizer.lr: set twice", ""),
        ({"training..lr": 2}, "'training..lr': a dotted name must not have an empty part", ""),
        ({"": 2}, "'': a dotted name must not have an empty part", ""),
        # an unknown kind
        ({"loss": {"kind": "averged"}}, "loss.kind: 'averged' is not one of", "did you mean averaged?"),
        ({"averaging": {"kind": "emma"}}, "averaging.kind: 'emma' is not one of none, ema", "did you mean ema?"),
        ({"model": {"kind": "resmet"}}, "model.kind: 'resmet' is not one of convnet", "(did you mean resnet?)"),
        ({"loss": {"kind": "averaged"}, "data": {"path": "x", "kind": "cifar"}}, "data.kind: 'cifar'", "cifar10?"),
        ({"teachers": {"models": [{"width": 3}]}}, "teachers.models.0.kind: must be given (convnet, custom", ""),
        ({"loss": {"kind": None}}, "loss.kind: null is not one of", ""),
        ({"loss": {"kind": ["averaged"]}}, "loss.kind: ", "is not one of"),
        # an unknown choice
        ({"perturbation": TDIV | {"label_images": "cleen"}}, "perturbation.label_images: 'cleen'", "mean clean?"),
        ({"training": {"lr_schedule": "cosin"}}, "training.lr_schedule: 'cosin' is not one of", "did you mean cosine?"),
        # out of range
        ({"training": {"epochs": 0}}, "training.epochs: must be greater than or equal to 1", "not 0"),
        ({"training": {"optimizer": {"momentum": 1.0}}}, "training.optimizer.momentum: must be less than 1", "not 1.0"),
        ({"training": {"optimizer": {"lr": 0}}}, "training.optimizer.lr: must be greater than 0", "not 0"),
        ({"loss": {"alpha": 1.5}}, "loss.alpha: must be less than or equal to 1", "not 1.5"),
        ({"seed": -1}, "seed: must be greater than or equal to 0", "not -1"),
        (
            {"teachers": {"training": {"optimizer": {"lr": -1}}}},
            "teachers.training.optimizer.lr: must be greater than 0",
            "not -1",
        ),
        # a wrong type
        ({"training": {"optimizer": {"lr": "0.1"}}}, "training.optimizer.lr: must be a number", "not '0.1'"),
        ({"training": {"optimizer": {"lr": True}}}, "training.optimizer.lr: must be a number", "not true"),
        ({"training": {"epochs": True}}, "training.epochs: must be a whole number", "not true"),
        ({"training": {"epochs": 2.0}}, "training.epochs: must be a whole number", "not 2.0"),
        ({"training": {"epochs": None}}, "training.epochs: must be a whole number", "not null"),
        ({"training": {"optimizer": {"nesterov": 1}}}, "training.optimizer.nesterov: must be true or false", "not 1"),
        ({"training": {"optimizer": {"lr": [0.1]}}}, "training.optimizer.lr: must be a number", "not [0.1]"),
        ({"training": 5}, "training: must be a mapping of names to values", "not 5"),
        ({"loss": "averaged"}, "loss: must be a mapping", "not 'averaged' (did you mean {kind: averaged}?)"),
        ({"teachers": {"models": 3}}, "teachers.models: must be a list", "not 3"),
        ({"seed": list(range(99))}, "seed: must be a whole number", "not [0, 1, 2, 3, 4, 5, 6, 7, ...]"),
        ({"data": {"kind": "image_folder", "path": 3}}, "data.path: must be text", "not 3"),
        # not a number
        ({"training": {"optimizer": {"lr": math.nan}}}, "training.optimizer.lr: must be a finite number", "not nan"),
        ({"training": {"optimizer": {"lr": math.inf}}}, "training.optimizer.lr: must be a finite number", "not inf"),
        # a missing required value
        ({"data": {"kind": "image_folder"}}, "data.path: must be given", ""),
        ({"data": {"kind": "image_folder", "path": ""}}, "data.path: ", "at least 1 character"),
    ],
    ids=str,
)
def test_an_error_states_the_setting_and_the_rule_and_the_fix(tree: dict[str, Any], begins: str, holds: str) -> None:
    (line,) = faults(tree)
    assert line.startswith(begins)
    assert holds in line
    assert "\n" not in line


def test_all_errors_are_reported_together() -> None:
    tree = {
        "seed": -1,
        "training": {"epochs": "x", "bach_size": 3, "optimizer": {"lr": 0}},
        "loss": {"kind": "averaged", "alpha": 2},
        "teachers": {"model": {"width": 0}},
        "nonsense": 1,
    }
    names = {line.split(":")[0] for line in faults(tree)}
    assert names == {
        "seed",
        "training.optimizer.lr",
        "training.epochs",
        "training.bach_size",
        "loss.alpha",
        "teachers.model.width",
        "nonsense",
    }


@pytest.mark.parametrize(
    ("tree", "issue"),
    [
        ({"loss": {"alpha": 1.5}}, (("loss", "alpha"), 1.5, None)),
        ({"traning": {}}, (("traning",), NO_VALUE, "did you mean training?")),
        ({"averaging": {"kind": "emma"}}, (("averaging", "kind"), "emma", "did you mean ema?")),
        ({"perturbation": TDIV, "teachers": {"count": 1}}, (("perturbation",), NO_VALUE, None)),
        ({"training": {"batch_size": 99}, "data": {"train_size": 50}}, (("training", "batch_size"), 99, None)),
        (
            {"schedule": [{"after_epoch": 99, "set": {"training.optimizer.lr": 1}}]},
            (("schedule", 0, "after_epoch"), 99, None),
        ),
    ],
    ids=str,
)
def test_an_issue_contains_a_path_and_a_value_and_a_hint(tree: dict[str, Any], issue: tuple[Any, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        build_config(tree)
    assert [(one.path, one.value, one.hint) for one in caught.value.issues] == [issue]


def test_the_message_of_a_config_error_has_one_line_for_each_issue() -> None:
    error = ConfigError(["a: one", "b: two"])
    assert str(error) == "a: one\nb: two"
    assert ConfigError("only").issues == [ConfigIssue((), "only")]


@pytest.mark.parametrize(
    "error",
    [ConfigError(["a", "b"]), DataError("x"), DivergedError(2, 5, float("inf"))],
    ids=lambda e: type(e).__name__,
)
def test_errors_are_preserved_by_pickling(error: EnsdistillError) -> None:
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert type(copy) is type(error)
    assert (str(copy), vars(copy)) == (str(error), vars(error))


def test_closest_match_returns_none_if_no_name_is_similar() -> None:
    assert closest_match("temprature", ["alpha", "temperature"]) == "temperature"
    assert closest_match("xyz", ["alpha", "temperature"]) is None


def test_the_settings_table_contains_every_setting_of_the_default_config() -> None:
    names = {row.name for row in settings_table(Config)}
    assert set(flatten(Config().model_dump())) <= names | {"teachers.model.kind", "model.kind"}


def test_every_setting_has_a_description() -> None:
    assert [row.name for row in settings_table(Config) if not row.sentence.endswith(".")] == []


def test_every_numeric_setting_has_a_range() -> None:
    rows = {row.name: row.limits for row in settings_table(Config)}
    assert rows["training.optimizer.lr"] == "above 0, at most 100"
    assert rows["loss.alpha"] == "at least 0, at most 1"
