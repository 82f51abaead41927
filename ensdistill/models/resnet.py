"""The residual networks for small images of He et al. 2016."""

from typing import Literal

import torch.nn.functional as F
from pydantic import field_validator
from torch import Tensor, nn

from ensdistill.models.layers import Conv2d, chain, ending, refuse_depth_unless_6n_plus, stages
from ensdistill.settings.base import Settings, setting


class ResNet(Settings):
    """A 3x3 convolution, three stages of residual blocks (each twice as wide as the one before, on images half as
    large), global average pooling and a linear classifier.

    Convolutions without bias, each followed by BatchNorm. He et al. 2016 (Deep residual learning), section 4.2.
    """

    kind: Literal["resnet"] = "resnet"
    depth: int = setting(20, "Layers with weights: 6n+2 for n blocks a stage.", ge=8, le=1202)
    width: int = setting(16, "Channels of the first stage.", ge=1, le=4096)
    shortcut: Literal["identity", "projection"] = setting(
        "identity", "Where a block changes the shape: missing channels are zero (published), or a 1x1 convolution."
    )

    @field_validator("depth")
    @classmethod
    def _fills_three_stages(cls, depth: int) -> int:
        return refuse_depth_unless_6n_plus(2, depth)

    def __call__(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """A network with random weights for images (B,*shape) -> logits (B,classes)."""
        widths = [self.width, 2 * self.width, 4 * self.width]
        return chain(
            conv=Conv2d(shape[0], self.width, 3, padding=1, bias=False),
            norm=nn.BatchNorm2d(self.width),
            relu=nn.ReLU(inplace=True),
            **stages(self._block, self.width, widths, (self.depth - 2) // 6),
            **ending(widths[-1], classes),
        )

    def _block(self, channels: int, width: int, stride: int) -> nn.Module:
        return BasicBlock(channels, width, stride, self.shortcut)


class BasicBlock(nn.Module):
    """relu(shortcut(x) + residual(x)): (B,channels,H,W) -> (B,width,H/stride,W/stride), sides rounded up."""

    def __init__(self, channels: int, width: int, stride: int, shortcut: str) -> None:
        super().__init__()
        self.residual = chain(
            conv1=Conv2d(channels, width, 3, stride, padding=1, bias=False),
            norm1=nn.BatchNorm2d(width),
            relu=nn.ReLU(inplace=True),
            conv2=Conv2d(width, width, 3, padding=1, bias=False),
            norm2=nn.BatchNorm2d(width),
        )
        self.shortcut = _shortcut(channels, width, stride, shortcut)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.relu(self.residual(x).add_(self.shortcut(x)))
        return y


class ZeroPadded(nn.Module):
    """Every stride-th pixel, and zeros for the new channels: a shortcut without weights (option A of the paper)."""

    def __init__(self, new_channels: int, stride: int) -> None:
        super().__init__()
        self.new_channels, self.stride = new_channels, stride

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_channels))


def _shortcut(channels: int, width: int, stride: int, shortcut: str) -> nn.Module:
    if stride == 1 and channels == width:
        return nn.Identity()
    if shortcut == "identity":
        return ZeroPadded(width - channels, stride)
    return chain(conv=Conv2d(channels, width, 1, stride, bias=False), norm=nn.BatchNorm2d(width))
