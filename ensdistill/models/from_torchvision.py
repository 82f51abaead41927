"""Classification networks from torchvision, adapted to small images."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, cast

from pydantic import model_validator

from ensdistill.errors import ConfigError, ConfigIssue, SettingError
from ensdistill.models.network import NetworkPiece
from ensdistill.models.probe import one_line_error, tried
from ensdistill.models.published_weights import options, published_weights
from ensdistill.runtime.lazy import nn, torch
from ensdistill.settings.base import setting
from ensdistill.settings.validation import closest_match

if TYPE_CHECKING:
    from torch import Tensor


class Torchvision(NetworkPiece):
    """A torchvision network, selected by name.

    The small stem replaces a strided first convolution with a 3x3 convolution of stride 1, and removes max pooling
    before the second convolution. In a vision transformer, the small stem reduces the patch size, so that an image has
    at least eight patches along each side. Published weights are copied into all layers whose shape is unchanged. A
    changed stem keeps its random weights, as does a classifier with a different number of classes.
    """

    kind: Literal["torchvision"] = "torchvision"
    name: str = setting("resnet18", "Name of the network, such as mobilenet_v3_small or vit_b_16.", min_length=1)
    stem: Literal["small", "original"] = setting(
        "small", "First layers: `original`, or `small`, which preserves the resolution of small images."
    )
    pretrained: str = setting(
        "",
        "Published weights from which training starts, such as IMAGENET1K_V1 or DEFAULT; empty for random weights. "
        "They are read from a file in the torch hub cache; nothing is downloaded.",
    )

    @model_validator(mode="after")
    def _one_start(self) -> Torchvision:
        if self.weights and self.pretrained:
            rule = "training cannot start from both published weights and a weights file"
            raise SettingError(ConfigIssue(("pretrained",), rule, hint="remove one of them"))
        return self

    def __call__(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """Returns a network: images (B,*shape) -> logits (B,classes).

        Args:
            shape: Channels, height and width of an image.
            classes: Number of classes.

        Raises:
            ConfigError: The network does not exist or does not accept such images.
        """
        models = _torchvision_models()
        known = models.list_models(module=models)
        if self.name not in known:
            close = (
                f"did you mean {near}?"
                if (near := closest_match(self.name, known))
                else f"available: {', '.join(known)}"
            )
            raise ConfigError(f"model.name: torchvision has no classification network {self.name!r} ({close})")
        sizes = "larger images" if self.stem == "small" else "model.stem=small, larger images"
        return tried(
            lambda: self._network(models, shape, classes),
            shape,
            classes,
            f"model.name: {self.name}",
            f"use {sizes} or another network",
        )

    def published(self) -> Mapping[str, Tensor]:
        """Returns the published weights.

        Raises:
            ConfigError: The network has no published weights with this name.
            DataError: The file of published weights is missing or damaged.
        """
        return published_weights(_torchvision_models(), self.name, self.pretrained) if self.pretrained else {}

    def _network(self, models: ModuleType, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """Returns the network with random weights."""
        channels, *sides = shape
        small = self.stem == "small"
        network: nn.Module
        if self.name.startswith("vit_"):
            network = _vision_transformer(models, self.name, sides, classes, small)
            small = False  # the patches are already small
        else:
            factor = 2 if small else 1  # constructors that take the image size assume the stride of the original stem
            arguments = options(self.name, [factor * side for side in sides])
            if "aux_logits" in arguments and self.pretrained and channels == 3:
                arguments["transform_input"] = True  # the published weights require this normalization
            network = models.get_model(self.name, weights=None, num_classes=classes, **arguments)
        _fit_stem(network, channels, small)
        return network


def _torchvision_models() -> ModuleType:
    """Imports torchvision lazily: the import takes a second and fails with some versions of torch."""
    try:
        return import_module("torchvision.models")
    except (ImportError, RuntimeError, OSError) as error:
        raise ConfigError(
            f"model.kind: torchvision cannot be imported ({one_line_error(error)}); install the torchvision release "
            f"for torch {torch.__version__}, or use another kind"
        ) from error


def _vision_transformer(models: ModuleType, name: str, sides: list[int], classes: int, small: bool) -> nn.Module:
    """Returns a transformer for this image size, with the published depth and width; `small` shrinks the patches."""
    side = sides[0]
    if side != sides[1]:
        raise ConfigError(f"model.name: {name} requires square images, not {side}x{sides[1]}; use another network")
    with torch.device("meta"):
        published = models.get_model(name, weights=None)
    widest = min(published.patch_size, max(1, side // 8))
    patch = next(width for width in range(widest, 0, -1) if side % width == 0) if small else published.patch_size
    network: nn.Module = models.VisionTransformer(
        image_size=side,
        patch_size=patch,
        num_layers=len(published.encoder.layers),
        num_heads=published.encoder.layers[0].num_heads,
        hidden_dim=published.hidden_dim,
        mlp_dim=published.mlp_dim,
        num_classes=classes,
    )
    return network


def _fit_stem(network: nn.Module, channels: int, small: bool) -> None:
    """Adapts the first layers in place to the number of channels and, if `small`, to small images."""
    from ensdistill.models.layers import Conv2d  # imported here, because it imports torch

    layers = [(name, m) for name, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.MaxPool2d)]
    name, first = layers[0][0], cast(nn.Conv2d, layers[0][1])  # all these networks start with a convolution
    small = small and first.stride != (1, 1)
    shape: dict[str, Any] = {key: getattr(first, key) for key in ("kernel_size", "stride", "padding")}
    if small:
        shape = {"kernel_size": 3, "stride": 1, "padding": 1}
    if small or first.in_channels != channels:
        network.set_submodule(name, Conv2d(channels, first.out_channels, bias=first.bias is not None, **shape))
    for pool, following in layers[1:2]:
        if small and isinstance(following, nn.MaxPool2d):
            network.set_submodule(pool, nn.Identity())
