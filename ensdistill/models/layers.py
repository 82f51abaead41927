"""Building blocks of the built-in networks: initialized layers, stages and the classifier."""

from collections import OrderedDict
from collections.abc import Callable

from torch import nn

Block = Callable[[int, int, int], nn.Module]  # (channels in, channels out, stride) -> block


class Conv2d(nn.Conv2d):
    """A convolution with Kaiming normal initialization (fan-in, ReLU) and zero bias.

    The initialization is in `reset_parameters`, so that it is used again if the layer is reset later.

    References:
        He et al. 2015 (Delving deep into rectifiers), section 2.2.
    """

    def reset_parameters(self) -> None:
        _kaiming_normal(self)


class Linear(nn.Linear):
    """A linear layer with Kaiming normal initialization (fan-in, ReLU) and zero bias."""

    def reset_parameters(self) -> None:
        _kaiming_normal(self)


def _kaiming_normal(layer: nn.Conv2d | nn.Linear) -> None:
    """Initializes the weights and the bias of a layer, in place."""
    nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def chain(**parts: nn.Module) -> nn.Sequential:
    """Returns a sequence of named modules."""
    return nn.Sequential(OrderedDict(parts))


def stages(block: Block, channels: int, widths: list[int], blocks: int) -> dict[str, nn.Module]:
    """Returns the stages of a residual network; every stage except the first halves the resolution.

    Args:
        block: Constructor of a block.
        channels: Number of input channels.
        widths: Number of channels of each stage.
        blocks: Number of blocks per stage.

    Returns:
        Stages with the names stage1, stage2, ...
    """
    found: dict[str, nn.Module] = {}
    for n, width in enumerate(widths):
        first = block(channels, width, 1 if n == 0 else 2)
        found[f"stage{n + 1}"] = nn.Sequential(first, *[block(width, width, 1) for _ in range(blocks - 1)])
        channels = width
    return found


def ending(channels: int, classes: int) -> dict[str, nn.Module]:
    """Returns global average pooling and a linear classifier: (B,channels,H,W) -> (B,classes)."""
    return {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "classifier": Linear(channels, classes)}
