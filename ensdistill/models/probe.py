"""Networks that this project did not write are tried on two images before anything is trained."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ensdistill.errors import ConfigError, EnsdistillError


def tried(
    construct: Callable[[], Any], shape: tuple[int, int, int], classes: int, name: str, way_out: str
) -> nn.Module:
    """The constructed network, in training mode, if it maps images (2,*shape) to logits (2,classes).

    Raises ConfigError that begins with `name`, the setting and its value, and ends with the way out.
    """
    on_images = f"{name} on images of {'x'.join(map(str, shape))}"
    try:
        network = construct()
        if not isinstance(network, nn.Module):
            raise ConfigError(f"{name} makes a {type(network).__name__}, not a torch.nn.Module; {way_out}")
        logits = _logits_of_zeros(network, shape)
    except EnsdistillError:
        raise
    except Exception as error:
        raise ConfigError(f"{on_images} fails ({one_line(error)}); {way_out}") from error
    if not isinstance(logits, Tensor) or logits.shape != (2, classes):
        found = tuple(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        raise ConfigError(f"{on_images} gives {found} for two images, not logits {(2, classes)}; {way_out}")
    return network


def one_line(error: Exception) -> str:
    """The kind of an error and its message, without line breaks."""
    return " ".join([f"{type(error).__name__}:", *str(error).split()])


def _logits_of_zeros(network: nn.Module, shape: tuple[int, int, int]) -> Any:
    """In evaluation mode, so that BatchNorm statistics stay as they are."""
    network.eval()
    with torch.no_grad():
        logits = network(torch.zeros(2, *shape))
    network.train()
    return logits
