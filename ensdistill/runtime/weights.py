"""Weights as safetensors files: nothing in them is executed when they are read."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from ensdistill.errors import DataError
from ensdistill.runtime.files import atomic_write
from ensdistill.runtime.lazy import nn, torch

if TYPE_CHECKING:
    from torch import Tensor


STUDENT_FILE = "student.safetensors"  # the name of a student, wherever one lies


def save_weights(path: str | Path, network: nn.Module, metadata: dict[str, str] | None = None) -> None:
    """Writes all parameters and buffers under their names, whole or not at all."""
    from safetensors.torch import save  # here: imports torch

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    # not safetensors' save_file, whose files nobody but their owner may read
    atomic_write(path, lambda temporary: temporary.write_bytes(save(tensors, metadata)))


def load_weights(path: str | Path, network: nn.Module, device: torch.device | str = "cpu") -> dict[str, str]:
    """Fills the network in place and returns the file's metadata.

    Raises DataError if the file is missing, damaged, or made for another network.
    """
    from safetensors.torch import load_file

    if not Path(path).is_file():
        raise DataError(f"{path}: there is no such file of weights")
    metadata = read_metadata(path)
    try:
        fill(network, load_file(path, device=str(device)))
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path}: damaged or no safetensors file") from error
    except (RuntimeError, ValueError) as error:
        raise DataError(
            f"{path}: these weights belong to another network; check model and data of the settings"
        ) from error
    return metadata


def read_metadata(path: str | Path) -> dict[str, str]:
    """What was written beside the weights. Raises DataError if the file is damaged."""
    try:
        with safe_open(path, framework="pt") as opened:
            return opened.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path}: damaged or no safetensors file") from error


def fill(network: nn.Module, state: dict[str, Tensor]) -> None:
    """Fills the network with a state dict, taken to be in the present layout of each of its layers.

    Plain files carry no layout, and a network without it may take its own state for one of an old version.
    """
    versioned = OrderedDict(state)
    versioned._metadata = network.state_dict()._metadata  # type: ignore[attr-defined]
    network.load_state_dict(versioned)


def fingerprint(path: str | Path) -> str:
    """SHA-256 of a file's bytes."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
