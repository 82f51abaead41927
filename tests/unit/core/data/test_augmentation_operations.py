"""Resized crops, color changes, RandAugment and erasing agree with an independent library or a loop."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from scipy.ndimage import affine_transform
from scipy.stats import kstest
from torch import Tensor
from torch.nn import functional as F

from ensdistill.data import StandardAugmentation
from ensdistill.data.augmentation import colors, rand_augment
from ensdistill.data.augmentation.geometry import Boxes, erase, random_boxes, random_resized_crop, resized_crop


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(shape: tuple[int, ...] = (8, 3, 12, 12), seed: int = 0) -> Tensor:
    return torch.randint(256, shape, generator=seeded(seed)).to(torch.uint8)


def each(images: Tensor, values: Tensor, change: Callable[[Image.Image, float], Image.Image]) -> Tensor:
    """Returns the reference result of color operations: Pillow changes each image."""
    changed = []
    for image, value in zip(images, values.tolist(), strict=True):
        picture = Image.fromarray(image.permute(1, 2, 0).squeeze(2).numpy())
        changed.append(torch.from_numpy(np.array(change(picture, value))))
    return torch.stack(changed).view(len(images), *images.shape[2:], -1).permute(0, 3, 1, 2)


def near(one: Tensor, other: Tensor, most: int = 1) -> bool:
    return bool((one.int() - other.int()).abs().max() <= most)


# --- random resized crop ---


@pytest.mark.parametrize("shape", [(9, 3, 16, 16), (6, 1, 7, 11), (2, 3, 1, 1)], ids=str)
@pytest.mark.parametrize("antialias", [True, False])
def test_random_resized_crops_equal_those_of_a_loop_that_crops_and_resizes_each_image(
    shape: tuple, antialias: bool
) -> None:
    images = pictures(shape)
    boxes = random_boxes(images, (0.08, 1.0), 4 / 3, seeded(5))
    looped = []
    for image, top, left, height, width in zip(images.double(), *(part.tolist() for part in boxes), strict=True):
        part = image[:, top : top + height, left : left + width] if height else image
        looped.append(F.interpolate(part[None], shape[2:], mode="bilinear", antialias=antialias)[0])
    cropped = random_resized_crop(images, 0.08, 4 / 3, seeded(5))
    assert cropped.dtype == torch.uint8
    assert (torch.stack(looped) - cropped).abs().max() <= 0.501


def test_pixels_outside_a_crop_do_not_affect_the_result() -> None:
    images = torch.full((1, 1, 8, 8), 200, dtype=torch.uint8)
    images[:, :, 2:5, 3:7] = 10
    box = Boxes(*(torch.tensor([value]) for value in (2, 3, 3, 4)))
    assert (resized_crop(images, box) == 10).all()


def test_boxes_lie_within_the_image_and_have_the_requested_areas_and_aspect_ratios() -> None:
    images = torch.empty(4000, 1, 100, 100)
    top, left, height, width = random_boxes(images, (0.25, 1.0), 4 / 3, seeded())
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= 100).all()
    assert (left + width <= 100).all()
    area, ratio = height * width / 1e4, width / height
    assert 0.24 < area.min() < 0.27
    assert area.max() > 0.97
    assert 0.98 * 3 / 4 < ratio.min() < 0.77
    assert 1.3 < ratio.max() < 1.02 * 4 / 3
    small = area < 0.7  # each of these fits at any aspect ratio, so no box is drawn again
    assert kstest(area[small], "uniform", (0.25, 0.45)).pvalue > 0.01
    assert kstest((left + torch.rand(4000, generator=seeded(1))) / (101 - width), "uniform").pvalue > 0.01


@pytest.mark.slow
def test_crops_have_the_same_distribution_of_areas_and_positions_as_in_torchvision() -> None:
    from torchvision.transforms import RandomResizedCrop  # a slow import that only this test needs

    torch.manual_seed(0)
    image = torch.empty(1, 50, 80)
    theirs = torch.tensor([RandomResizedCrop.get_params(image, [0.3, 1.0], [3 / 4, 4 / 3]) for _ in range(800)])
    ours = torch.stack(random_boxes(image.expand(800, 1, 50, 80), (0.3, 1.0), 4 / 3, seeded(1)), 1)
    ours = ours[ours[:, 2] > 0]  # an image for which no crop fits is kept whole; torchvision crops it
    assert len(ours) > 780
    for column in range(4):
        assert kstest(ours[:, column], theirs[:, column]).pvalue > 0.01


def test_an_image_is_unchanged_if_the_crop_is_the_whole_image_or_no_crop_fits() -> None:
    images = pictures((4, 3, 9, 9))
    assert torch.equal(random_resized_crop(images, 1.0, 1.0, seeded()), images)
    wide = pictures((3, 1, 1, 40))
    assert torch.equal(random_resized_crop(wide, 0.9, 1.0, seeded()), wide)  # no square of 36 pixels fits in one row


# --- colors ---


@pytest.mark.parametrize(
    ("change", "pillow"),
    [
        (colors.brightness, ImageEnhance.Brightness),
        (colors.contrast, ImageEnhance.Contrast),
        (colors.saturation, ImageEnhance.Color),
        (colors.sharpness, ImageEnhance.Sharpness),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_color_jitter_gives_the_same_images_as_pillow(change: Callable, pillow: Callable, channels: int) -> None:
    images = pictures((6, channels, 9, 7))
    factors = torch.tensor([0.0, 0.3, 0.8, 1.0, 1.4, 1.9])
    expected = each(images, factors, lambda picture, factor: pillow(picture).enhance(factor))
    assert near(change(images.float(), factors), expected, 2)  # Pillow rounds gray values


def test_color_jitter_draws_three_factors_for_each_image() -> None:
    images = pictures((400, 3, 4, 4))
    draws = torch.rand(3, 400, generator=seeded(2))
    light, apart, color = 1 + 0.4 * (2 * draws - 1)
    expected = colors.saturation(colors.contrast(colors.brightness(images.float(), light), apart), color)
    assert torch.equal(colors.jitter(images, 0.4, seeded(2)), expected.round().to(torch.uint8))
    assert 0.6 <= light.min() < 0.62
    assert 1.38 < light.max() <= 1.4


# --- RandAugment ---

STRENGTHS = torch.tensor([-1.0, -0.5, -0.1, 0.0, 0.2, 0.6, 0.9, 1.0])


@pytest.mark.parametrize(
    ("operation", "change"),
    [
        (rand_augment.posterize, lambda picture, s: ImageOps.posterize(picture, 8 - round(4 * abs(s)))),
        (rand_augment.solarize, lambda picture, s: ImageOps.solarize(picture, 255 * (1 - abs(s)))),
        (rand_augment.autocontrast, lambda picture, s: ImageOps.autocontrast(picture)),
        (rand_augment.equalize, lambda picture, s: ImageOps.equalize(picture)),
    ],
)
@pytest.mark.parametrize("images", [pictures(), pictures((8, 1, 40, 40)) // 3 + 60, pictures() * 0 + 7])
def test_color_operations_give_the_same_images_as_pillow(operation: Callable, change: Callable, images: Tensor) -> None:
    assert near(operation(images, STRENGTHS), each(images, STRENGTHS, change))


def _matrix(name: str, s: float) -> list[list[float]]:
    """Returns the source row and column as a linear function of the target row and column, about the center."""
    angle = math.radians(30 * s)
    turned = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    return {"shear_x": [[1, 0], [0.3 * s, 1]], "shear_y": [[1, 0.3 * s], [0, 1]], "rotate": turned}.get(
        name, [[1, 0], [0, 1]]
    )


@pytest.mark.parametrize("name", ["shear_x", "shear_y", "rotate", "translate_x", "translate_y"])
@pytest.mark.parametrize("shape", [(8, 3, 12, 12), (8, 1, 9, 15)], ids=str)
def test_geometric_operations_give_the_same_images_as_scipy(name: str, shape: tuple[int, ...]) -> None:
    images = pictures(shape)
    moved = getattr(rand_augment, name)(images, STRENGTHS)
    center = (np.array(shape[2:]) - 1) / 2
    for image, result, s in zip(images, moved, STRENGTHS.tolist(), strict=True):
        matrix = np.array(_matrix(name, s))
        shift = {"translate_x": (0, 150 / 331 * s * shape[3]), "translate_y": (150 / 331 * s * shape[2], 0)}
        offset = center - matrix @ center + np.array(shift.get(name, (0, 0)))
        for channel, found in zip(image, result, strict=True):
            expected = affine_transform(channel.numpy().astype(float), matrix, offset, order=1, mode="grid-constant")
            assert np.abs(expected - found.numpy()).max() < 0.51


def test_each_image_is_changed_by_the_operation_and_sign_drawn_for_it() -> None:
    images = pictures((60, 3, 10, 10))
    generator = seeded(4)
    kinds = torch.randint(14, (2, 60), generator=generator)
    signs = 2 * torch.randint(2, (2, 60), generator=generator) - 1
    expected = []
    for n, image in enumerate(images):
        for kind, sign in zip(kinds[:, n], signs[:, n], strict=True):
            image = rand_augment.OPERATIONS[int(kind)](image[None], 0.3 * sign[None])[0]
        expected.append(image)
    assert near(rand_augment.rand_augment(images, 2, 0.3, seeded(4)), torch.stack(expected))


def test_at_zero_strength_only_autocontrast_and_equalize_change_images() -> None:
    images = pictures((8, 3, 40, 40)) // 2
    left = [one.__name__ for one in rand_augment.OPERATIONS if not torch.equal(one(images, 0 * STRENGTHS), images)]
    assert left == ["autocontrast", "equalize"]


# --- erasing ---


def test_erased_rectangles_equal_those_of_a_loop_over_the_images() -> None:
    images = pictures((50, 3, 10, 8))
    generator = seeded(6)
    erased = torch.rand(50, generator=generator) < 0.6
    boxes = random_boxes(images, (0.02, 0.33), 3.3, generator)
    noise = torch.randint(256, images.shape, dtype=torch.uint8, generator=generator)
    expected = images.clone()
    for n, (top, left, height, width) in enumerate(zip(*(part.tolist() for part in boxes), strict=True)):
        if erased[n]:
            part = (n, slice(None), slice(top, top + height), slice(left, left + width))
            expected[part] = noise[part]
    assert torch.equal(erase(images, 0.6, seeded(6)), expected)
    assert 15 < int((expected != images).flatten(1).any(1).sum()) < 45


# --- sequence of operations ---


def test_operations_are_applied_in_the_order_of_the_settings() -> None:
    images = pictures((10, 3, 8, 8))
    settings = {"crop_scale": 0.5, "flip": True, "color_jitter": 0.3, "rand_augment": 1, "erasing": 0.5, "cutout": 3}
    generator, one_by_one = seeded(1), images
    for name in [name for name in StandardAugmentation.model_fields if name in settings]:
        one_by_one = StandardAugmentation(**{name: settings[name]})(one_by_one, generator)
    assert torch.equal(StandardAugmentation(**settings)(images, seeded(1)), one_by_one)


@pytest.mark.parametrize(
    "off", [{}, {"crop_ratio": 2.0, "magnitude": 1.0}, {"crop_scale": 0.0, "erasing": 0.0, "rand_augment": 0}]
)
def test_settings_of_disabled_operations_have_no_effect(off: dict[str, float]) -> None:
    piece, images = StandardAugmentation(**off), pictures()
    assert not piece.changes_images
    assert piece(images, seeded()) is images


@pytest.mark.parametrize(
    "on",
    [
        {"pad": 1},
        {"crop_scale": 0.5},
        {"flip": True},
        {"color_jitter": 0.1},
        {"rand_augment": 1},
        {"erasing": 0.1},
        {"cutout": 1},
    ],
    ids=str,
)
def test_every_enabled_operation_changes_images(on: dict[str, float]) -> None:
    assert StandardAugmentation(**on).changes_images
    assert not torch.equal(StandardAugmentation(**on)(pictures((40, 3, 8, 8)), seeded()), pictures((40, 3, 8, 8)))
