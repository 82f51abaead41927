"""Students with all perturbations, losses and averages: a step is finite and reproducible, and changes the student."""

import copy
import itertools
from typing import Any

import pytest
import torch
from allpairspy import AllPairs
from torch import Tensor

from ensdistill.evaluation.predict import evaluate
from ensdistill.methods.averaging import AVERAGES
from ensdistill.methods.losses import LOSSES
from ensdistill.methods.members import TeacherEnsemble
from ensdistill.methods.perturbations import PERTURBATIONS, Gaussian
from ensdistill.methods.recipe import Training, set_lr
from ensdistill.methods.students import STUDENTS
from ensdistill.methods.students.base import Student
from ensdistill.testing.toy import streams, toy_config, toy_data, toy_ensemble, toy_student
from ensdistill.training.loop import distill
from ensdistill.training.step import StepContext, distill_step
from tests.unit.contracts.contract_pieces import ROWS

DATA = toy_data()
AXES = {
    "student": STUDENTS,
    "perturbation": PERTURBATIONS,
    "loss": LOSSES,
    "averaging": AVERAGES,
}
ALIKE = "cutmix"  # the step is that of mixup; it is combined with each other piece, but not in all combinations
TRAINING = Training(epochs=2, batch_size=8, warmup_epochs=0)


def _combinations() -> list[Any]:
    """Returns combinations of pieces of the four axes that cover every pair; all other combinations are marked slow."""
    choices = [
        [piece(**ROWS.get(str(piece.model_fields["kind"].default), {})) for piece in axis.built_in.values()]
        for axis in AXES.values()
    ]
    pairs = {tuple(kinds) for kinds in AllPairs([[piece.kind for piece in some] for some in choices])}
    return [
        pytest.param(
            dict(zip(AXES, some, strict=True)),
            id="-".join(kinds),
            marks=[] if kinds in pairs else pytest.mark.slow,
        )
        for some in itertools.product(*choices)
        for kinds in [tuple(piece.kind for piece in some)]
        if kinds in pairs or ALIKE not in kinds
    ]


every_combination = pytest.mark.parametrize("axes", _combinations())


def one_step(axes: dict[str, Any], ensemble: TeacherEnsemble, seed: int = 0) -> tuple[Student, Tensor]:
    config = toy_config(**axes, training=TRAINING)
    student = toy_student(config.student, DATA, spread=False)
    optimizer = TRAINING.new_optimizer(student)
    set_lr(optimizer, 0.05)
    average = config.averaging(student)
    images, labels = DATA.train[slice(0, 8)]
    context = StepContext(config, student, optimizer, average, streams(seed))
    loss = distill_step(context, ensemble, images, labels, 0.5)
    return student, loss


def test_every_pair_of_built_in_pieces_is_covered_by_a_quick_test() -> None:
    quick = [param.values[0] for param in _combinations() if not param.marks]
    for one, two in itertools.combinations(AXES, 2):
        met = {(axes[one].kind, axes[two].kind) for axes in quick}
        assert len(met) == len(AXES[one].built_in) * len(AXES[two].built_in)


@every_combination
def test_a_step_has_a_finite_loss_and_changes_only_the_student(axes: dict[str, Any]) -> None:
    ensemble = toy_ensemble(DATA)
    weights = copy.deepcopy(ensemble.state_dict())
    student, loss = one_step(axes, ensemble)
    assert loss.shape == ()
    assert loss.isfinite()
    assert not loss.requires_grad
    start = dict(toy_student(axes["student"], DATA, spread=False).named_parameters())
    assert all(p.isfinite().all() for p in student.parameters())
    assert all(not torch.equal(p, start[name]) for name, p in student.named_parameters())
    assert all(p.grad is None for p in ensemble.parameters())
    assert all(torch.equal(weights[name], tensor) for name, tensor in ensemble.state_dict().items())
    assert student.training


@every_combination
def test_the_same_seed_gives_the_same_step(axes: dict[str, Any]) -> None:
    (one, loss), (two, again) = (one_step(axes, toy_ensemble(DATA)) for _ in range(2))
    assert loss == again
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


@every_combination
def test_a_complete_run_has_finite_metrics_and_returns_the_evaluated_student(axes: dict[str, Any]) -> None:
    run = distill(toy_config(**axes, training=TRAINING), toy_ensemble(DATA), DATA)
    epochs = list(run)
    assert len(epochs) == 2
    for epoch in epochs:
        assert all(torch.tensor(value).isfinite() for value in [*epoch.val.values(), *epoch.subnetworks.values()])
    assert evaluate(run.student(), DATA.validation).items() <= epochs[-1].val.items()


def test_teachers_and_student_receive_the_same_perturbed_images() -> None:
    shown: dict[str, list[Tensor]] = {"teacher": [], "student": []}
    ensemble = toy_ensemble(DATA)
    config = toy_config(perturbation=Gaussian(step_size=0.3, label_images="perturbed"), training=TRAINING)
    student = toy_student(config.student, DATA, spread=False)
    ensemble.networks[0].register_forward_pre_hook(lambda _, inputs: shown["teacher"].append(inputs[0]))
    student.register_forward_pre_hook(lambda _, inputs: shown["student"].append(inputs[0]))
    images, labels = DATA.train[slice(0, 8)]
    context = StepContext(config, student, TRAINING.new_optimizer(student), config.averaging(student), streams())
    distill_step(context, ensemble, images, labels, 0.5)
    (to_teacher,), (to_student,) = shown.values()
    assert torch.equal(to_teacher, to_student)
    assert not torch.equal(to_teacher, images)


def test_the_setting_label_images_selects_the_images_used_in_the_label_term() -> None:
    seen: list[Tensor] = []

    def spy(student: Tensor, teachers: Tensor, labels: Tensor, on_labels: Tensor) -> Tensor:
        seen.extend([student, on_labels])
        return student.sum() + on_labels.sum()

    for label_images, same in (("clean", False), ("perturbed", True)):
        seen.clear()
        axes = {"perturbation": Gaussian(step_size=0.3, label_images=label_images), "loss": spy}
        one_step({"student": toy_config().student, "averaging": toy_config().averaging, **axes}, toy_ensemble(DATA))
        assert torch.equal(*seen) == same
