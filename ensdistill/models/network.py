"""Base class of all network settings."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ensdistill.models.image_statistics import Deviations, Means
from ensdistill.runtime.files import user_path
from ensdistill.runtime.lazy import nn
from ensdistill.runtime.weights import cached_fingerprint
from ensdistill.settings.base import setting
from ensdistill.settings.pieces import Piece

if TYPE_CHECKING:
    from torch import Tensor


class NetworkPiece(Piece):
    """Base class of all network settings; each subclass defines one architecture."""

    # Default values are excluded from dumps, so content hashes of settings without these fields stay valid.
    weights: str = setting(
        "",
        "Weights file from which training starts (.safetensors, or a torch file, read weights-only); empty for "
        "random weights. If the file has a different number of classes, the classifier starts from random weights.",
        file=True,
        exclude_if=operator.not_,
    )
    mean: Means = setting(
        [],
        "Channel means with which images in [0,1] were normalized when the initial weights were trained; if empty, the "
        "means of the current training images are used.",
        exclude_if=operator.not_,
    )
    std: Deviations = setting(
        [], "Standard deviations of the channels, used in the same way as `mean`.", exclude_if=operator.not_
    )
    freeze: list[str] = setting(
        [],
        "Parts of the network that are not trained: names of modules or parameters, or patterns with *. The BatchNorm "
        "statistics of frozen layers do not change.",
        exclude_if=operator.not_,
    )
    body_lr: float = setting(
        1.0,
        "Learning rate of all layers except the classifier, relative to the optimizer's learning rate; 0 freezes "
        "these layers.",
        ge=0,
        le=100,
        exclude_if=lambda scale: scale == 1,
    )

    def __call__(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """Returns a network with random weights, drawn from torch's global generator.

        Args:
            shape: Channels, height and width of an image.
            classes: Number of classes.

        Returns:
            A network: normalized images (B,*shape) -> logits (B,classes).
        """
        raise NotImplementedError

    def published(self) -> Mapping[str, Tensor]:
        """Returns published weights, keyed by name, to copy into tensors of equal shape; empty by default."""
        return {}

    @property
    def weights_hash(self) -> str:
        """Content hash of the weights file; empty if no file is set, `missing` if the file does not exist."""
        return cached_fingerprint(user_path(self.weights)) if self.weights else ""
