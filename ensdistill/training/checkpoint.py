"""Checkpoints of a run: files with only plain values and tensors, so that reading a file executes no code."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from ensdistill.errors import ConfigError, DataError
from ensdistill.runtime.files import atomic_write


@dataclass(frozen=True)
class Checkpoint:
    """Complete state of a run between two epochs; random streams are not stored, but derived from seed and epoch.

    Attributes:
        identity: Hashes of the settings, the ensemble and the data that determined the completed epochs.
        epoch: Number of completed epochs.
        student: State of the network being trained, which is the merged network after merging.
        optimizer: Optimizer state.
        average: State of the weight average.
        merged: Whether the subnetworks have been merged.
        scaler: State of the gradient scaler; empty unless gradients are scaled (float16).
        selection: State of the epoch selection.
    """

    identity: Mapping[str, str]
    epoch: int
    student: dict[str, Any]
    optimizer: dict[str, Any]
    average: dict[str, Any]
    merged: bool
    scaler: dict[str, Any]
    selection: dict[str, Any]


def write_checkpoint(path: str | Path, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint atomically.

    Raises:
        DataError: The file cannot be written.
    """
    state = {field.name: getattr(checkpoint, field.name) for field in fields(checkpoint)}
    atomic_write(path, lambda temporary: _save(state, temporary))


def _save(state: dict[str, Any], path: Path) -> None:
    """Writes a state; raises the original OSError instead of the unrelated RuntimeError that torch raises."""
    try:
        with path.open("wb") as file:
            torch.save(state, file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def read_checkpoint(path: Path, device: torch.device | str = "cpu") -> Checkpoint:
    """Returns the content of a checkpoint, with all tensors on the given device.

    Raises:
        DataError: The file is missing or damaged.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such checkpoint; correct the path, or start again without a checkpoint")
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        return Checkpoint(**{field.name: state[field.name] for field in fields(Checkpoint)})
    except Exception as error:  # torch raises a dozen different errors for a damaged file
        raise DataError(f"{path}: damaged, or not an ensdistill checkpoint; start again without it") from error


def check_identity(path: Path, checkpoint: Checkpoint, mine: Mapping[str, str]) -> None:
    """Checks that a checkpoint was written with the settings, teachers and data of a given run.

    Args:
        path: Path of the checkpoint, for the error message.
        checkpoint: Content of the checkpoint.
        mine: Hashes of the run's settings, ensemble and data.

    Raises:
        ConfigError: The checkpoint was written with different settings, teachers or data.
    """
    for what, own in mine.items():
        if (theirs := checkpoint.identity.get(what)) != own:
            name = "teachers" if what == "ensemble" else what
            raise ConfigError(
                f"{path}: this checkpoint was made with different {name} ({theirs}, now {own}); "
                f"resume with the original {name}, or start again without the checkpoint"
            )
