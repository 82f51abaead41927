"""Pretrained teachers: weights from a file, for a network whose architecture is given by settings."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import field_validator

from ensdistill.data import DataSplits
from ensdistill.errors import ConfigError, ConfigIssue, DataError, SettingError
from ensdistill.models import Convnet, Model, NetworkPiece, build, code_identity
from ensdistill.models.image_statistics import Deviations, Means, statistics
from ensdistill.models.weight_files import Weights, copy_weights, first_fit, read_checkpoint_file, unclear
from ensdistill.runtime.files import user_path
from ensdistill.runtime.lazy import nn, torch
from ensdistill.runtime.weights import fingerprint
from ensdistill.settings.base import Settings, setting

if TYPE_CHECKING:
    from torch import Tensor


class LoadedTeacher(NamedTuple):
    """A loaded teacher.

    Attributes:
        network: Network on the device of the data: images (B,C,H,W) in [0,1] -> logits (B,classes).
        origin: Values that identify the network; they are part of the content hash.
        warnings: Issues found in the file.
    """

    network: nn.Module
    origin: dict[str, Any]
    warnings: tuple[ConfigIssue, ...] = ()


class TeacherFile(Settings):
    """A pretrained network: a state dict in a torch or safetensors file; code in the file is never executed."""

    path: str = setting(
        ..., "Weights file (.safetensors, or a torch file, read weights-only).", file=True, min_length=1
    )
    model: Model = setting(Convnet(), "Architecture of the network.")
    mean: Means = setting(
        [],
        "Channel means with which images in [0,1] were normalized when the network was trained; if empty, the means of "
        "the current training images are used.",
    )
    std: Deviations = setting([], "Standard deviations of the channels, used in the same way as `mean`.")
    # Excluded if empty, so that these settings do not affect content hashes by default.
    key: str = setting(
        "",
        "Dotted key of the weights in a file with several networks; by default, derived from the parameter names.",
        exclude_if=operator.not_,
    )
    prefix: str = setting(
        "",
        "Prefix of the parameter names in the file; by default, the prefix is found automatically.",
        exclude_if=operator.not_,
    )

    @field_validator("model")
    @classmethod
    def _is_complete(cls, model: NetworkPiece) -> NetworkPiece:
        given = {name: getattr(model, name, None) for name in ("weights", "pretrained", "freeze", "mean", "std")}
        given |= {"body_lr": None if model.body_lr == 1 else model.body_lr}
        for name, value in given.items():
            if value or value == 0:
                rule = "applies only to networks that ensdistill trains"
                raise SettingError(ConfigIssue((name,), rule, value, "remove it"))
        return model

    def __call__(self, data: DataSplits) -> LoadedTeacher:
        """Returns the network in the file, on the device of the data.

        Raises:
            DataError: The file is missing or damaged, or contains the weights of another network.
            ConfigError: mean or std is invalid.
        """
        path = user_path(self.path)
        content = read_checkpoint_file(path)
        network = build(self.model, data, seed=0)
        # weights from this project include the normalization network[0]; other weights fit network[1] alone
        fit = first_fit(content, ((network, ()), (network[1], ())), self.key, self.prefix)
        if not fit.weights:
            hint = "; a published first layer requires model.stem: original" if self.model.kind == "torchvision" else ""
            raise DataError(f"{path}: these weights do not fit teachers.checkpoints.model ({fit.reason}){hint}")
        if fit.network is not network:
            network[0] = self._normalize(data)
        elif self.mean or self.std:
            raise ConfigError(
                f"teachers.checkpoints: {path} already contains mean and std; remove them from the settings"
            )
        copy_weights(fit, str(path), "train this teacher again")
        identity = {
            "weights": fingerprint(path),
            "code": code_identity(self.model),
            **self.model_dump(exclude={"path"}),
        }
        return LoadedTeacher(network, identity, self._warnings(fit.weights))

    def _warnings(self, found: list[Weights]) -> tuple[ConfigIssue, ...]:
        """Returns a warning if other weights in the file also fit; raises DataError if several are equally likely."""
        others = [other for other in found[1:] if not _equal(other.state, found[0].state)]
        if not others:
            return ()
        also = ", ".join(map(str, others[:3])) + (", ..." if len(others) > 3 else "")
        rule = f"{self.path} contains the weights of {len(others) + 1} networks that fit"
        if unclear([found[0], *others]):
            raise DataError(f"{rule}; set teachers.checkpoints.key or prefix to one of {found[0]}, {also}")
        hint = f"to use other weights, set key or prefix of this file: {also}"
        return (ConfigIssue(("teachers", "checkpoints"), f"{rule}; using the weights at {found[0]}", hint=hint),)

    def _normalize(self, data: DataSplits) -> nn.Module:
        """Returns a normalization layer with mean and std from the (checked) settings or from the training images."""
        from ensdistill.models.normalization import Normalize  # imported here, because it imports torch

        name = f"teachers.checkpoints: mean and std of {self.path}"
        return Normalize(*statistics(self.mean, self.std, data.train.channel_statistics(), name))


def _equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Returns whether two sets of weights are identical."""
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())
