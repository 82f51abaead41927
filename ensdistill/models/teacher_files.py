"""Pretrained teachers: checkpoints of networks whose architectures can be described by settings."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import field_validator

from ensdistill.data import DataSplits
from ensdistill.errors import ConfigError, ConfigIssue, DataError, SettingError
from ensdistill.models import Convnet, Model, NetworkPiece, build, code_identity
from ensdistill.models.image_statistics import Deviations, Means, statistics
from ensdistill.models.weight_files import Weights, find_weights, read_checkpoint_file, unclear
from ensdistill.runtime.files import user_path
from ensdistill.runtime.lazy import nn, torch
from ensdistill.runtime.weights import fill, fingerprint
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
        [], "Mean of each channel that was used to train the network; empty for the mean of the given training images."
    )
    std: Deviations = setting([], "Standard deviation of each channel; see mean.")
    # Excluded if empty, so that these settings do not affect content hashes by default.
    key: str = setting(
        "",
        "Dotted key of the weights in a file with several networks; by default, found by parameter names.",
        exclude_if=operator.not_,
    )
    prefix: str = setting(
        "", "Prefix of the parameter names in the file; by default, found automatically.", exclude_if=operator.not_
    )

    @field_validator("model")
    @classmethod
    def _is_complete(cls, model: NetworkPiece) -> NetworkPiece:
        for name in ("weights", "pretrained", "freeze", "mean", "std"):
            if value := getattr(model, name, None):
                rule = "applies only to networks that are trained here"
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
        target: nn.Module = network  # files of this project include the normalization
        found, why = find_weights(content, target, self.key, self.prefix)
        if found and (self.mean or self.std):
            raise ConfigError(
                f"teachers.checkpoints: {path} already contains mean and std; remove them from the settings"
            )
        if not found:
            network[0] = self._normalize(data)
            target = network[1]
            found, why = find_weights(content, target, self.key, self.prefix)
        if not found:
            hint = "; a published first layer requires model.stem: original" if self.model.kind == "torchvision" else ""
            raise DataError(f"{path}: these weights do not fit teachers.checkpoints.model ({why}){hint}")
        _fill(target, found[0], path)
        identity = {
            "weights": fingerprint(path),
            "code": code_identity(self.model),
            **self.model_dump(exclude={"path"}),
        }
        return LoadedTeacher(network, identity, self._warnings(found))

    def _warnings(self, found: list[Weights]) -> tuple[ConfigIssue, ...]:
        """Returns a warning if other weights in the file also fit; raises DataError if several are equally likely."""
        others = [other for other in found[1:] if not _equal(other.state, found[0].state)]
        if not others:
            return ()
        also = ", ".join(map(str, others[:3])) + (", ..." if len(others) > 3 else "")
        rule = f"{self.path} contains the weights of {len(others) + 1} networks that fit"
        if unclear([found[0], *others]):
            raise DataError(f"{rule}; set teachers.checkpoints.key or prefix to one of {found[0]}, {also}")
        hint = f"to use others, set key or prefix of this file: {also}"
        return (ConfigIssue(("teachers", "checkpoints"), f"{rule}; using those at {found[0]}", hint=hint),)

    def _normalize(self, data: DataSplits) -> nn.Module:
        """Returns a normalization with mean and std from the settings or the training images; checks the settings."""
        from ensdistill.models.normalization import Normalize  # imported here, because it imports torch

        name = f"teachers.checkpoints: mean and std of {self.path}"
        return Normalize(*statistics(self.mean, self.std, data.train.channel_statistics(), name))


def _fill(target: nn.Module, weights: Weights, path: Path) -> None:
    """Copies the weights into the network; raises DataError if they are not finite or do not match."""
    if bad := [name for name, tensor in weights.state.items() if not tensor.isfinite().all()]:
        raise DataError(f"{path}: {bad[0]} contains numbers that are not finite; train this teacher again")
    try:
        fill(target, dict(weights.state))
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise DataError(f"{path}: these weights do not fit teachers.checkpoints.model ({reason})") from error


def _equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Returns whether two sets of weights are identical."""
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())
