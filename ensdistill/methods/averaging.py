"""The fourth axis: which weights are evaluated and shipped. To add a piece: one class in this file.

A settings class, called with the student, returns a `WeightAverage`, which is updated after every step and every epoch
and returns the averaged student. (That subnetworks become one network is the student's own affair: `Student.merged`.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, cast

from ensdistill.runtime.lazy import torch
from ensdistill.settings.base import setting
from ensdistill.settings.families import PieceFamily
from ensdistill.settings.pieces import Piece

if TYPE_CHECKING:
    from torch import Tensor

    from ensdistill.methods.students.base import Student

    Weights = dict[str, Tensor]  # a state dict
    Validator = Callable[[Student], Mapping[str, float]]  # validation metrics of a student as it would be shipped


class WeightAverage(Protocol):
    """What a training run carries along for its average."""

    def update(self, student: Student, progress: float) -> None:
        """Called after every step; progress is the share of the training done, in (0, 1]."""

    def epoch_ended(self, student: Student, progress: float, judge: Validator) -> None:
        """Called after every epoch, after its last `update`."""

    def averaged(self, student: Student) -> Student:
        """The student to evaluate and ship; never changes the one in training (but may be that one)."""

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on exactly."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes a state of the same settings and the same student."""


class AveragingSettings(Piece):
    """Base of all averages."""

    refresh_batchnorm: bool = setting(
        True, "Estimate BatchNorm statistics of the evaluated networks anew on the training images."
    )

    def __call__(self, student: Student) -> WeightAverage:
        """Returns an average that has seen no step of the student yet."""
        raise NotImplementedError


class NoAveraging(AveragingSettings):
    """The weights as the optimizer left them."""

    kind: Literal["none"] = "none"
    refresh_batchnorm: bool = setting(
        False, "Estimate BatchNorm statistics of the evaluated networks anew on the training images."
    )

    def __call__(self, student: Student) -> WeightAverage:
        """An average that is always the student itself."""
        return _NoAverage()


class Ema(AveragingSettings):
    """Exponential moving average over steps: theta' <- d theta' + (1 - d) theta.

    With `debias` as if begun at zero and divided by 1 - d^n (Kingma and Ba 2015, section 3), which forgets the first
    weights at once; without, begun at the first weights. Buffers follow the student.
    """

    kind: Literal["ema"] = "ema"
    decay: float = setting(0.99, "Weight of the past, d, at every step.", ge=0, lt=1)
    start: float = setting(0.0, "Share of the training after which averaging starts.", ge=0, lt=1)
    debias: bool = setting(True, "Correct for the short history at the start.")

    def __call__(self, student: Student) -> WeightAverage:
        """An average that begins as a copy of the student."""
        return _StepAverage(student, self.start, self.mix)

    def mix(self, average: Tensor, current: Tensor, count: Tensor | int) -> Tensor:
        """The average of count + 1 weights from that of count >= 1 and the next ones."""
        decay = torch.tensor(self.decay, dtype=torch.float64, device=average.device)
        share = (1 - decay) / (1 - decay ** (count + 1)) if self.debias else 1 - decay
        return average + share.to(average.dtype) * (current - average)


class Swa(AveragingSettings):
    """Stochastic weight averaging: the mean of the weights at the end of every epoch after the start.

    Best with a learning rate that stays up (`training.lr_schedule: constant`). Izmailov et al. 2018, algorithm 1.
    """

    kind: Literal["swa"] = "swa"
    start: float = setting(0.75, "Share of the training after which averaging starts.", ge=0, lt=1)

    def __call__(self, student: Student) -> WeightAverage:
        """An average that begins as a copy of the student."""
        return _EpochAverage(student, self.start, None)


class Lawa(AveragingSettings):
    """Latest weight averaging: the mean of the weights at the end of the last k epochs. Kaddour 2022, section 2."""

    kind: Literal["lawa"] = "lawa"
    window: int = setting(6, "How many epoch ends k.", ge=1, le=1000)

    def __call__(self, student: Student) -> WeightAverage:
        """An average of at most k states, all kept in memory."""
        return _WindowAverage(self.window)


class GreedySoup(AveragingSettings):
    """The mean of those epoch ends that help: taken in the order of their validation metric, kept if the mean of all
    kept so far does not get worse by it. Wortsman et al. 2022 (Model soups), recipe 1, on one run's own epochs.

    It chooses on the validation images, so that its validation metrics flatter it a little.
    """

    kind: Literal["greedy_soup"] = "greedy_soup"
    max_candidates: int = setting(5, "How many of the best epochs so far are tried.", ge=1, le=100)
    metric: Literal["accuracy", "nll"] = setting("accuracy", "Validation metric that orders and decides.")

    def __call__(self, student: Student) -> WeightAverage:
        """A soup of at most so many states, all kept in memory."""
        return _GreedySoupAverage(self.max_candidates, self.metric)


class _NoAverage:
    def update(self, student: Student, progress: float) -> None:
        pass

    def epoch_ended(self, student: Student, progress: float, judge: Validator) -> None:
        pass

    def averaged(self, student: Student) -> Student:
        return student

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class _StepAverage(_NoAverage):
    """A running average, by default the arithmetic mean, of the weights after every step."""

    def __init__(self, student: Student, start: float, mix: Callable[..., Tensor] | None) -> None:
        from torch.optim.swa_utils import AveragedModel  # here: imports torch

        self.start = start
        self.model = AveragedModel(student, avg_fn=mix)

    def update(self, student: Student, progress: float) -> None:
        if progress > self.start:
            self.model.update_parameters(student)

    def averaged(self, student: Student) -> Student:
        average = cast("Student", self.model.module)
        return average if int(self.model.n_averaged) else student

    def state_dict(self) -> dict[str, Any]:
        return self.model.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state)


class _EpochAverage(_StepAverage):
    """The same at the end of every epoch."""

    def update(self, student: Student, progress: float) -> None:
        pass

    def epoch_ended(self, student: Student, progress: float, judge: Validator) -> None:
        super().update(student, progress)


class _WindowAverage(_NoAverage):
    """The mean of the last few epoch ends, BatchNorm statistics included."""

    def __init__(self, last: int) -> None:
        self.window = last
        self.kept: list[Weights] = []

    def epoch_ended(self, student: Student, progress: float, judge: Validator) -> None:
        self.kept = [*self.kept, _copy(student)][-self.window :]

    def averaged(self, student: Student) -> Student:
        return _with_mean(student, self.kept) if self.kept else student

    def state_dict(self) -> dict[str, Any]:
        return {"kept": self.kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.kept = state["kept"]


class _GreedySoupAverage(_NoAverage):
    """The best epoch ends, best first, and which of them are in the soup."""

    def __init__(self, candidates: int, metric: str) -> None:
        self.max_candidates, self.metric = candidates, metric
        self.kept: list[Weights] = []
        self.scores: list[float] = []
        self.chosen: list[int] = []

    def epoch_ended(self, student: Student, progress: float, judge: Validator) -> None:
        score = self._score(student, judge)
        place = sum(score <= other for other in self.scores)  # of equals the earlier one stays in front
        if place >= self.max_candidates:
            return
        self.kept.insert(place, _copy(student))
        self.scores.insert(place, score)
        del self.kept[self.max_candidates :], self.scores[self.max_candidates :]
        self._cook(student, judge)

    def _cook(self, student: Student, judge: Validator) -> None:
        self.chosen, best = [0], self.scores[0]
        for n in range(1, len(self.kept)):
            tried = [*self.chosen, n]
            score = self._score(_with_mean(student, [self.kept[i] for i in tried]), judge)
            if score >= best:
                self.chosen, best = tried, score

    def _score(self, student: Student, judge: Validator) -> float:
        value = judge(student)[self.metric]
        return value if self.metric == "accuracy" else -value

    def averaged(self, student: Student) -> Student:
        return _with_mean(student, [self.kept[n] for n in self.chosen]) if self.chosen else student

    def state_dict(self) -> dict[str, Any]:
        return {"kept": self.kept, "scores": self.scores, "chosen": self.chosen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.kept, self.scores, self.chosen = state["kept"], state["scores"], state["chosen"]


def _copy(student: Student) -> Weights:
    return {name: tensor.detach().clone() for name, tensor in student.state_dict().items()}


def _with_mean(student: Student, states: list[Weights]) -> Student:
    """A copy of the student with the mean of the states, each tensor under its own name; counters from the last."""
    mean = {
        name: torch.stack([state[name] for state in states]).mean(0) if tensor.is_floating_point() else tensor
        for name, tensor in states[-1].items()
    }
    average = deepcopy(student)
    average.load_state_dict(mean)
    return average


AVERAGES = PieceFamily("averaging", AveragingSettings)
Averaging = Annotated[AveragingSettings, AVERAGES]
