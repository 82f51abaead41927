"""Any classification network of torchvision, made to fit small images."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any, Literal, cast

from ensdistill.errors import ConfigError
from ensdistill.models.network import NetworkPiece
from ensdistill.models.probe import one_line_error, tried
from ensdistill.models.published_weights import fill, options, published_weights
from ensdistill.runtime.lazy import nn, torch
from ensdistill.settings.base import setting
from ensdistill.settings.validation import closest_match


class Torchvision(NetworkPiece):
    """A network of torchvision by its name.

    The small stem: a first convolution with a stride becomes 3x3 without one, and max pooling that comes before the
    second convolution goes; a vision transformer gets patches so small that there are eight a side or more.
    Published weights fill what has kept its shape; a classifier of other classes and a changed stem start at random.
    """

    kind: Literal["torchvision"] = "torchvision"
    name: str = setting("resnet18", "Name of the network, such as mobilenet_v3_small or vit_b_16.", min_length=1)
    stem: Literal["small", "original"] = setting(
        "small", "First layers: for small images, whose resolution they keep, or as published."
    )
    weights: str = setting(
        "", "Published weights whose file is on disk, such as IMAGENET1K_V1 or DEFAULT; empty: random weights."
    )

    def __call__(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """A network for images (B,*shape) -> logits (B,classes).

        Raises ConfigError if there is no such network or it does not work on such images, DataError if the file of
        published weights is missing or damaged.
        """
        models = _torchvision_models()
        known = models.list_models(module=models)
        if self.name not in known:
            close = (
                f"did you mean {near}?"
                if (near := closest_match(self.name, known))
                else f"there are {', '.join(known)}"
            )
            raise ConfigError(f"model.name: torchvision has no classification network {self.name!r} ({close})")
        published = published_weights(models, self.name, self.weights) if self.weights else {}
        sizes = "larger images" if self.stem == "small" else "model.stem=small, larger images"
        network = tried(
            lambda: self._network(models, shape, classes),
            shape,
            classes,
            f"model.name: {self.name}",
            f"take {sizes} or another network",
        )
        fill(network, published)
        return network

    def _network(self, models: ModuleType, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """With random weights."""
        channels, *sides = shape
        small = self.stem == "small"
        network: nn.Module
        if self.name.startswith("vit_"):
            network = _vision_transformer(models, self.name, sides, classes, small)
            small = False  # done by its patches
        else:
            missing = 2 if small else 1  # a network that must know its images counts on the stride of its stem
            told = options(self.name, [missing * side for side in sides])
            if "aux_logits" in told and self.weights and channels == 3:
                told["transform_input"] = True  # to the statistics that these published weights were trained with
            network = models.get_model(self.name, weights=None, num_classes=classes, **told)
        _fit_stem(network, channels, small)
        return network


def _torchvision_models() -> ModuleType:
    """Imported here, because it takes a second and does not fit every torch."""
    try:
        return import_module("torchvision.models")
    except (ImportError, RuntimeError, OSError) as error:
        raise ConfigError(
            f"model.kind: torchvision cannot be imported ({one_line_error(error)}); install the torchvision "
            f"that belongs "
            f"to torch {torch.__version__}, or take another kind"
        ) from error


def _vision_transformer(models: ModuleType, name: str, sides: list[int], classes: int, small: bool) -> nn.Module:
    """The published transformer for other images and, with the small stem, with smaller patches."""
    side = sides[0]
    if side != sides[1]:
        raise ConfigError(f"model.name: {name} takes square images, not {side}x{sides[1]}; take another network")
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
    """Makes the first layers fit the images, in place: their channels and, where they are small, their size."""
    from ensdistill.models.layers import Conv2d  # here: imports torch

    layers = [(name, m) for name, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.MaxPool2d)]
    name, first = layers[0][0], cast(nn.Conv2d, layers[0][1])  # every one of these networks begins with one
    small = small and first.stride != (1, 1)
    shape: dict[str, Any] = {key: getattr(first, key) for key in ("kernel_size", "stride", "padding")}
    if small:
        shape = {"kernel_size": 3, "stride": 1, "padding": 1}
    if small or first.in_channels != channels:
        network.set_submodule(name, Conv2d(channels, first.out_channels, bias=first.bias is not None, **shape))
    for pool, following in layers[1:2]:
        if small and isinstance(following, nn.MaxPool2d):
            network.set_submodule(pool, nn.Identity())
