"""Networks that are no better than chance, or whose outputs are implausible, are detected."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from scipy.stats import binom
from torch import Tensor, nn

from ensdistill.data import DataSplits, Split
from ensdistill.errors import ConfigError, DataError
from ensdistill.evaluation.evaluator import Evaluator
from ensdistill.evaluation.metrics import at_chance
from ensdistill.evaluation.plausibility import is_shown, student_warnings, teacher_warnings
from ensdistill.evaluation.tables import metrics_table
from ensdistill.methods.members import TeacherEnsemble
from ensdistill.models.probe import are_probabilities, tried
from ensdistill.training.loop import distill
from ensdistill.training.teacher_checks import check_teachers
from tests.unit.core.core_stand_ins import tiny_config

# --- at chance ---


def predicting(classes: list[int] | Tensor, count: int = 10) -> Tensor:
    """Returns confident log-probabilities for these classes."""
    return nn.functional.one_hot(torch.as_tensor(classes), count).double().mul(5).log_softmax(-1)


LABELS = torch.arange(300) % 10
SKEWED = torch.tensor([0] * 270 + [1] * 20 + [2] * 10)


def test_random_guesses_are_recognized_as_random_in_99_percent_of_cases() -> None:
    chance = torch.Generator().manual_seed(0)
    draws = [predicting(torch.randint(10, (300,), generator=chance)) for _ in range(400)]
    assert sum(at_chance(draw, LABELS) for draw in draws) / 400 == pytest.approx(0.985, abs=0.015)


@pytest.mark.parametrize("labels", [LABELS, SKEWED], ids=["balanced", "skewed"])
@pytest.mark.parametrize("answer", [0, 1, 9])
def test_a_constant_prediction_is_at_chance_regardless_of_its_accuracy(labels: Tensor, answer: int) -> None:
    assert at_chance(predicting([answer] * 300), labels)


def test_a_network_that_detects_rare_classes_is_not_at_chance_despite_low_accuracy() -> None:
    predicted = torch.zeros(300, dtype=torch.long)
    predicted[270:285] = 1  # 15 of the 20 images of rare classes
    predicted[:10] = 1  # and 10 others
    assert float((predicted == SKEWED).double().mean()) < 0.92  # always predicting class 0 gives 0.9
    assert not at_chance(predicting(predicted), SKEWED)


@pytest.mark.parametrize("right", [30, 40, 42, 44, 60, 300])
def test_a_network_is_at_chance_unless_a_binomial_test_rejects_chance_at_the_1_percent_level(right: int) -> None:
    predicted = torch.cat([LABELS[:right], (LABELS[right:] + 1) % 10])
    by_chance = binom.sf(right - 1, 300, 0.1)
    assert at_chance(predicting(predicted), LABELS) == (by_chance > 0.01)


def test_a_student_at_chance_is_reported_with_its_accuracy() -> None:
    (issue,) = student_warnings({"accuracy": 0.098, "nll": 2.3, "at_chance": 1.0}, {}, 10)
    assert "at chance: the student is correct on 9.8 % of the images" in str(issue)
    assert not student_warnings({"accuracy": 0.3, "nll": 2.0, "at_chance": 0.0}, {}, 10)
    assert not student_warnings({"accuracy": 0.1, "nll": 2.3}, {}, 10)  # a record of an earlier version


def test_a_warning_names_networks_whose_temperature_cannot_be_determined_on_validation_images() -> None:
    sound, open_ = {"accuracy": 0.9, "temperature_identified": 1.0}, {"accuracy": 0.9, "temperature_identified": 0.0}
    nothing: dict[str, float] = {}
    assert not student_warnings({"accuracy": 0.9}, nothing, 10)
    assert not student_warnings(sound, {"ensemble": sound}, 10)
    for student, ensemble, which in (
        ({"accuracy": 1.0}, nothing, "the student"),  # a record of a trial
        (open_, sound, "the student"),
        (sound, open_, "the ensemble"),
        (open_, open_, "the student and the ensemble"),
    ):
        (issue,) = student_warnings(student, {"ensemble": ensemble}, 10)
        assert issue.rule.endswith(f"do not determine the temperature of {which}")
    (issue,) = student_warnings({**open_, "at_chance": 1.0}, {}, 10)  # its calibrated metrics are not shown
    assert "at chance" in issue.rule


def members(*rows: tuple[float, float, float]) -> dict[str, Any]:
    return {"members": [{"accuracy": a, "nll": n, "at_chance": c} for a, n, c in rows]}


def test_warnings_name_teachers_at_chance_and_overconfident_teachers_with_their_metrics() -> None:
    good, guessing, misleading = (0.9, 0.4, 0.0), (0.1, 2.4, 1.0), (0.5, 3.1, 0.0)
    assert not teacher_warnings(members(good, good), 10)
    (one,) = teacher_warnings(members(good, guessing), 10)
    assert "at chance: teacher 2 is correct on 10.0 % of the validation images" in str(one)
    chance, require_trial = map(str, teacher_warnings(members(guessing, misleading, guessing), 10))
    assert "teachers 1, 3 are correct on 10.0 %, 10.0 %" in chance
    uniform = f"the NLL of uniform predictions ({math.log(10):.4g})"
    assert f"NLL of teacher 2 on validation images is 3.1, worse than {uniform}" in require_trial
    assert "Its probabilities are strongly overconfident" in require_trial
    (several,) = map(str, teacher_warnings(members(misleading, misleading), 10))
    assert "NLL of teachers 1, 2 on" in several
    assert "Their probabilities are strongly overconfident" in several


def test_an_evaluation_marks_a_student_at_chance_and_omits_meaningless_metrics(digits: DataSplits) -> None:
    examiner = Evaluator(None, digits, digits.validation)
    constant = Function(lambda x: torch.zeros(len(x), 10).index_fill(1, torch.tensor(3), 1.0))
    row = examiner.student(constant)
    assert row["at_chance"] == 1
    assert [is_shown(name, row) for name in ("accuracy", "nll", "ece", "cnll", "val/dee")] == [1, 1, 1, 0, 0]
    assert is_shown("cnll", row, {**row, "at_chance": 0.0})  # of several seeds, one is above chance
    cells = [next(iter(column.cells)) for column in metrics_table("validation", {"student": row}).columns]
    shown = dict(
        zip(["", "accuracy", "nll", "brier", "ece", "cnll", "cece", "dee", "top1_agreement"], cells, strict=True)
    )
    assert (shown["accuracy"], shown["cnll"], shown["cece"]) == (f"{row['accuracy']:.4f}", "", "")


# --- outputs of networks ---


class Function(nn.Module):
    """A network that applies one function to the images."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function, self.unused = function, nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def logits(x: Tensor) -> Tensor:
    """Returns ten logits per image that distinguish digits slightly."""
    weights = torch.randn(x[0].numel(), 10, generator=torch.Generator().manual_seed(0))
    return x.flatten(1) @ weights / 8


def check(function: Callable[[Tensor], Tensor], data: DataSplits) -> list[str]:
    return [str(issue) for issue in check_teachers([Function(function)], ["mine.pt"], data)]


@pytest.mark.parametrize(
    "function",
    [
        logits,
        lambda x: logits(x).log_softmax(-1),
        lambda x: logits(x).relu(),
        lambda x: torch.cat([logits(x)[:, :9], torch.full((len(x), 1), -40.0)], 1),
    ],
    ids=["logits", "log-probabilities", "at least 0", "a class that is nearly ruled out"],
)
def test_teachers_with_plausible_outputs_are_accepted(function: Callable[[Tensor], Tensor], digits: DataSplits) -> None:
    assert not check(function, digits)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda x: logits(x).softmax(-1), "mine.pt: its outputs are probabilities"),
        (lambda x: logits(x).mul(20).softmax(-1), "mine.pt: its outputs are probabilities"),
        (lambda x: logits(x) / 0, "mine.pt: its outputs for [0-9]+ of 100 images are NaN or infinite"),
        (lambda x: logits(x).sqrt(), "are NaN or infinite"),
        (lambda x: torch.full((len(x), 10), -torch.inf), "for 100 of 100 images are NaN or infinite"),
        (lambda x: logits(x) * 1e5, "mine.pt: its NLL on real images must be at most 100 nats, but is [0-9,]+"),
    ],
)
def test_teachers_with_impossible_outputs_are_refused_by_name(
    function: Callable[[Tensor], Tensor], words: str, digits: DataSplits
) -> None:
    with pytest.raises(DataError, match=words):
        check(function, digits)


def test_a_teacher_that_ends_in_a_sigmoid_causes_a_warning(digits: DataSplits) -> None:
    (message,) = check(lambda x: logits(x).sigmoid(), digits)
    assert "outputs of mine.pt are all between 0 and 1, as after a sigmoid" in message


def test_the_error_about_nan_logits_of_one_image_names_the_teacher_and_not_the_learning_rate(
    digits: DataSplits,
) -> None:
    config = tiny_config("training.epochs=1", "data.train_size=40")
    bad = digits.train.images[17].float() / 255

    def function(x: Tensor) -> Tensor:
        out = logits(x)
        return torch.where((x - bad).abs().flatten(1).amax(1, keepdim=True) < 1e-6, torch.nan, out)

    ensemble = TeacherEnsemble([Function(logits), Function(function)], 10, "x")
    with pytest.raises(DataError, match="teacher 2: its outputs for some training images are NaN or infinite"):
        list(distill(config, ensemble, digits))


def test_the_check_accepts_an_empty_validation_split(digits: DataSplits) -> None:
    empty = Split(digits.validation.images[:0], digits.validation.labels[:0])
    assert not check(logits, replace(digits, validation=empty))


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        ([[0.2, 0.8], [1.0, 0.0]], True),
        ([[0.2, 0.7999], [0.5, 0.5]], True),
        ([[0.2, 0.8], [1.1, -0.1]], False),
        ([[0.2, 0.3], [0.5, 0.5]], False),
        ([[1.0], [1.0]], False),
        ([[math.nan, 1.0], [0.0, 1.0]], False),
    ],
)
def test_outputs_from_0_to_1_that_sum_to_1_are_recognized_as_probabilities(
    outputs: list[list[float]], expected: bool
) -> None:
    assert are_probabilities(torch.tensor(outputs)) == expected


@pytest.mark.parametrize("last", [nn.Softmax(1), nn.Softmax(-1), nn.Sequential(nn.Identity(), nn.Softmax(1))])
def test_a_network_that_ends_in_a_softmax_is_refused_before_training(last: nn.Module) -> None:
    def construct() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 10), last)

    with pytest.raises(ConfigError, match=r"model\.path: a:b on images of 1x8x8 returns probabilities"):
        tried(construct, (1, 8, 8), 10, "model.path: a:b", "fix it")


@pytest.mark.parametrize("last", [nn.LogSoftmax(1), nn.Identity(), nn.Sigmoid(), nn.ReLU()])
def test_a_network_that_does_not_end_in_a_softmax_is_accepted(last: nn.Module) -> None:
    tried(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10), last), (1, 8, 8), 10, "model.path: a:b", "fix it")
