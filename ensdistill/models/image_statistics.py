"""Mean and standard deviation of images, as settings for networks that were trained on other images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator

from ensdistill.errors import ConfigError, ConfigIssue, SettingError
from ensdistill.runtime.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

_SCALE = "divide mean and std by 255 if they are on a scale from 0 to 255"


def _means_of_images(mean: list[float]) -> list[float]:
    if any(not 0 <= value <= 1 for value in mean):
        raise SettingError(ConfigIssue((), "must be from 0 to 1, the range of pixel values", mean, _SCALE))
    return mean


def _deviations_of_images(std: list[float]) -> list[float]:
    if any(not 0 < value <= 1 for value in std):
        raise SettingError(ConfigIssue((), "must be above 0 and at most 1, for pixel values from 0 to 1", std, _SCALE))
    return std


Means = Annotated[list[float], AfterValidator(_means_of_images)]
Deviations = Annotated[list[float], AfterValidator(_deviations_of_images)]


def statistics(
    mean: Sequence[float], std: Sequence[float], like: tuple[Tensor, Tensor], name: str
) -> tuple[Tensor, ...]:
    """Returns the mean and standard deviation of each channel: given values, or statistics of the training images.

    Args:
        mean: Mean of each channel; if empty, the means of the training images are used.
        std: Standard deviation of each channel; if empty, the standard deviations of the training images are used.
        like: Mean and standard deviation of the training images, (C,) each.
        name: Setting and file, for the error message.

    Raises:
        ConfigError: Only one of mean and std is given, or their length is not the number of channels.
    """
    own = tuple(torch.tensor(values, device=like[0].device) for values in (mean, std) if values)
    if len(own) == 1 or any(values.shape != like[0].shape for values in own):
        channels = len(like[0])
        raise ConfigError(
            f"{name} require one number for each of {channels} channels, with std above 0; correct or remove both"
        )
    return own or like
