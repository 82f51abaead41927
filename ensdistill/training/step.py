"""One step of distillation: the picture of the whole method."""

from torch import Tensor
from torch.optim import Optimizer

from ensdistill.config import Config
from ensdistill.methods.averaging import WeightAverage
from ensdistill.methods.members import MultiClassifier
from ensdistill.methods.students.base import Student
from ensdistill.runtime.randomness import RandomStreams


def distill_step(
    config: Config,
    ensemble: MultiClassifier,
    student: Student,
    optimizer: Optimizer,
    average: WeightAverage,
    images: Tensor,
    labels: Tensor,
    streams: RandomStreams,
    progress: float,
) -> Tensor:
    """Moves the student by one batch and returns its loss, a detached scalar.

    images: (B,C,H,W) in [0,1]; labels: (B,), -1 where there is none; progress: share of the training done after this
    step. Shapes at the seams: teachers (M,B,c), student (K,B,c).
    """
    with config.training.autocast(images.device):
        shown = config.perturbation(images, ensemble, student, streams)
        clean_logits = student(images) if config.perturbation.label_images == "clean" else None
        teacher_logits = ensemble(shown)
        student_logits = student(shown)
    on_labels = student_logits if clean_logits is None else clean_logits

    loss: Tensor = config.loss(student_logits, teacher_logits, labels, on_labels)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    config.training.clip_gradient(student)
    optimizer.step()
    average.update(student, progress)
    return loss.detach()
