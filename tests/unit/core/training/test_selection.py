"""Selection of the epoch whose weights are kept, and early ending of training."""

from typing import Any

import pytest
import torch
from torch import nn

from ensdistill.data import DataSplits
from ensdistill.errors import ConfigError
from ensdistill.evaluation.predict import evaluate
from ensdistill.methods.members import TeacherEnsemble
from ensdistill.methods.recipe import Training
from ensdistill.training.loop import distill
from ensdistill.training.selection import EpochSelection
from ensdistill.training.teachers import teacher_config
from tests.unit.core.core_stand_ins import tiny_config

ROWS = [{"nll": nll, "accuracy": accuracy} for nll, accuracy in ((2.0, 0.3), (1.0, 0.5), (1.5, 0.6), (1.0, 0.6))]


def filled(training: Training, rows: list[dict[str, float]]) -> EpochSelection:
    """Returns the selection after these epochs; the network of epoch n has the weight n."""
    selection = EpochSelection(training)
    for n, row in enumerate(rows, 1):
        network = nn.Linear(1, 1, bias=False)
        nn.init.constant_(network.weight, n)
        selection.add(n, row, {"nll": 10.0 * n}, network)
    return selection


@pytest.mark.parametrize(("select", "epoch"), [("last", 4), ("best_nll", 2), ("best_accuracy", 3)])
def test_the_first_of_equally_good_epochs_is_selected_with_its_metrics_and_weights(select: Any, epoch: int) -> None:
    selection = filled(Training(select_epoch=select), ROWS)
    assert (selection.epoch, selection.val, selection.subnetworks) == (epoch, ROWS[epoch - 1], {"nll": 10.0 * epoch})
    assert [float(t) for t in selection.weights.values()] == ([] if select == "last" else [epoch])


@pytest.mark.parametrize(("select", "ends"), [("last", [0, 0, 0, 1]), ("best_accuracy", [0, 0, 0, 0])])
def test_training_ends_after_patience_epochs_without_an_improvement(select: Any, ends: list[int]) -> None:
    training = Training(select_epoch=select, patience=2)
    assert [filled(training, ROWS[: n + 1]).ends for n in range(4)] == [bool(end) for end in ends]


def test_the_epoch_selection_is_restored_from_its_state() -> None:
    training = Training(select_epoch="best_nll", patience=2)
    other = EpochSelection(training)
    other.load_state_dict(filled(training, ROWS[:3]).state_dict())
    assert (other.epoch, other.val, other.ends) == (2, ROWS[1], False)
    other.add(4, ROWS[3], {}, nn.Linear(1, 1))
    assert (other.epoch, other.ends) == (2, True)


def test_the_student_of_a_run_is_that_of_the_best_epoch_so_far(ensemble: TeacherEnsemble, digits: DataSplits) -> None:
    overrides = ("training.epochs=5", "training.optimizer.lr=0.3", "training.lr_schedule=constant", "loss.alpha=0")
    alone = [epoch.val["nll"] for epoch in distill(tiny_config(*overrides), ensemble, digits)]
    run = distill(tiny_config(*overrides, "training.select_epoch=best_nll"), ensemble, digits)
    for epoch in run:
        so_far = alone[: epoch.number]
        assert (epoch.selected, epoch.val["nll"]) == (1 + so_far.index(min(so_far)), min(so_far))
        assert evaluate(run.student(), digits.validation).items() <= epoch.val.items()
    assert min(alone) < alone[-1], "this run is an example of a last epoch that is not the best"


def test_patience_ends_teacher_training_early_and_is_refused_for_students(digits: DataSplits) -> None:
    settings = ("patience=2", "lr_schedule=constant", "optimizer.lr=1.0")
    config = teacher_config(tiny_config(*(f"teachers.training.{one}" for one in settings)), 0)
    training = config.training.model_copy(update={"epochs": 12, "batch_size": 10})
    teacher = config.model_copy(update={"training": training})
    epochs = list(distill(teacher, TeacherEnsemble([], 10, "none"), digits))
    assert [epoch.last for epoch in epochs] == [*[False] * (len(epochs) - 1), True]
    best = min(range(len(epochs)), key=lambda n: epochs[n].val["nll"])
    assert len(epochs) == best + 1 + 2 < 12
    rule = r"training.patience: applies only to teachers. Set teachers.training.patience"
    with pytest.raises(ConfigError, match=rule):
        tiny_config("training.patience=1")


@pytest.mark.parametrize(
    ("overrides", "extends"),
    [
        (("averaging.kind=ema",), True),
        (("averaging.kind=lawa", "training.optimizer.kind=adamw", "training.select_epoch=best_nll"), True),
        (("averaging.kind=swa", "averaging.start=0.5"), False),
        (("student.kind=batch_ensemble", "student.merge_after=0.5"), False),
        (("training.lr_schedule=cosine",), False),
    ],
)
def test_training_can_be_extended_if_its_first_epochs_do_not_depend_on_its_length(
    overrides: tuple[str, ...], extends: bool, ensemble: TeacherEnsemble, digits: DataSplits, tmp_path: Any
) -> None:
    settings = ("training.lr_schedule=constant", *overrides)
    short = distill(tiny_config(*settings, "training.epochs=2"), ensemble, digits)
    assert [epoch.number for epoch in short] == [1, 2]
    short.save_checkpoint(tmp_path / "c.pt")
    config = tiny_config(*settings, "training.epochs=4")
    if not extends:
        with pytest.raises(ConfigError, match="different settings"):
            distill(config, ensemble, digits, resume=tmp_path / "c.pt")
        return
    extended = distill(config, ensemble, digits, resume=tmp_path / "c.pt")
    whole = distill(config, ensemble, digits)
    expected = [(epoch.loss, epoch.val) for epoch in whole][2:]
    assert [(epoch.loss, epoch.val) for epoch in extended] == expected
    for one, other in zip(extended.student().parameters(), whole.student().parameters(), strict=True):
        assert torch.equal(one, other)
