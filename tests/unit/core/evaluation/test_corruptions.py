"""Corrupted images: strength, reproducibility, and agreement with closed forms and other libraries."""

import colorsys
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from sklearn.datasets import load_digits
from torch import Tensor

from ensdistill.errors import ConfigError
from ensdistill.evaluation.corruptions import CORRUPTIONS, corrupt

EVERY = pytest.mark.parametrize("name", CORRUPTIONS)


def smooth(count: int = 40, channels: int = 3, side: int = 32) -> Tensor:
    """Returns random images with similar neighboring pixels, as in photographs."""
    coarse = torch.rand((count, channels, 4, 4), generator=torch.Generator().manual_seed(0))
    fine = F.interpolate(coarse, (side, side), mode="bicubic", align_corners=False)
    return (fine.clamp(0, 1) * 255).round().to(torch.uint8)


def digits() -> Tensor:
    return torch.from_numpy(load_digits().images[:300] * (255 / 16)).round().to(torch.uint8).unsqueeze(1)


def distance(corrupted: Tensor, images: Tensor) -> float:
    """Returns the mean squared distance on the scale [0,1]."""
    return float(((corrupted.double() - images.double()) / 255).square().mean())


def test_the_corruptions_are_the_five_documented_ones() -> None:
    assert list(CORRUPTIONS) == ["gaussian_noise", "gaussian_blur", "brightness", "contrast", "pixelate"]


@EVERY
@pytest.mark.parametrize(
    "images", [smooth(), digits(), smooth(side=28, channels=1), smooth(side=64)], ids=["rgb", "digits", "gray", "large"]
)
def test_a_higher_severity_increases_the_distance_from_the_clean_images(name: str, images: Tensor) -> None:
    distances = [distance(corrupt(images, name, severity, 0), images) for severity in range(1, 6)]
    assert distances[0] > 0
    assert all(milder < worse for milder, worse in pairwise(distances)), distances


@EVERY
@pytest.mark.parametrize(
    "shape", [(5, 1, 8, 8), (5, 3, 8, 8), (2, 3, 7, 12), (1, 1, 2, 2), (1, 3, 1, 1), (0, 3, 8, 8)], ids=str
)
def test_corrupted_images_are_bytes_of_the_same_shape(name: str, shape: tuple[int, ...]) -> None:
    images = torch.randint(256, shape, generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    for severity in range(1, 6):
        corrupted = corrupt(images, name, severity, 0)
        assert corrupted.dtype == torch.uint8
        assert corrupted.shape == images.shape


@EVERY
@pytest.mark.parametrize("level", [0, 128, 255])
def test_no_pixel_value_overflows(name: str, level: int) -> None:
    images = torch.full((4, 3, 8, 8), level, dtype=torch.uint8)
    change = corrupt(images, name, 5, 0).int() - level
    assert change.abs().max() < 150  # a byte that overflows would change by about 255 levels


@EVERY
def test_the_same_seed_gives_the_same_images(name: str) -> None:
    images = smooth()
    assert torch.equal(corrupt(images, name, 3, 5), corrupt(images, name, 3, 5))


@EVERY
def test_only_noise_depends_on_the_seed(name: str) -> None:
    images = smooth()
    same = torch.equal(corrupt(images, name, 3, 5), corrupt(images, name, 3, 6))
    assert same == (name != "gaussian_noise")


@EVERY
def test_the_input_is_not_modified_and_shares_no_memory_with_the_output(name: str) -> None:
    images = smooth()
    kept = images.clone()
    corrupt(images, name, 5, 0).fill_(0)
    assert torch.equal(images, kept)


@EVERY
def test_a_gray_image_is_corrupted_like_an_rgb_image_with_three_equal_channels(name: str) -> None:
    gray = smooth(channels=1)
    if name == "gaussian_noise":
        pytest.skip("each channel has noise of its own")
    color = corrupt(gray.repeat(1, 3, 1, 1), name, 3, 0)
    assert (color.int() - corrupt(gray, name, 3, 0).int()).abs().max() <= 1  # differences in the order of summation


@EVERY
def test_images_after_the_first_chunk_are_corrupted_in_the_same_way(name: str) -> None:
    images = smooth(count=10, channels=1, side=8).repeat(210, 1, 1, 1)
    corrupted = corrupt(images, name, 4, 0)
    assert len(corrupted) == 2100
    if name == "gaussian_noise":
        assert len(corrupted.unique(dim=0)) == 2100
    else:
        assert (corrupted.int() - corrupted[:10].int().repeat(210, 1, 1, 1)).abs().max() <= 1


@pytest.mark.parametrize("name", ["gaussian_blur", "contrast", "pixelate"])
@pytest.mark.parametrize("side", [1, 2, 8])
def test_an_image_of_one_color_is_unchanged(name: str, side: int) -> None:
    images = torch.full((2, 3, side, side), 77, dtype=torch.uint8)
    for severity in range(1, 6):
        assert torch.equal(corrupt(images, name, severity, 0), images)


# --- each corruption ---


@pytest.mark.parametrize(("severity", "sigma"), [(1, 0.04), (5, 0.10)])
def test_noise_has_zero_mean_and_the_given_standard_deviation(severity: int, sigma: float) -> None:
    images = torch.full((100, 3, 32, 32), 128, dtype=torch.uint8)
    noise = (corrupt(images, "gaussian_noise", severity, 0).double() - 128) / 255
    assert abs(float(noise.mean())) < 5 * sigma / np.sqrt(noise.numel())
    assert abs(float(noise.std()) / sigma - 1) < 0.01


def test_the_noise_of_different_severities_with_the_same_seed_is_proportional() -> None:
    images = torch.full((10, 3, 8, 8), 128, dtype=torch.uint8)
    mild, severe = (corrupt(images, "gaussian_noise", severity, 3).double() - 128 for severity in (1, 5))
    assert (mild * 0.10 / 0.04 - severe).abs().max() <= 0.5 + 0.5 * 2.5


@pytest.mark.parametrize(("height", "width"), [(8, 8), (32, 32), (10, 24), (24, 10)])
def test_blur_of_severity_five_equals_the_scipy_blur_with_a_sigma_of_one_tenth_of_the_shorter_side(
    height: int, width: int
) -> None:
    images = smooth(side=32)[:, :, :height, :width]
    expected = gaussian_filter(
        images.double().numpy(), 0.1 * min(height, width), axes=(2, 3), mode="nearest", truncate=4
    )
    difference = corrupt(images, "gaussian_blur", 5, 0).double().numpy() - expected
    assert np.abs(difference).max() <= 0.6  # half a level for rounding; both kernels end at about four sigma


def test_brightness_changes_the_hsv_value_and_preserves_hue_and_saturation() -> None:
    images = smooth(count=3, side=6)
    brighter = corrupt(images, "brightness", 3, 0)
    for before, after in zip(
        images.permute(0, 2, 3, 1).flatten(0, 2), brighter.permute(0, 2, 3, 1).flatten(0, 2), strict=True
    ):
        hue, saturation, value = colorsys.rgb_to_hsv(*(before / 255).tolist())
        expected = colorsys.hsv_to_rgb(hue, saturation, min(value + 0.15, 1))
        assert np.abs(after.numpy() - np.array(expected) * 255).max() <= 0.51


def test_black_becomes_gray_if_the_brightness_is_increased() -> None:
    assert corrupt(torch.zeros((1, 3, 2, 2), dtype=torch.uint8), "brightness", 2, 0).unique().tolist() == [26]


def test_contrast_moves_every_channel_towards_its_mean() -> None:
    images = torch.tensor([[[[0, 200]], [[50, 70]]]], dtype=torch.uint8)
    assert corrupt(images, "contrast", 2, 0).tolist() == [[[[50, 150]], [[55, 65]]]]


def test_pixelation_replaces_each_square_by_its_mean() -> None:
    images = smooth(side=8)
    means = images.double().reshape(40, 3, 4, 2, 4, 2).mean((3, 5))  # severity 4 on a side of 8: four squares of two
    expected = means.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert (corrupt(images, "pixelate", 4, 0) - expected).abs().max() <= 0.51


def test_a_pixel_on_the_border_between_two_squares_is_the_area_weighted_mean_of_both() -> None:
    images = smooth(side=10)
    fine = images.double().repeat_interleave(3, 2).repeat_interleave(3, 3)  # severity 5: three squares of 10/3 pixels
    means = fine.reshape(40, 3, 3, 10, 3, 10).mean((3, 5)).repeat_interleave(10, 2).repeat_interleave(10, 3)
    expected = means.reshape(40, 3, 10, 3, 10, 3).mean((3, 5))
    assert (corrupt(images, "pixelate", 5, 0) - expected).abs().max() <= 0.51


# --- errors ---


def test_an_unknown_name_is_refused_and_the_closest_match_is_suggested() -> None:
    with pytest.raises(ConfigError, match=r"gaussian_nose.*did you mean gaussian_noise"):
        corrupt(smooth(1), "gaussian_nose", 1, 0)


@pytest.mark.parametrize("severity", [0, 6, -1])
def test_an_unknown_severity_is_refused(severity: int) -> None:
    with pytest.raises(ConfigError, match=rf"severity: .*{severity}"):
        corrupt(smooth(1), "contrast", severity, 0)


def test_all_errors_are_reported_together() -> None:
    with pytest.raises(ConfigError) as caught:
        corrupt(smooth(1), "fog", 9, 0)
    assert len(caught.value.issues) == 2
