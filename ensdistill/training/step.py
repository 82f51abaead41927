"""One step of distillation: the picture of the whole method."""

from dataclasses import dataclass

from torch import Tensor
from torch.optim import Optimizer

from ensdistill.config import Config
from ensdistill.methods.averaging import WeightAverage
from ensdistill.methods.members import MultiClassifier
from ensdistill.methods.students.base import Student
from ensdistill.runtime.randomness import RandomStreams


@dataclass(frozen=True)
class StepContext:
    """What all steps of an epoch share: the settings of that epoch, and what a step changes."""

    config: Config
    student: Student
    optimizer: Optimizer
    average: WeightAverage
    streams: RandomStreams  # of the perturbation


def distill_step(
    context: StepContext, teachers: MultiClassifier, images: Tensor, labels: Tensor, progress: float
) -> Tensor:
    """Moves the student by one batch.

    Shapes at the seams, of M teachers, K subnetworks and c classes: logits of teachers (M,B,c), of the student (K,B,c).

    Args:
        context: Settings, student, optimizer, average and random streams.
        teachers: The teachers, or their logits of these images.
        images: (B,C,H,W) in [0,1].
        labels: (B,), -1 where there is none.
        progress: Share of the training that is done after this step, in (0, 1].

    Returns:
        The loss, a detached scalar.
    """
    config, student, optimizer = context.config, context.student, context.optimizer
    with config.training.autocast(images.device):
        shown = config.perturbation(images, teachers, student, context.streams)
        clean_logits = student(images) if config.perturbation.label_images == "clean" else None
        teacher_logits = teachers(shown)
        student_logits = student(shown)
    on_labels = student_logits if clean_logits is None else clean_logits

    loss: Tensor = config.loss(student_logits, teacher_logits, labels, on_labels)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    config.training.clip_gradient(student)
    optimizer.step()
    context.average.update(student, progress)
    return loss.detach()
