"""Crops, flips and cutout agree with a loop over images and pixels."""

import math

import pytest
import torch
from torch import Tensor

from ensdistill.data import StandardAugmentation

SHAPES = [(6, 3, 8, 8), (5, 1, 7, 5), (4, 3, 1, 9), (1, 1, 1, 1)]
PIECES = [
    StandardAugmentation(pad=2),
    StandardAugmentation(flip=True),
    StandardAugmentation(cutout=4),
    StandardAugmentation(cutout=3),
    StandardAugmentation(pad=4, flip=True, cutout=5),
]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(shape: tuple[int, ...] = (6, 3, 8, 8), seed: int = 0) -> Tensor:
    """Returns bytes from 1 upwards, so that every zero in an augmented image comes from the augmentation."""
    return torch.randint(1, 256, shape, generator=seeded(seed)).to(torch.uint8)


def numbered(count: int, side: int) -> Tensor:
    """Returns `count` copies of one image whose pixels are 1, 2, 3, ..."""
    return torch.arange(1, side * side + 1, dtype=torch.uint8).view(1, 1, side, side).repeat(count, 1, 1, 1)


def by_hand(images: Tensor, piece: StandardAugmentation, seed: int) -> Tensor:
    """Returns the reference result: the same random numbers in the same order, applied pixel by pixel."""
    count, _, height, width = images.shape
    generator = seeded(seed)
    nothing = torch.zeros(count, dtype=torch.long)
    top, left = torch.randint(2 * piece.pad + 1, (2, count), generator=generator) if piece.pad else (nothing, nothing)
    mirrored = torch.rand(count, generator=generator) < 0.5 if piece.flip else nothing
    row = torch.randint(height, (count, 1), generator=generator) if piece.cutout else nothing
    column = torch.randint(width, (count, 1), generator=generator) if piece.cutout else nothing
    result = torch.zeros_like(images)
    for b in range(count):
        for y in range(height):
            for x in range(width):
                if piece.cutout:
                    first_row, first_column = (int(c[b]) - piece.cutout // 2 for c in (row, column))
                    if 0 <= y - first_row < piece.cutout and 0 <= x - first_column < piece.cutout:
                        continue
                from_y = y + int(top[b]) - piece.pad
                from_x = (width - 1 - x if mirrored[b] else x) + int(left[b]) - piece.pad
                if 0 <= from_y < height and 0 <= from_x < width:
                    result[b, :, y, x] = images[b, :, from_y, from_x]
    return result


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("piece", PIECES, ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_the_augmentation_of_a_batch_equals_a_pixel_by_pixel_computation(
    piece: StandardAugmentation, shape: tuple[int, ...], seed: int
) -> None:
    images = pictures(shape)
    augmented = piece(images, seeded(seed))
    assert augmented.dtype == torch.uint8
    assert augmented.shape == images.shape
    assert torch.equal(augmented, by_hand(images, piece, seed))


def test_without_augmentation_the_same_tensor_is_returned_and_no_random_number_is_drawn() -> None:
    images, generator = pictures(), seeded()
    before = generator.get_state()
    assert StandardAugmentation()(images, generator) is images
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("piece", PIECES, ids=str)
def test_the_input_is_not_modified_and_shares_no_memory_with_the_output(piece: StandardAugmentation) -> None:
    images = pictures()
    kept = images.clone()
    piece(images, seeded()).fill_(0)
    assert torch.equal(images, kept)


@pytest.mark.parametrize("piece", PIECES, ids=str)
def test_the_same_seed_gives_the_same_images_and_another_seed_gives_different_images(
    piece: StandardAugmentation,
) -> None:
    images = pictures((20, 3, 8, 8))
    first, again, other = (piece(images, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("piece", PIECES, ids=str)
def test_successive_batches_are_augmented_differently(piece: StandardAugmentation) -> None:
    images, generator = pictures((20, 3, 8, 8)), seeded()
    assert not torch.equal(piece(images, generator), piece(images, generator))


def test_about_half_of_the_images_are_mirrored_and_all_others_are_unchanged() -> None:
    images = numbered(2000, 3)
    mirrored = (StandardAugmentation(flip=True)(images, seeded()) == images.flip(-1)).all(3).all(2).all(1)
    others = StandardAugmentation(flip=True)(images, seeded())[~mirrored]
    assert torch.equal(others, images[~mirrored])
    assert abs(int(mirrored.sum()) - 1000) < 5 * math.sqrt(2000 / 4)


def test_every_offset_of_a_crop_is_equally_likely() -> None:
    images = numbered(5000, 9)
    centers = StandardAugmentation(pad=2)(images, seeded())[:, 0, 4, 4]
    offsets = {9 * (4 + down) + 4 + right + 1 for down in range(-2, 3) for right in range(-2, 3)}
    counts = torch.bincount(centers.long())
    assert set(counts.nonzero().flatten().tolist()) == offsets
    expected = 5000 / 25
    chi_square = float(((counts[counts > 0] - expected) ** 2 / expected).sum())
    assert chi_square < 51.2  # 24 degrees of freedom; exceeded once in a thousand cases


def test_a_crop_of_a_small_image_may_contain_only_padding() -> None:
    images = numbered(500, 2)
    black = StandardAugmentation(pad=3)(images, seeded()).flatten(1).sum(1) == 0
    assert 0 < int(black.sum()) < 500


def test_the_center_of_the_hole_is_uniformly_distributed_over_the_pixels() -> None:
    images = numbered(5000, 5)
    holes = StandardAugmentation(cutout=1)(images, seeded()) == 0
    assert (holes.flatten(1).sum(1) == 1).all()
    expected = 5000 / 25
    chi_square = float(((holes.sum(0) - expected) ** 2 / expected).sum())
    assert chi_square < 51.2  # 24 degrees of freedom; exceeded once in a thousand cases


def test_the_hole_is_a_square_clipped_at_the_borders_and_equal_in_all_channels() -> None:
    holes = StandardAugmentation(cutout=4)(pictures((400, 3, 8, 8)), seeded()) == 0
    assert torch.equal(holes, holes[:, :1].expand_as(holes))
    rows, columns = holes[:, 0].any(2).sum(1), holes[:, 0].any(1).sum(1)
    assert torch.equal(holes[:, 0].sum((1, 2)), rows * columns)
    assert set(rows.tolist()) == set(columns.tolist()) == {2, 3, 4}


def test_images_of_one_batch_are_augmented_independently() -> None:
    images = numbered(50, 8)
    for piece in PIECES:
        assert len({image.numpy().tobytes() for image in piece(images, seeded())}) > 1


@pytest.mark.parametrize("piece", PIECES, ids=str)
def test_an_empty_batch_stays_empty(piece: StandardAugmentation) -> None:
    assert piece(pictures((0, 3, 8, 8)), seeded()).shape == (0, 3, 8, 8)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("piece", PIECES, ids=str)
def test_images_stay_on_their_device(piece: StandardAugmentation) -> None:
    images = pictures().cuda()
    first, again = (piece(images, torch.Generator("cuda").manual_seed(3)) for _ in range(2))
    assert first.device == images.device
    assert torch.equal(first, again)


@pytest.mark.parametrize("wrong", [{"pad": -1}, {"cutout": -1}, {"flip": 1}, {"pad": 1.5}, {"crop": 4}], ids=str)
def test_settings_out_of_range_are_rejected(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        StandardAugmentation(**wrong)
