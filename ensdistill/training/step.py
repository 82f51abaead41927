"""One distillation step: all four components of a method in one function."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.amp import GradScaler
from torch.optim import Optimizer

from ensdistill.config import Config
from ensdistill.methods.averaging import WeightAverage
from ensdistill.methods.losses.losses import PLAIN, LabelTerm, label_term, weighted_sum
from ensdistill.methods.members import MultiClassifier
from ensdistill.methods.students.base import Student
from ensdistill.runtime.randomness import RandomStreams

_NO_SCALER = GradScaler("cpu", enabled=False)


@dataclass(frozen=True)
class StepContext:
    """Settings of one epoch, and the state that its steps update.

    Attributes:
        config: Settings of the epoch.
        student: The student being trained.
        optimizer: Optimizer of the student.
        average: Weight average of the student.
        streams: Random streams of the perturbation.
        scaler: Gradient scaler of the run; has an effect only in float16.
        label_term: Label smoothing and class weights.
    """

    config: Config
    student: Student
    optimizer: Optimizer
    average: WeightAverage
    streams: RandomStreams
    scaler: GradScaler = _NO_SCALER
    label_term: LabelTerm = PLAIN


def distill_step(
    context: StepContext, teachers: MultiClassifier, images: Tensor, labels: Tensor, progress: float
) -> Tensor:
    """Updates the student with one batch.

    With M teachers, K subnetworks and c classes, teacher logits have shape (M,B,c), and student logits have shape
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
    config, student, optimizer, scaler = context.config, context.student, context.optimizer, context.scaler
    parts = config.training.gradient_accumulation
    losses: list[Tensor] = []
    optimizer.zero_grad(set_to_none=True)
    for some_teachers, some_images, some_labels in _parts(parts, teachers, images, labels):
        loss = _loss(context, some_teachers, some_images, some_labels)
        loss = loss / parts if parts > 1 else loss
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        losses.append(loss.detach())
    scaler.unscale_(optimizer)
    config.training.clip_gradient(student)
    scaler.step(optimizer)
    scaler.update()
    context.average.update(student, progress)
    return losses[0] if parts == 1 else torch.stack(losses).sum()


def _parts(
    count: int, teachers: MultiClassifier, images: Tensor, labels: Tensor
) -> Iterator[tuple[MultiClassifier, Tensor, Tensor]]:
    """Yields `count` parts of a batch, each with every `count`-th image, so that labeled images are divided equally."""
    if count == 1:
        yield teachers, images, labels
        return
    for n in range(count):
        part = slice(n, None, count)
        yield teachers.for_images(part), images[part], labels[part]


def _loss(context: StepContext, teachers: MultiClassifier, images: Tensor, labels: Tensor) -> Tensor:
    """Returns the student's loss on images (B,C,H,W) as a scalar; for the arguments, see `distill_step`."""
    config, student = context.config, context.student
    with config.training.autocast(images.device, scaled=False):
        shown, mixed = config.perturbation.with_labels(images, labels, teachers, student, context.streams)
    with config.training.autocast(images.device):
        clean_logits = student(images) if config.perturbation.label_images == "clean" else None
        teacher_logits = teachers(shown)
        student_logits = student(shown)
    on_labels = student_logits if clean_logits is None else clean_logits
    terms = [(share, partial(config.loss, student_logits, teacher_logits, own, on_labels)) for share, own in mixed]
    with label_term(context.label_term):
        return weighted_sum(*terms)
