"""User-defined metrics, computed from the predictions of students and teachers in addition to the built-in metrics."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from ensdistill.settings.families import PieceFamily
from ensdistill.settings.pieces import Piece

if TYPE_CHECKING:
    from torch import Tensor


class Metric(Piece):
    """Base class of all user-defined metrics.

    Attributes:
        higher_is_better: Whether a higher value is better; every metric must define it.
        name: Name of the metric in tables, files and MLflow. The default is the class name in snake case (`WorstClass`
            -> `worst_class`); a class can define a different name, or a property that derives the name from settings.
    """

    higher_is_better: ClassVar[bool]
    name: ClassVar[str]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in vars(cls) and not isinstance(getattr(cls, "name", ""), property):
            cls.name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()

    def __call__(self, log_p: Tensor, labels: Tensor) -> float:
        """Returns the metric, a finite number, for the predictions on one split.

        Args:
            log_p: Log-probabilities (N,c), float64, on the CPU.
            labels: Class indices (N,), on the CPU.
        """
        raise NotImplementedError


METRICS = PieceFamily("metrics", Metric)
OwnMetric = Annotated[Metric, METRICS]
