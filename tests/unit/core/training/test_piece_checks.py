"""Custom pieces that violate a rule cause a one-line error before training."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from ensdistill.config import Config
from ensdistill.data import (
    DataSource,
    DataSplits,
    Digits,
    ImageAugmentation,
    RawData,
    Split,
    SplitSizes,
    StandardAugmentation,
    load_data,
)
from ensdistill.errors import ConfigError, DataError
from ensdistill.methods.averaging import AveragingSettings
from ensdistill.methods.losses import DistillationLoss, Labels
from ensdistill.methods.members import TeacherEnsemble
from ensdistill.methods.metrics import Metric
from ensdistill.methods.optimizers import OptimizerPiece
from ensdistill.methods.perturbations import InputPerturbation
from ensdistill.methods.students import StudentPiece
from ensdistill.models import NetworkPiece
from ensdistill.training.loop import distill
from ensdistill.training.new_student import check_student
from tests.plugin.ensdistill_example.methods import Focal, LabelProbability, Median, Negative, PixelDropout
from tests.plugin.ensdistill_example.networks import Copies, Mlp
from tests.unit.core.core_stand_ins import tiny_config

BASES = {
    "loss": DistillationLoss,
    "perturbation": InputPerturbation,
    "student": StudentPiece,
    "averaging": AveragingSettings,
    "model": NetworkPiece,
}


@pytest.fixture(scope="module")
def data() -> DataSplits:
    return load_data(Digits(train_size=40, val_size=40))


def piece(base: type, call: Callable[..., Any]) -> Any:
    """Returns an instance of a new subclass with this `__call__`."""
    return type("Mine", (base,), {"__call__": call, "__module__": __name__})()


@pytest.mark.parametrize(
    ("section", "call", "rule"),
    [
        (
            "loss",
            lambda self, student, teachers: student.mean(),
            "has __call__(self, student, teachers), which ",
        ),
        ("loss", lambda self, s, t, y, z: s.mean() * torch.nan, "loss must be finite, not NaN or infinite"),
        ("loss", lambda self, s, t, y, z: s.mean(-1), "loss must have the shape (), not (1, 4)"),
        ("loss", lambda self, s, t, y, z: 3.0, "loss must be a tensor, not a float"),
        ("loss", lambda self, s, t, y, z: t.mean(), "the loss must depend on the logits of the student"),
        ("loss", lambda self, s, t, y, z: (0 * s).sqrt().sum(), "the gradient of the loss must be finite"),
        ("loss", lambda self, s, t, y, z: s[9], "fails on a small batch of images (IndexError: "),
        (
            "perturbation",
            lambda self, x, ensemble: x,
            "has __call__(self, x, ensemble), which cannot",
        ),
        ("perturbation", lambda self, x, e, s, r: x * torch.nan, "images must be finite, not NaN or infinite"),
        (
            "perturbation",
            lambda self, x, e, s, r: x[:, :, :4],
            "images must have the shape (4, 1, 8, 8), not ",
        ),
        ("perturbation", lambda self, x, e, s, r: x + 2, "image values must be in [0, 1], not in [2, 3]"),
        ("perturbation", lambda self, x, e, s, r: x.zero_(), "must not write to its input images"),
        ("student", lambda self, network: network, "must return a Student, not a Sequential. Inherit from"),
        ("student", lambda self: None, "has __call__(self), which cannot be called with network"),
        ("averaging", lambda self, student: 3, "fails on a small batch of images (AttributeError: 'int' object has"),
        ("model", lambda self, shape: None, "has __call__(self, shape), which cannot be called with shape, classes"),
        ("model", lambda self, shape, classes: nn.Flatten(), "returns (2, 64) for two images, not logits (2, 10)"),
        ("model", lambda self, shape, classes: None, "returns a NoneType, not a torch.nn.Module"),
    ],
)
def test_a_piece_that_violates_a_rule_is_reported_in_one_line(
    section: str, call: Callable[..., Any], rule: str, data: DataSplits
) -> None:
    config = Config(**{section: piece(BASES[section], call)})
    with pytest.raises(ConfigError) as caught:
        check_student(config, data)
    text = str(caught.value)
    assert text.startswith(f"{section}: {__name__}:Mine")
    assert rule in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("field", "base", "call", "rule"),
    [
        ("optimizer", OptimizerPiece, lambda self, groups: 3, "must return a torch.optim.Optimizer, not a int"),
        ("optimizer", OptimizerPiece, lambda self, groups: groups[99], "fails"),
        ("augmentation", ImageAugmentation, lambda self, x, random: x.float(), "images must be torch.uint8 on cpu"),
        ("augmentation", ImageAugmentation, lambda self, x, random: x.zero_(), "must not write to its input images"),
        ("augmentation", ImageAugmentation, lambda self, x, random: x[:1], "must have the shape (4, 1, 8, 8)"),
    ],
)
def test_a_training_piece_that_violates_a_rule_is_reported_in_one_line(
    field: str, base: type, call: Callable[..., Any], rule: str, data: DataSplits
) -> None:
    with pytest.raises(ConfigError) as caught:
        check_student(Config(training={field: piece(base, call)}), data)
    text = str(caught.value)
    assert text.startswith(f"training.{field}: {__name__}:Mine")
    assert rule in text
    assert "\n" not in text


class Constant(Metric):
    higher_is_better = True

    def __call__(self, log_p: torch.Tensor, labels: torch.Tensor) -> float:
        return 1.0


def metric(call: Callable[..., Any], name: str = "mine") -> Any:
    return type("Mine", (Constant,), {"__call__": call, "__module__": __name__, "name": name})()


@pytest.mark.parametrize(
    ("own", "rule"),
    [
        (metric(lambda self, log_p: 1), "has __call__(self, log_p), which cannot be called with log_p, labels"),
        (metric(lambda self, log_p, labels: torch.nan), "must return a finite number, got nan"),
        (metric(lambda self, log_p, labels: log_p), "fails on predictions of shape (40, 10) "),
        (
            metric(lambda self, log_p, labels: "x"),
            "fails on predictions of shape (40, 10) (ValueError: could not",
        ),
        (metric(lambda self, log_p, labels: 1, "accuracy"), "'accuracy' is the name of a built-in metric"),
        (metric(lambda self, log_p, labels: 1, "dee"), "'dee' is the name of a built-in metric"),
    ],
)
def test_a_metric_that_violates_a_rule_is_reported_in_one_line(own: Any, rule: str, data: DataSplits) -> None:
    with pytest.raises(ConfigError) as caught:
        check_student(Config(metrics=[own]), data)
    assert str(caught.value).startswith("metrics: ")
    assert rule in str(caught.value)
    assert "\n" not in str(caught.value)


def raw(images: Any, labels: Any) -> RawData:
    return RawData(Split(images, labels), ("a", "b"))


BYTES, LABELS = torch.zeros(9, 1, 4, 4, dtype=torch.uint8), torch.zeros(9, dtype=torch.long)


@pytest.mark.parametrize(
    ("call", "rule"),
    [
        (lambda self: 3, "must return RawData, not a int"),
        (
            lambda self: raw(BYTES.float(), LABELS),
            "images of pool must be uint8 (N,C,H,W), not torch.float32",
        ),
        (lambda self: raw(BYTES[0], LABELS), "images of pool must be uint8 (N,C,H,W), not torch.uint8 (1, 4, 4)"),
        (lambda self: raw(BYTES, LABELS[:8]), "labels of pool must be int64 (9,), not torch.int64 (8,)"),
        (lambda self: raw(BYTES, LABELS + 2), "labels of pool must be from 0 to 1, not from 2 to 2"),
        (lambda self: raw(BYTES, LABELS - 1), "labels of pool must be from 0 to 1, not from -1 to -1"),
        (lambda self: 1 / 0, "fails (ZeroDivisionError: division by zero)"),
    ],
)
def test_a_data_source_that_violates_a_rule_is_reported_in_one_line(call: Callable[..., Any], rule: str) -> None:
    source = type("Mine", (DataSource, SplitSizes), {"__call__": call, "__module__": __name__})()
    with pytest.raises(DataError) as caught:
        load_data(source)
    assert str(caught.value).startswith(f"data: {__name__}:Mine")
    assert rule in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("call", "rule"),
    [
        (lambda self, images: images, "has __call__(self, images), which cannot be called with images, generator"),
        (lambda self, x, r: x.float(), "images must be torch.uint8 on cpu, not torch.float32 on cpu"),
        (lambda self, x, r: x[:, :, 1:], "images must have the shape (4, 1, 8, 8), not (4, 1, 7, 8)"),
        (lambda self, x, r: x.fill_(7), "must not write to its input images"),
        (lambda self, x, r: x[9], "fails on a small batch of images (IndexError: "),
        (lambda self, x, r: None, "images must be a tensor, not a NoneType"),
    ],
)
@pytest.mark.parametrize("base", [ImageAugmentation, StandardAugmentation])
def test_an_augmentation_that_violates_a_rule_is_reported_in_one_line(
    base: type, call: Callable[..., Any], rule: str, data: DataSplits
) -> None:
    before = data.train.images.clone()
    with pytest.raises(ConfigError) as caught:
        check_student(Config(training={"augmentation": piece(base, call)}), data)
    text = str(caught.value)
    assert text.startswith(f"training.augmentation: {__name__}:Mine")
    assert rule in text
    assert "\n" not in text
    assert torch.equal(data.train.images, before)


def test_valid_pieces_pass_the_checks_and_the_checks_do_not_modify_the_images(data: DataSplits) -> None:
    own = {"loss": Focal(), "perturbation": PixelDropout(), "averaging": Median(), "student": Copies(), "model": Mlp()}
    before = data.train.images.clone()
    training = {"augmentation": Negative()}
    check_student(Config(**own, training=training, metrics=[LabelProbability()]), data)
    assert torch.equal(data.train.images, before)


def test_a_run_reports_custom_metrics_in_addition_to_built_in_metrics(data: DataSplits) -> None:
    plain = tiny_config().model_copy(update={"loss": Labels()})
    nobody = TeacherEnsemble([], 10, "none")
    epoch = next(distill(plain.model_copy(update={"metrics": [LabelProbability()]}), nobody, data))
    assert 0 < epoch.val["label_probability"] < 1
    assert epoch.val | next(distill(plain, nobody, data)).val == epoch.val
