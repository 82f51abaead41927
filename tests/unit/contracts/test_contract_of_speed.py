"""The optimized step gives the same loss and gradients as the published procedure."""

import pytest
import torch

from tests.benchmarks.step_speed import SYSTEMS, System, difference


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_optimized_step_gives_the_same_loss_and_gradients_as_the_published_procedure(name: str) -> None:
    ours, published = (System(name, torch.float64, 8, "model.depth=8", "model.width=4") for _ in range(2))
    assert difference(ours.ours(), published.published()) < 1e-5
