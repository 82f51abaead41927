"""Checkpoints of a run: files of plain values and tensors. Nothing in them is executed."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from ensdistill.errors import ConfigError, DataError
from ensdistill.runtime.files import atomic_write


@dataclass(frozen=True)
class Checkpoint:
    """All that the following epochs depend on; random streams are functions of seed and epoch."""

    identity: Mapping[str, str]  # hashes of what decided the epochs so far: settings, ensemble, data
    epoch: int  # number of epochs done
    student: dict[str, Any]  # state of the network that is trained; of one network once the subnetworks are merged
    optimizer: dict[str, Any]
    average: dict[str, Any]
    merged: bool  # whether the subnetworks have become one network


def write_checkpoint(path: str | Path, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint, whole or not at all."""
    state = {field.name: getattr(checkpoint, field.name) for field in fields(checkpoint)}
    atomic_write(path, lambda temporary: torch.save(state, temporary))


def read_checkpoint(path: Path, device: torch.device | str = "cpu") -> Checkpoint:
    """Returns the content of a checkpoint, its tensors on the device.

    Raises:
        DataError: The file is missing or damaged.
    """
    if not path.is_file():
        raise DataError(f"{path}: there is no such checkpoint")
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        return Checkpoint(**{field.name: state[field.name] for field in fields(Checkpoint)})
    except Exception as error:  # torch names a dozen different errors for a damaged file
        raise DataError(f"{path}: damaged, or no checkpoint of ensdistill; start afresh without it") from error


def check_identity(path: Path, checkpoint: Checkpoint, mine: Mapping[str, str]) -> None:
    """Raises ConfigError if a checkpoint was made with other settings, teachers or images than those of a run."""
    for what, own in mine.items():
        if (theirs := checkpoint.identity.get(what)) != own:
            raise ConfigError(
                f"{path}: this checkpoint belongs to other {what} ({theirs}, now {own}); "
                "resume with the settings it was made with, or start afresh without it"
            )
