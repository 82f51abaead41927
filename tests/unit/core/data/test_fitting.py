"""Images are converted to the input shape of another network, with Pillow as an independent reference."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ensdistill.data import Split, fit_images
from ensdistill.errors import DataError


def split(channels: int, height: int, width: int, count: int = 4) -> Split:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, channels, height, width), generator=generator).to(torch.uint8)
    return Split(images, torch.arange(count))


def pillow(image: Tensor, mode: str, size: tuple[int, int]) -> np.ndarray:
    """Returns an image (C,H,W) converted to a mode and a size (height, width) by Pillow."""
    pixels = image.permute(1, 2, 0).numpy()
    picture = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0]).convert(mode)
    array = np.asarray(picture.resize(size[::-1], Image.Resampling.BILINEAR)).astype(int)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def test_images_of_the_right_shape_are_returned_unchanged() -> None:
    images = split(3, 6, 5)
    assert fit_images(images, (3, 6, 5)) is images


def test_a_gray_image_becomes_an_rgb_image_with_three_equal_channels() -> None:
    images = split(1, 6, 5)
    fitted = fit_images(images, (3, 6, 5)).images
    assert all(torch.equal(fitted[:, [channel]], images.images) for channel in range(3))


@pytest.mark.parametrize(
    ("color", "gray"), [((255, 0, 0), 76), ((0, 255, 0), 150), ((0, 0, 255), 29), ((9, 9, 9), 9), ((255,) * 3, 255)]
)
def test_a_color_image_is_converted_to_its_luma(color: tuple[int, int, int], gray: int) -> None:
    images = torch.tensor(color, dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    assert fit_images(Split(images, torch.zeros(1).long()), (1, 2, 2)).images.unique().tolist() == [gray]


@pytest.mark.parametrize("size", [(6, 5), (3, 4), (13, 9), (3, 11), (1, 1)], ids=str)
@pytest.mark.parametrize("channels", [(1, 1), (3, 3), (3, 1), (1, 3)], ids=str)
def test_resized_images_differ_from_those_of_pillow_by_at_most_two_gray_levels(
    channels: tuple[int, int], size: tuple[int, int]
) -> None:
    images = split(channels[0], 6, 5)
    fitted = fit_images(images, (channels[1], *size))
    assert fitted.images.dtype == torch.uint8
    assert fitted.images.shape == (4, channels[1], *size)
    mode = "RGB" if channels[1] == 3 else "L"
    expected = np.stack([pillow(image, mode, size) for image in images.images])
    assert np.abs(fitted.images.numpy().astype(int) - expected).max() <= 2  # Pillow rounds between its steps


def test_labels_and_order_of_many_images_are_preserved() -> None:
    number = torch.arange(2500)
    images = (number % 251).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 4, 4)
    fitted = fit_images(Split(images, number), (3, 2, 2))
    assert torch.equal(fitted.labels, number)
    assert torch.equal(fitted.images[:, 2, 1, 1].long(), number % 251)


def test_the_input_is_not_modified() -> None:
    images = split(3, 6, 5)
    kept = images.images.clone()
    fit_images(images, (1, 3, 3)).images.fill_(0)
    assert torch.equal(images.images, kept)


@pytest.mark.parametrize(("before", "after"), [(2, 3), (3, 2), (4, 3), (1, 2)])
def test_images_with_a_different_number_of_channels_are_rejected(before: int, after: int) -> None:
    with pytest.raises(DataError, match=rf"{before} channels .* {after}"):
        fit_images(split(before, 6, 5), (after, 6, 5))
