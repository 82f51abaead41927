"""Networks that this project did not write are tried on two images before anything is trained."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ensdistill.errors import ConfigError, EnsdistillError
from ensdistill.runtime.lazy import nn, torch

if TYPE_CHECKING:
    from torch import Tensor


def tried(
    construct: Callable[[], Any], shape: tuple[int, int, int], classes: int, name: str, way_out: str
) -> nn.Module:
    """The constructed network, in training mode, if it maps images (2,*shape) to logits (2,classes).

    Logits are not probabilities: a network that ends in a softmax is refused, because every loss applies one.

    Raises ConfigError that begins with `name`, the setting and its value, and ends with the way out.
    """
    on_images = f"{name} on images of {'x'.join(map(str, shape))}"
    try:
        network = construct()
        if not isinstance(network, nn.Module):
            raise ConfigError(f"{name} makes a {type(network).__name__}, not a torch.nn.Module; {way_out}")
        logits = _logits(network, shape)
    except EnsdistillError:
        raise
    except Exception as error:
        raise ConfigError(f"{on_images} fails ({one_line_error(error)}); {way_out}") from error
    if not isinstance(logits, torch.Tensor) or logits.shape != (2, classes):
        found = tuple(logits.shape) if isinstance(logits, torch.Tensor) else f"a {type(logits).__name__}"
        raise ConfigError(f"{on_images} gives {found} for two images, not logits {(2, classes)}; {way_out}")
    if not logits.is_meta and are_probabilities(logits):  # of meta tensors nothing but the shape is known
        raise ConfigError(
            f"{on_images} gives probabilities (from 0 to 1, with the sum 1), not logits; leave out its last softmax, "
            "every loss applies one"
        )
    return network


def are_probabilities(outputs: Tensor) -> bool:
    """Returns whether outputs (B,classes) of several classes are from 0 to 1 and have the sum 1 for each image.

    Log-probabilities are logits, too: their softmax is what they are the logarithm of.
    """
    outputs = outputs.double()
    inside = ((outputs >= 0) & (outputs <= 1)).all()
    return outputs.shape[-1] > 1 and bool(inside and ((outputs.sum(-1) - 1).abs() < 1e-3).all())


def one_line_error(error: Exception) -> str:
    """The kind of an error and its message, without line breaks."""
    return " ".join([f"{type(error).__name__}:", *str(error).split()])


def _logits(network: nn.Module, shape: tuple[int, int, int]) -> Any:
    """Of a black image and one of all shades; in evaluation mode, so that BatchNorm statistics stay as they are."""
    black, shades = torch.zeros(shape), torch.linspace(0, 1, math.prod(shape)).view(shape)
    network.eval()
    with torch.no_grad():
        logits = network(torch.stack([black, shades]))
    network.train()
    return logits
