"""What the networks of this project are put together from: layers with their initialization, stages and the end."""

from collections import OrderedDict
from collections.abc import Callable

from torch import nn

Block = Callable[[int, int, int], nn.Module]  # (channels in, channels out, stride) -> block


class Conv2d(nn.Conv2d):
    """A convolution whose weights start Kaiming normal, fan-in, for ReLU; its bias, if it has one, at zero.

    The initialization lives in `reset_parameters`, so that a layer made anew later is drawn like the first one.
    He et al. 2015 (Delving deep into rectifiers), section 2.2.
    """

    def reset_parameters(self) -> None:
        _kaiming_normal(self)


class Linear(nn.Linear):
    """A linear layer whose weights start Kaiming normal, fan-in, for ReLU, and its bias at zero."""

    def reset_parameters(self) -> None:
        _kaiming_normal(self)


def _kaiming_normal(layer: nn.Conv2d | nn.Linear) -> None:
    nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def chain(**parts: nn.Module) -> nn.Sequential:
    """The parts one after another, under their names."""
    return nn.Sequential(OrderedDict(parts))


def stages(block: Block, channels: int, widths: list[int], blocks: int) -> dict[str, nn.Module]:
    """stage1, stage2, ...: so many blocks of each width; every stage but the first halves the image."""
    found: dict[str, nn.Module] = {}
    for n, width in enumerate(widths):
        first = block(channels, width, 1 if n == 0 else 2)
        found[f"stage{n + 1}"] = nn.Sequential(first, *[block(width, width, 1) for _ in range(blocks - 1)])
        channels = width
    return found


def ending(channels: int, classes: int) -> dict[str, nn.Module]:
    """Global average pooling and a linear classifier: (B,channels,H,W) -> (B,classes)."""
    return {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "classifier": Linear(channels, classes)}
