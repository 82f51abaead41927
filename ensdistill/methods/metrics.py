"""Metrics of the user's own: computed from the predictions of students and teachers next to the built-in ones."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, ClassVar

from ensdistill.settings.pieces import Piece, PieceFamily

if TYPE_CHECKING:
    from torch import Tensor


class Metric(Piece):
    """Base of all metrics outside of this package.

    Attributes:
        higher_is_better: Whether more of it is better; every metric states it.
    """

    higher_is_better: ClassVar[bool]

    @property
    def name(self) -> str:
        """Name of the metric in tables, files and MLflow; by default `WorstClass` has the name `worst_class`."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(self).__name__).lower()

    def __call__(self, log_p: Tensor, labels: Tensor) -> float:
        """Returns the metric of predictions on one split, a finite number.

        Args:
            log_p: Log-probabilities (N,c), float64, on the CPU.
            labels: Class indices (N,), on the CPU.
        """
        raise NotImplementedError


METRICS = PieceFamily("metrics", Metric)
OwnMetric = Annotated[Metric, METRICS]
