"""Settings of the training recipe agree with torch and with hand-computed values."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from ensdistill.config import Config
from ensdistill.data import DataSplits
from ensdistill.errors import ConfigError
from ensdistill.methods.class_weights import weights_of_classes
from ensdistill.methods.losses.losses import LabelTerm, label_cross_entropy, label_term
from ensdistill.methods.members import TeacherEnsemble
from ensdistill.methods.optimizers import Sgd
from ensdistill.methods.recipe import Training
from ensdistill.training.loop import distill
from ensdistill.training.new_student import check_student
from ensdistill.training.step import StepContext, distill_step
from ensdistill.training.teacher_logits import CachedTeachers
from tests.unit.core.core_stand_ins import LinearMembers, streams, tiny_config

LABELS = torch.tensor([0, 2, 2, 1, -1])


def logits(members: int = 3) -> Tensor:
    return torch.randn(members, 5, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 2.0, 0.5, 3.0])], ids=["equal", "weighted"])
def test_the_label_term_equals_the_torch_cross_entropy_over_all_subnetworks_and_labeled_images(
    smoothing: float, weights: Tensor | None
) -> None:
    z = logits()
    with label_term(LabelTerm(smoothing, weights)):
        found = label_cross_entropy(z, LABELS)
        nothing = label_cross_entropy(z, torch.full((5,), -1))
    options: dict[str, Any] = {"weight": weights, "label_smoothing": smoothing, "ignore_index": -1}
    assert_close(found, F.cross_entropy(z.flatten(0, 1), LABELS.repeat(3), **options))
    assert nothing == 0
    assert_close(label_cross_entropy(z, LABELS), F.cross_entropy(z.flatten(0, 1), LABELS.repeat(3), ignore_index=-1))


def test_label_smoothing_distributes_a_share_of_the_target_over_all_classes() -> None:
    z = logits(1)[:, :1]
    target = torch.tensor([0.1 / 4 + 0.9, 0.1 / 4, 0.1 / 4, 0.1 / 4])
    with label_term(LabelTerm(0.1)):
        assert_close(label_cross_entropy(z, LABELS[:1]), -(target * z[0, 0].log_softmax(-1)).sum())


def test_balanced_class_weights_are_inversely_proportional_to_the_number_of_images() -> None:
    labels, names = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1]), ("a", "b")
    assert_close(weights_of_classes("balanced", labels, names), torch.tensor([8 / (2 * 6), 8 / (2 * 2)]))
    assert weights_of_classes("none", labels, names) is None
    assert_close(weights_of_classes([1.0, 4.0], labels, names), torch.tensor([1.0, 4.0]))


@pytest.mark.parametrize("name", ["training", "teachers.training"])
def test_class_weights_for_a_different_number_of_classes_cause_an_error_that_names_the_setting(
    name: str, digits: DataSplits
) -> None:
    with pytest.raises(ConfigError, match=rf"^{name}.class_weights: must have one number for each of the 10 classes"):
        check_student(tiny_config(f"{name}.class_weights=[1, 2]"), digits)


@pytest.mark.parametrize("value", ["balance", [1, 0], [], [True], [float("inf")], 3])
def test_invalid_class_weights_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="must be none, balanced, or a list of numbers above 0"):
        Training(class_weights=value)


# --- steps ---


def stepped(config: Config, batch: int = 12) -> tuple[Tensor, Tensor]:
    """Returns the loss and the weight after a step of a linear student with two subnetworks and two cached teachers."""
    generator = torch.Generator().manual_seed(0)
    student = LinearMembers(*torch.randn(2, 4, 9, generator=generator))
    teachers = CachedTeachers(torch.randn(2, batch, 4, generator=generator))
    images = torch.rand(batch, 1, 3, 3, generator=generator)
    labels = torch.arange(batch) % 4
    labels[-batch // 2 :] = -1
    optimizer = config.training.new_optimizer(student)
    context = StepContext(config, student, optimizer, config.averaging(student), streams(), label_term=SMOOTH)
    loss = distill_step(context, teachers, images, labels, 0.5)
    return loss, torch.stack(list(student.parameters()))


SMOOTH = LabelTerm(0.1)


@pytest.mark.parametrize("parts", [2, 3])
@pytest.mark.parametrize("preset", ["kd", "hydra", "unikd"])
def test_accumulated_gradients_equal_those_of_the_whole_batch(preset: str, parts: int) -> None:
    own = ("training.max_grad_norm=0.5", "training.batch_size=6", "training.unlabeled_batch_size=6")
    loss, weight = stepped(tiny_config(*own, preset=preset))
    accumulated, same = stepped(tiny_config(*own, f"training.gradient_accumulation={parts}", preset=preset))
    assert_close(accumulated, loss)
    assert_close(same, weight)


def test_a_clipped_step_of_a_whole_batch_equals_that_of_torch() -> None:
    config = tiny_config("training.max_grad_norm=0.01", "training.optimizer={momentum: 0, weight_decay: 0, lr: 1}")
    loss, weight = stepped(config)
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(2, 4, 9, generator=generator).requires_grad_()
    t, x = torch.randn(2, 12, 4, generator=generator), torch.rand(12, 9, generator=generator)
    s = torch.einsum("kcd,bd->kbc", start, x)
    labels = torch.arange(6) % 4
    ce = torch.stack([F.cross_entropy(one[:6], labels, label_smoothing=0.1) for one in s]).mean()
    p = (t / 4).softmax(-1).mean(0)
    kl = torch.stack([F.kl_div((one / 4).log_softmax(-1), p, reduction="batchmean") for one in s]).mean()
    expected = 0.1 * ce + 0.9 * 16 * kl
    expected.backward()
    assert_close(loss, expected.detach())
    torch.nn.utils.clip_grad_norm_([start], 0.01)
    assert_close(weight, (start - start.grad).detach())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 10, "gradient_accumulation": 3}, r"must be a divisor of batch_size \(10\)"),
        ({"unlabeled_batch_size": 3, "gradient_accumulation": 2}, r"divisor of unlabeled_batch_size \(3\)"),
        ({"warmup_steps": 3, "lr_update": "epoch"}, "requires lr_update: step"),
    ],
)
def test_contradictory_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Training(**settings)


def test_warm_up_lasts_the_given_number_of_steps() -> None:
    training = Training(epochs=10, warmup_epochs=9, warmup_steps=4, lr_schedule="constant", optimizer=Sgd(lr=0.8))
    assert [training.lr_at(step, 3) for step in range(6)] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 0.8])


# --- float16 ---


class Halved(Training):
    """Training in float16 with a gradient scaler on the CPU, which torch supports slowly."""

    def scales_gradients(self, device: torch.device) -> bool:
        return True


def halved(*overrides: str) -> Config:
    config = tiny_config("training.precision=float16", *overrides)
    return config.model_copy(update={"training": Halved(**config.training.model_dump())})


def test_float16_on_a_cpu_is_replaced_by_float32_with_one_warning(
    ensemble: TeacherEnsemble, digits: DataSplits
) -> None:
    config = tiny_config("training.precision=float16", "training.epochs=1")
    with pytest.warns(UserWarning, match="training.precision: float16 requires a GPU; training on cpu") as caught:
        check_student(config, digits)
    assert len(caught) == 1
    (one,), (other,) = (list(distill(c, ensemble, digits)) for c in (config, tiny_config("training.epochs=1")))
    assert (one.loss, one.val) == (other.loss, other.val)


def test_float16_training_is_close_to_float32_training_and_resumes_with_its_gradient_scaler(
    ensemble: TeacherEnsemble, digits: DataSplits, tmp_path: Any
) -> None:
    config = halved("training.max_grad_norm=1", "training.epochs=2")
    run = distill(config, ensemble, digits)
    first = next(run)
    run.save_checkpoint(tmp_path / "c.pt")
    exact = next(distill(tiny_config("training.max_grad_norm=1", "training.epochs=2"), ensemble, digits))
    assert first.loss != exact.loss
    assert first.loss == pytest.approx(exact.loss, rel=0.01)
    state = torch.load(tmp_path / "c.pt", weights_only=True)["scaler"]
    assert state["_growth_tracker"] == 4, "the number of steps without an overflow"
    again = distill(config, ensemble, digits, resume=tmp_path / "c.pt")
    expected, resumed = next(run), next(again)
    assert (resumed.loss, resumed.val) == (expected.loss, expected.val)


def test_a_step_that_overflows_in_float16_is_skipped() -> None:
    config = tiny_config("training.max_grad_norm=1")
    student = LinearMembers(torch.ones(4, 9))
    optimizer = config.training.new_optimizer(student)
    scaler = torch.amp.GradScaler("cpu", init_scale=1e38)
    context = StepContext(config, student, optimizer, config.averaging(student), streams(), scaler)
    teachers = CachedTeachers(100 * torch.randn(2, 8, 4, generator=torch.Generator().manual_seed(0)))
    distill_step(context, teachers, 10 * torch.ones(8, 1, 3, 3), torch.arange(8) % 4, 0.5)
    assert torch.equal(student.matrices[0], torch.ones(4, 9))
    assert scaler.get_scale() == pytest.approx(1e38 / 2)


# --- settings without effect ---


@pytest.mark.parametrize("setting", ["label_smoothing=0.1", "class_weights=balanced"])
def test_a_setting_of_the_label_term_causes_a_warning_if_the_loss_uses_no_labels(
    setting: str, digits: DataSplits
) -> None:
    config = tiny_config(f"training.{setting}", "loss.alpha=1")
    with pytest.warns(
        UserWarning, match=rf"training.{setting.split('=')[0]}: has no effect, because the loss averaged"
    ):
        check_student(config, digits)


def test_a_setting_of_the_label_term_causes_no_warning_if_the_loss_uses_labels(
    digits: DataSplits, recwarn: pytest.WarningsRecorder
) -> None:
    check_student(tiny_config("training.label_smoothing=0.1"), digits)
    assert not recwarn


def test_label_smoothing_affects_the_training_loss(digits: DataSplits) -> None:
    nobody = TeacherEnsemble([], 10, "none")
    plain, smooth = (
        next(distill(tiny_config(f"training.label_smoothing={e}", preset="labels"), nobody, digits)).loss
        for e in (0, 0.5)
    )
    assert plain != smooth
