"""Checks user-supplied networks by calling them on two images before any training."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ensdistill.errors import ConfigError, EnsdistillError
from ensdistill.runtime.lazy import nn, torch

if TYPE_CHECKING:
    from torch import Tensor


def tried(construct: Callable[[], Any], shape: tuple[int, int, int], classes: int, name: str, fix: str) -> nn.Module:
    """Constructs a network, checks that it maps images to logits, and returns it in training mode.

    A network that ends in a softmax is rejected, because every loss applies a softmax to the logits.

    Args:
        construct: Function that returns the network.
        shape: Channels, height and width of an image.
        classes: Number of classes.
        name: Setting and value; the beginning of the error message.
        fix: How to fix the error; the end of the error message.

    Raises:
        ConfigError: The constructor or the network fails, or the outputs are not logits (2,classes).
    """
    on_images = f"{name} on images of {'x'.join(map(str, shape))}"
    try:
        network = construct()
        if not isinstance(network, nn.Module):
            raise ConfigError(f"{name} returns a {type(network).__name__}, not a torch.nn.Module; {fix}")
        logits = _logits(network, shape)
    except EnsdistillError:
        raise
    except Exception as error:
        raise ConfigError(f"{on_images} fails ({one_line_error(error)}); {fix}") from error
    if not isinstance(logits, torch.Tensor) or logits.shape != (2, classes):
        found = tuple(logits.shape) if isinstance(logits, torch.Tensor) else f"a {type(logits).__name__}"
        raise ConfigError(f"{on_images} returns {found} for two images, not logits {(2, classes)}; {fix}")
    if not logits.is_meta and are_probabilities(logits):  # meta tensors have no values
        raise ConfigError(
            f"{on_images} returns probabilities (from 0 to 1, with sum 1), not logits; remove its last softmax, "
            "because every loss applies a softmax"
        )
    return network


def are_probabilities(outputs: Tensor) -> bool:
    """Returns whether outputs for several classes are in [0, 1] and sum to 1 for each image.

    Log-probabilities are accepted as logits, because their softmax equals the probabilities.

    Args:
        outputs: Outputs (B,classes) of a network.
    """
    outputs = outputs.double()
    inside = ((outputs >= 0) & (outputs <= 1)).all()
    return outputs.shape[-1] > 1 and bool(inside and ((outputs.sum(-1) - 1).abs() < 1e-3).all())


def one_line_error(error: Exception) -> str:
    """Returns the type and message of an error on one line."""
    return " ".join([f"{type(error).__name__}:", *str(error).split()])


def _logits(network: nn.Module, shape: tuple[int, int, int]) -> Any:
    """Returns the outputs for a black image and a brightness ramp; evaluation mode preserves BatchNorm statistics."""
    black, shades = torch.zeros(shape), torch.linspace(0, 1, math.prod(shape)).view(shape)
    network.eval()
    with torch.no_grad():
        logits = network(torch.stack([black, shades]))
    network.train()
    return logits
