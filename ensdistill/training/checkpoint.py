"""Checkpoints of a run: files of plain values and tensors. Nothing in them is executed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ensdistill.errors import ConfigError, DataError
from ensdistill.runtime.files import atomic_write

_STATE = ("identity", "epoch", "student", "optimizer", "average", "merged")


def write_checkpoint(path: str | Path, state: Mapping[str, Any]) -> None:
    """Writes the state of a run, whole or not at all."""
    atomic_write(path, lambda temporary: torch.save({name: state[name] for name in _STATE}, temporary))


def read_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """The plain values and tensors of a checkpoint; nothing in it is executed. Raises DataError if it is damaged."""
    if not path.is_file():
        raise DataError(f"{path}: there is no such checkpoint")
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        return {name: state[name] for name in _STATE}
    except Exception as error:  # torch names a dozen different errors for a damaged file
        raise DataError(f"{path}: damaged, or no checkpoint of ensdistill; start afresh without it") from error


def check_identity(path: Path, state: Mapping[str, Any], mine: Mapping[str, str]) -> None:
    """Raises ConfigError if a checkpoint was made with other settings, teachers or images than those of a run."""
    for what, own in mine.items():
        if (theirs := state["identity"].get(what)) != own:
            raise ConfigError(
                f"{path}: this checkpoint belongs to other {what} ({theirs}, now {own}); "
                "resume with the settings it was made with, or start afresh without it"
            )
