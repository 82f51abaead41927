"""One step of distillation: all four components of a method in one function."""

from dataclasses import dataclass
from functools import partial

from torch import Tensor
from torch.optim import Optimizer

from ensdistill.config import Config
from ensdistill.methods.averaging import WeightAverage
from ensdistill.methods.losses.losses import weighted_sum
from ensdistill.methods.members import MultiClassifier
from ensdistill.methods.students.base import Student
from ensdistill.runtime.randomness import RandomStreams


@dataclass(frozen=True)
class StepContext:
    """Settings of one epoch, and the state that its steps update.

    Attributes:
        config: Settings of the epoch.
        student: The student in training.
        optimizer: Optimizer of the student.
        average: Weight average of the student.
        streams: Random streams of the perturbation.
    """

    config: Config
    student: Student
    optimizer: Optimizer
    average: WeightAverage
    streams: RandomStreams


def distill_step(
    context: StepContext, teachers: MultiClassifier, images: Tensor, labels: Tensor, progress: float
) -> Tensor:
    """Updates the student with one batch.

    With M teachers, K subnetworks and c classes, the logits of the teachers are (M,B,c) and those of the student
    (K,B,c).

    Args:
        context: Settings, student, optimizer, average and random streams.
        teachers: The teachers, or their cached logits for these images.
        images: Images (B,C,H,W) in [0,1].
        labels: Class indices (B,), -1 for an unlabeled image.
        progress: Completed fraction of the training after this step, in (0, 1].

    Returns:
        The loss, a detached scalar.
    """
    config, student, optimizer = context.config, context.student, context.optimizer
    with config.training.autocast(images.device):
        shown, mixed = config.perturbation.with_labels(images, labels, teachers, student, context.streams)
        clean_logits = student(images) if config.perturbation.label_images == "clean" else None
        teacher_logits = teachers(shown)
        student_logits = student(shown)
    on_labels = student_logits if clean_logits is None else clean_logits

    terms = [(share, partial(config.loss, student_logits, teacher_logits, own, on_labels)) for share, own in mixed]
    loss = weighted_sum(*terms)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    config.training.clip_gradient(student)
    optimizer.step()
    context.average.update(student, progress)
    return loss.detach()
