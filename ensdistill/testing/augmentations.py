"""Contract for augmentations: they return uint8 images of the same shape and have no side effects."""

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from ensdistill.testing.contract import Contract


def images(channels: int = 3) -> Tensor:
    """Returns twenty random uint8 images of shape (20,channels,8,8)."""
    return torch.randint(256, (20, channels, 8, 8), generator=seeded(9)).to(torch.uint8)


def seeded(seed: int = 0) -> torch.Generator:
    """Returns a seeded random generator."""
    return torch.Generator().manual_seed(seed)


class AugmentationContract(Contract):
    """Tests for augmentations.

    Attributes:
        without_chance: Augmentation kinds that draw no random numbers.
    """

    without_chance: ClassVar[tuple[str, ...]] = ()

    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize("count", [0, 1, 20])
    def test_shape_and_type_are_preserved(self, piece: Any, channels: int, count: int) -> None:
        augmented = piece(images(channels)[:count], seeded())
        assert augmented.shape == (count, channels, 8, 8)
        assert augmented.dtype == torch.uint8

    @pytest.mark.parametrize("value", [0, 255])
    def test_black_and_white_images_are_supported(self, piece: Any, value: int) -> None:
        assert piece(torch.full((3, 3, 8, 8), value, dtype=torch.uint8), seeded()).shape == (3, 3, 8, 8)

    def test_input_images_are_not_modified(self, piece: Any) -> None:
        x = images()
        piece(x, seeded())
        assert torch.equal(x, images())

    def test_same_seed_gives_the_same_images(self, piece: Any) -> None:
        assert torch.equal(piece(images(), seeded(3)), piece(images(), seeded(3)))

    def test_different_seeds_and_later_batches_give_different_images(self, piece: Any) -> None:
        generator = seeded(0)
        first, later, other = piece(images(), generator), piece(images(), generator), piece(images(), seeded(1))
        different = not torch.equal(first, other) and not torch.equal(first, later)
        assert different != (piece.kind in self.without_chance or not piece.changes_images)

    def test_global_random_state_is_unchanged(self, piece: Any) -> None:
        before = torch.get_rng_state()
        piece(images(), seeded())
        assert torch.equal(torch.get_rng_state(), before)

    def test_images_are_unchanged_if_changes_images_is_false(self, piece: Any) -> None:
        assert piece.changes_images or torch.equal(piece(images(), seeded()), images())
