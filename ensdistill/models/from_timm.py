"""Classification networks from timm (PyTorch Image Models), an optional package."""

from __future__ import annotations

from types import ModuleType
from typing import Any, Literal

from pydantic import JsonValue

from ensdistill.errors import ConfigError, ConfigIssue
from ensdistill.models.network import NetworkPiece
from ensdistill.models.probe import tried
from ensdistill.runtime.lazy import nn
from ensdistill.runtime.optional import need
from ensdistill.settings.base import setting
from ensdistill.settings.validation import closest_match, did_you_mean


class Timm(NetworkPiece):
    """A timm network, selected by name; its initial weights are random or read from the file given by `weights`.

    Nothing is downloaded. Networks with a fixed input size are built for the size of the given images.
    """

    kind: Literal["timm"] = "timm"
    name: str = setting("resnet18", "Name of the network, such as convnext_atto or vit_tiny_patch16_224.", min_length=1)
    arguments: dict[str, JsonValue] = setting({}, "Further keyword arguments of timm.create_model.")

    def __call__(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """Returns a network with random weights: images (B,*shape) -> logits (B,classes).

        Args:
            shape: Channels, height and width of an image.
            classes: Number of classes.

        Raises:
            ConfigError: timm is not installed, or the network does not exist or does not accept such images.
        """
        timm = need("timm", "timm", ", or use another kind")
        if not timm.is_model(self.name):
            near = closest_match(self.name, timm.list_models())
            raise ConfigError(
                ConfigIssue(("model", "name"), "timm has no network {value}", self.name, did_you_mean(near))
            )
        arguments = self._arguments(timm, shape)
        return tried(
            lambda: timm.create_model(self.name, num_classes=classes, in_chans=shape[0], **arguments),
            shape,
            classes,
            f"model.name: {self.name}",
            "change model.arguments, or use larger images or another network",
        )

    def _arguments(self, timm: ModuleType, shape: tuple[int, int, int]) -> dict[str, Any]:
        """Returns the arguments from the settings; adds the image size if the network has a fixed input size."""
        published = timm.get_pretrained_cfg(self.name, allow_unregistered=True)
        fixed = {"img_size": shape[1:]} if published is not None and published.fixed_input_size else {}
        return {**fixed, **self.arguments}
