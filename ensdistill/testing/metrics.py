"""Contract for metrics: a finite number that depends only on the predictions and the labels."""

import math
from typing import Any

import torch
from torch import Tensor

from ensdistill.config import Config
from ensdistill.evaluation.own_metrics import check_metrics
from ensdistill.testing.contract import Contract

CLASSES, IMAGES = 4, 40
LABELS = torch.arange(IMAGES) % CLASSES


def predictions(right: float = 0.0) -> Tensor:
    """Returns the logarithm of a mixture of random probabilities and one-hot labels, of shape (N,classes).

    Args:
        right: Weight of the labels in the mixture, in [0, 1].
    """
    generator = torch.Generator().manual_seed(0)
    p = torch.randn(IMAGES, CLASSES, generator=generator, dtype=torch.float64).softmax(-1)
    return ((1 - right) * p + right * torch.nn.functional.one_hot(LABELS, CLASSES)).log()


class MetricContract(Contract):
    """Tests for metrics."""

    def test_name_and_direction_of_the_metric_are_accepted_in_the_settings(self, piece: Any) -> None:
        assert Config(metrics=[piece]).metrics == [piece]
        check_metrics([piece], CLASSES)

    def test_metric_is_a_finite_number(self, piece: Any) -> None:
        for right in (0.0, 0.5, 1.0):
            assert math.isfinite(float(piece(predictions(right), LABELS)))

    def test_metric_is_finite_for_probabilities_of_zero_and_one(self, piece: Any) -> None:
        certain = predictions(1.0)
        assert certain.isneginf().any()
        assert math.isfinite(float(piece(certain, LABELS)))

    def test_metric_of_correct_predictions_is_not_worse_than_that_of_random_predictions(self, piece: Any) -> None:
        right, random = (float(piece(predictions(share), LABELS)) for share in (0.99, 0.0))
        assert right >= random if piece.higher_is_better else right <= random

    def test_order_of_the_images_does_not_matter(self, piece: Any) -> None:
        order = torch.randperm(IMAGES, generator=torch.Generator().manual_seed(0))
        one, other = piece(predictions(), LABELS), piece(predictions()[order], LABELS[order])
        assert math.isclose(float(one), float(other), rel_tol=1e-9, abs_tol=1e-12)

    def test_inputs_are_not_modified(self, piece: Any) -> None:
        log_p, labels = predictions(), LABELS.clone()
        piece(log_p, labels)
        assert torch.equal(log_p, predictions())
        assert torch.equal(labels, LABELS)
