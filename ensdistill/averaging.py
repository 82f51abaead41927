"""The fourth axis: which weights are evaluated and shipped. To add a piece: one class, one line in `Averaging`.

A settings class, called with the student, gives an `Average`: it is shown the student after every step and hands out
the averaged student. (That subnetworks are merged into one network is the student's own affair: `Student.merged`.)
"""

from typing import Annotated, Any, Literal, Protocol, cast

import torch
from pydantic import Field
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from ensdistill.settings import Settings, setting
from ensdistill.students.base import Student


class Average(Protocol):
    """What a training run carries along for its average."""

    def update(self, student: Student, progress: float) -> None:
        """Called after every step; progress is the share of the training done, in (0, 1]."""

    def averaged(self, student: Student) -> Student:
        """The student to evaluate and ship; never changes the one in training (but may be that one)."""

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on exactly."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes a state of the same settings and the same student."""


class NoAveraging(Settings):
    """The weights as the optimiser left them."""

    kind: Literal["none"] = "none"
    refresh_batchnorm: bool = setting(
        False, "Estimate BatchNorm statistics of the evaluated networks anew on the training images."
    )

    def __call__(self, student: Student) -> Average:
        """An average that is always the student itself."""
        return _LastWeights()


class _LastWeights:
    def update(self, student: Student, progress: float) -> None:
        pass

    def averaged(self, student: Student) -> Student:
        return student

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class Ema(Settings):
    """Exponential moving average over steps: theta' <- d theta' + (1 - d) theta.

    With `debias` as if begun at zero and divided by 1 - d^n (Kingma and Ba 2015, section 3), which forgets the first
    weights at once; without, begun at the first weights. Buffers follow the student.
    """

    kind: Literal["ema"] = "ema"
    decay: float = setting(0.99, "Weight of the past, d, at every step.", ge=0, lt=1)
    start: float = setting(0.0, "Share of the training after which averaging starts.", ge=0, lt=1)
    debias: bool = setting(True, "Correct for the short history at the start.")
    refresh_batchnorm: bool = setting(
        True, "Estimate BatchNorm statistics of the evaluated networks anew on the training images."
    )

    def __call__(self, student: Student) -> Average:
        """An average that begins as a copy of the student."""
        return _RunningAverage(student, self)

    def mix(self, average: Tensor, current: Tensor, count: Tensor | int) -> Tensor:
        """The average of count + 1 weights from that of count >= 1 and the next ones."""
        decay = torch.tensor(self.decay, dtype=torch.float64, device=average.device)
        share = (1 - decay) / (1 - decay ** (count + 1)) if self.debias else 1 - decay
        return average + share.to(average.dtype) * (current - average)


class _RunningAverage:
    def __init__(self, student: Student, settings: Ema) -> None:
        self.settings = settings
        self.model = AveragedModel(student, avg_fn=settings.mix)

    def update(self, student: Student, progress: float) -> None:
        if progress > self.settings.start:
            self.model.update_parameters(student)

    def averaged(self, student: Student) -> Student:
        average = cast(Student, self.model.module)
        return average if int(self.model.n_averaged) else student

    def state_dict(self) -> dict[str, Any]:
        return self.model.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state)


Averaging = Annotated[NoAveraging | Ema, Field(discriminator="kind")]
