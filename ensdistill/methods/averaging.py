"""Fourth component of a method: the weights that are evaluated and exported.

To add an average, add one settings class to this file. Calling an instance with the student returns a `WeightAverage`,
which is updated after every step and every epoch and provides the averaged student. `Student.merged` then turns the
subnetworks into one network.
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
    # A function that returns the validation metrics of a student, computed from its exported form.
    Validator = Callable[[Student], Mapping[str, float]]


class WeightAverage(Protocol):
    """State of a weight average during one training run."""

    def update(self, student: Student, progress: float) -> None:
        """Updates the average after a step; `progress` is the completed fraction of training, in (0, 1]."""

    def epoch_ended(self, student: Student, progress: float, judge: Validator) -> None:
        """Updates the average at the end of an epoch; called after the last `update` of the epoch.

        Args:
            student: The student in training.
            progress: Completed fraction of training, in (0, 1].
            judge: Function that returns the validation metrics of a given student.
        """

    def averaged(self, student: Student) -> Student:
        """Returns the student to evaluate and export: an averaged copy, or the given student itself."""

    def state_dict(self) -> dict[str, Any]:
        """Returns the state; an average restored from this state gives bit-for-bit equal results."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a state that was saved with the same settings and the same kind of student."""


class AveragingSettings(Piece):
    """Base class of all averages."""

    refresh_batchnorm: bool = setting(
        True, "Re-estimate the BatchNorm statistics of the evaluated networks on the training images."
    )

    def __call__(self, student: Student) -> WeightAverage:
        """Returns a new average; called before the student's first training step."""
        raise NotImplementedError

    @property
    def depends_on_length(self) -> bool:
        """Whether the average after an epoch depends on the total number of epochs."""
        return True


class NoAveraging(AveragingSettings):
    """The final weights of the optimizer, without averaging."""

    kind: Literal["none"] = "none"
    refresh_batchnorm: bool = setting(
        False, "Re-estimate the BatchNorm statistics of the evaluated networks on the training images."
    )

    def __call__(self, student: Student) -> WeightAverage:
        """Returns an average that always equals the student itself."""
        return _NoAverage()

    @property
    def depends_on_length(self) -> bool:
        """False: the weights after an epoch do not depend on the number of epochs that follow."""
        return False


class Ema(AveragingSettings):
    """Exponential moving average over steps: theta' <- d theta' + (1 - d) theta.

    With `debias`, the average starts at zero and is divided by 1 - d^n after n steps (Kingma and Ba 2015, section 3),
    so that the first weights do not dominate. Without `debias`, the average starts at the first weights. Buffers are
    copied from the student.
    """

    kind: Literal["ema"] = "ema"
    decay: float = setting(0.99, "Decay rate d: weight of the previous average at every step.", ge=0, lt=1)
    start: float = setting(0.0, "Fraction of training after which averaging starts.", ge=0, lt=1)
    debias: bool = setting(True, "Correct the bias towards the first weights.")

    def __call__(self, student: Student) -> WeightAverage:
        """Returns an average that starts as a copy of the student."""
        return _StepAverage(student, self.start, self.mix)

    @property
    def depends_on_length(self) -> bool:
        """True if `start` is above 0, because `start` is a fraction of all epochs."""
        return self.start > 0

    def mix(self, average: Tensor, current: Tensor, count: Tensor | int) -> Tensor:
        """Returns the average of one weight tensor over count + 1 steps.

        Args:
            average: Average over the first `count` steps.
            current: The weight tensor after the next step.
            count: Number of steps in `average`, at least 1.
        """
        decay = torch.tensor(self.decay, dtype=torch.float64, device=average.device)
        share = (1 - decay) / (1 - decay ** (count + 1)) if self.debias else 1 - decay
        return average + share.to(average.dtype) * (current - average)


class Swa(AveragingSettings):
    """Stochastic weight averaging: the mean of the weights at the end of every epoch after the start.

    It works best with a learning rate that stays high (`training.lr_schedule: constant`). Izmailov et al. 2018,
    algorithm 1.
    """

    kind: Literal["swa"] = "swa"
    start: float = setting(0.75, "Fraction of training after which averaging starts.", ge=0, lt=1)

    def __call__(self, student: Student) -> WeightAverage:
        """Returns an average that starts as a copy of the student."""
        return _EpochAverage(student, self.start, None)

    @property
    def depends_on_length(self) -> bool:
        """True if `start` is above 0, because `start` is a fraction of all epochs."""
        return self.start > 0


class Lawa(AveragingSettings):
    """Latest weight averaging: theta' = 1/k sum_{i<k} theta_{t - i v}, the mean of the last k states, v steps apart.

    By default, the states are those at the end of the last k epochs (Kaddour 2022, section 2). With `window_fraction` =
    f, the k states are spread evenly over a fraction f of all T steps: v = f T / k, but at least one step. The number
    of steps in the window is then proportional to the length of training. A state is added every v steps, so the newest
    state is less than v steps old. Ajroldi et al. 2025 recommend windows of about 1 % of the steps.
    """

    kind: Literal["lawa"] = "lawa"
    window: int = setting(6, "Number of states k.", ge=1, le=1000)
    window_fraction: float | None = setting(
        None,
        "Length of the window as a fraction of all training steps; by default, the window covers the last k epochs.",
        gt=0,
        le=1,
    )

    def __call__(self, student: Student) -> WeightAverage:
        """Returns an average of at most k states, all kept in memory."""
        if self.window_fraction is None:
            return _WindowAverage(self.window)
        return _StepWindowAverage(self.window, self.window_fraction / self.window)

    @property
    def depends_on_length(self) -> bool:
        """True if `window_fraction` is set, because it is a fraction of all steps."""
        return self.window_fraction is not None


class GreedySoup(AveragingSettings):
    """Greedy soup: the mean of the weights at the end of selected epochs.

    The best epochs are tried in order of their validation metric. An epoch is added to the mean if the validation
    metric of the mean does not get worse. Wortsman et al. 2022 (Model soups), recipe 1, applied to the epochs of one
    run.

    The selection uses the validation images, so the validation metrics of a soup are slightly optimistic.
    """

    kind: Literal["greedy_soup"] = "greedy_soup"
    max_candidates: int = setting(5, "Number of best epochs that are candidates for the soup.", ge=1, le=100)
    metric: Literal["accuracy", "nll"] = setting("accuracy", "Validation metric that ranks and selects the epochs.")

    def __call__(self, student: Student) -> WeightAverage:
        """Returns a soup of at most `max_candidates` states, all kept in memory."""
        return _GreedySoupAverage(self.max_candidates, self.metric)

    @property
    def depends_on_length(self) -> bool:
        """False: the soup after an epoch does not depend on the number of epochs that follow."""
        return False


class _NoAverage:
    """An average without state: the student itself."""

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
        from torch.optim.swa_utils import AveragedModel  # imported here, because it imports torch

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
    """The arithmetic mean of the weights at the end of every epoch."""

    def update(self, student: Student, progress: float) -> None:
        pass

    def epoch_ended(self, student: Student, progress: float, judge: Validator) -> None:
        super().update(student, progress)


class _WindowAverage(_NoAverage):
    """The mean of the weights at the end of each of the last `window` epochs, including BatchNorm statistics."""

    def __init__(self, last: int) -> None:
        self.window = last
        self.kept: list[Weights] = []

    def epoch_ended(self, student: Student, progress: float, judge: Validator) -> None:
        self._keep(student)

    def _keep(self, student: Student) -> None:
        self.kept = [*self.kept, _copy(student)][-self.window :]

    def averaged(self, student: Student) -> Student:
        return _with_mean(student, self.kept) if self.kept else student

    def state_dict(self) -> dict[str, Any]:
        return {"kept": self.kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.kept = state["kept"]


class _StepWindowAverage(_WindowAverage):
    """The mean of the last `window` states; a state is taken each time a fraction `spacing` of training has passed."""

    def __init__(self, last: int, spacing: float) -> None:
        super().__init__(last)
        self.spacing = spacing
        self.passed = 0  # number of multiples of the spacing that the training has passed

    def update(self, student: Student, progress: float) -> None:
        passed = int(progress / self.spacing + 1e-6)  # the tolerance compensates for rounding at an exact multiple
        if passed > self.passed:
            self._keep(student)
        self.passed = passed

    def epoch_ended(self, student: Student, progress: float, judge: Validator) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {"kept": self.kept, "passed": self.passed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.kept, self.passed = state["kept"], state["passed"]


class _GreedySoupAverage(_NoAverage):
    """The states of the best epochs, best first, and the indices of the states that are in the soup."""

    def __init__(self, candidates: int, metric: str) -> None:
        self.max_candidates, self.metric = candidates, metric
        self.kept: list[Weights] = []
        self.scores: list[float] = []
        self.chosen: list[int] = []

    def epoch_ended(self, student: Student, progress: float, judge: Validator) -> None:
        score = self._score(student, judge)
        position = sum(score <= other for other in self.scores)  # the earlier of two equal scores ranks first
        if position >= self.max_candidates:
            return
        self.kept.insert(position, _copy(student))
        self.scores.insert(position, score)
        del self.kept[self.max_candidates :], self.scores[self.max_candidates :]
        self._select(student, judge)

    def _select(self, student: Student, judge: Validator) -> None:
        """Adds each candidate state to the soup if the validation score does not get worse."""
        self.chosen, best = [0], self.scores[0]
        for n in range(1, len(self.kept)):
            tried = [*self.chosen, n]
            score = self._score(_with_mean(student, [self.kept[i] for i in tried]), judge)
            if score >= best:
                self.chosen, best = tried, score

    def _score(self, student: Student, judge: Validator) -> float:
        """Returns the validation metric, negated if lower is better."""
        value = judge(student)[self.metric]
        return value if self.metric == "accuracy" else -value

    def averaged(self, student: Student) -> Student:
        return _with_mean(student, [self.kept[n] for n in self.chosen]) if self.chosen else student

    def state_dict(self) -> dict[str, Any]:
        return {"kept": self.kept, "scores": self.scores, "chosen": self.chosen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.kept, self.scores, self.chosen = state["kept"], state["scores"], state["chosen"]


def _copy(student: Student) -> Weights:
    """Returns a detached copy of the student's state dict."""
    return {name: tensor.detach().clone() for name, tensor in student.state_dict().items()}


def _with_mean(student: Student, states: list[Weights]) -> Student:
    """Returns a copy of the student whose weights are the mean of the states.

    Integer buffers come from the last state. Tensors that are equal in all states, such as frozen weights, are copied,
    because the rounded mean of equal numbers can differ from these numbers.
    """
    average = deepcopy(student)
    average.load_state_dict({name: _mean([state[name] for state in states]) for name in states[-1]})
    return average


def _mean(tensors: list[Tensor]) -> Tensor:
    """Returns the mean of tensors of the same shape, or the last tensor if they are equal or of an integer type."""
    last = tensors[-1]
    if not last.is_floating_point() or all(torch.equal(last, tensor) for tensor in tensors):
        return last
    return torch.stack(tensors).mean(0)


AVERAGES = PieceFamily("averaging", AveragingSettings)
Averaging = Annotated[AveragingSettings, AVERAGES]
