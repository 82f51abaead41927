"""The batches in which a split is evaluated."""

import pytest
import torch

from ensdistill.data import Split
from ensdistill.evaluation.predict import batches


@pytest.mark.parametrize(
    ("count", "shape", "sizes"),
    [
        (2500, (1, 8, 8), [1000, 1000, 500]),
        (1200, (3, 64, 64), [1000, 200]),
        (250, (3, 224, 224), [111, 111, 28]),  # 2^24 / (3 * 224 * 224) = 111.5
        (0, (3, 32, 32), []),
    ],
)
def test_large_images_are_evaluated_in_smaller_batches(
    count: int, shape: tuple[int, int, int], sizes: list[int]
) -> None:
    split = Split(torch.empty((1, *shape), dtype=torch.uint8).expand(count, *shape), torch.zeros(count))
    assert [
        batch.stop - batch.start if batch.stop <= count else count - batch.start for batch in batches(split)
    ] == sizes
