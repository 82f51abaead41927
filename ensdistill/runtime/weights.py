"""Weights as safetensors files, which contain no executable code."""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from ensdistill.errors import DataError
from ensdistill.runtime.files import atomic_write
from ensdistill.runtime.lazy import nn, torch

if TYPE_CHECKING:
    from torch import Tensor


STUDENT_FILE = "student.safetensors"  # name of a student's weights file, the same in every folder


def save_weights(path: str | Path, network: nn.Module, metadata: dict[str, str] | None = None) -> None:
    """Writes all parameters and buffers of a network to a file, atomically.

    Args:
        path: The file.
        network: The network; its parameters and buffers are stored under their names.
        metadata: Strings to store in the file header.

    Raises:
        DataError: The file cannot be written.
    """
    from safetensors.torch import save  # imported here, because it imports torch

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    # not safetensors' save_file, which creates files that only their owner can read
    atomic_write(path, lambda temporary: temporary.write_bytes(save(tensors, metadata)))


def load_weights(path: str | Path, network: nn.Module, device: torch.device | str = "cpu") -> dict[str, str]:
    """Loads weights from a file into a network, in place.

    Args:
        path: The file.
        network: The network.
        device: Device onto which the tensors in the file are loaded.

    Returns:
        The metadata of the file.

    Raises:
        DataError: The file is missing or damaged, or was made for another network.
    """
    from safetensors.torch import load_file

    if not Path(path).is_file():
        raise DataError(f"{path}: no such weights file")
    metadata = read_metadata(path)
    try:
        fill(network, load_file(path, device=str(device)))
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path}: damaged, or not a safetensors file") from error
    except (RuntimeError, ValueError) as error:
        raise DataError(f"{path}: contains the weights of another network; check model and data") from error
    return metadata


def read_metadata(path: str | Path) -> dict[str, str]:
    """Returns the metadata of a weights file.

    Args:
        path: The file.

    Raises:
        DataError: The file is missing or damaged.
    """
    with _opened(path) as opened:
        return opened.metadata() or {}


def count_values(path: str | Path) -> int:
    """Returns the total number of values in the tensors of a weights file, as stated in the file header.

    Args:
        path: The file.

    Raises:
        DataError: The file is missing or damaged.
    """
    with _opened(path) as opened:
        return sum(math.prod(opened.get_slice(name).get_shape()) for name in opened.keys())  # noqa: SIM118


@contextmanager
def _opened(path: str | Path) -> Iterator[Any]:
    """Opens a weights file; raises DataError if it is missing or damaged."""
    try:
        with safe_open(path, framework="pt") as opened:
            yield opened
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path}: damaged, or not a safetensors file") from error


def fill(network: nn.Module, state: dict[str, Tensor]) -> None:
    """Loads a state dict into a network, in place.

    The state dict receives the current version number of each layer. Safetensors files contain no version numbers;
    without them, torch assumes an old version and converts the tensors.

    Args:
        network: The network.
        state: Parameters and buffers, keyed by name.
    """
    versioned = OrderedDict(state)
    versioned._metadata = network.state_dict()._metadata  # type: ignore[attr-defined]
    network.load_state_dict(versioned)


def fingerprint(path: str | Path) -> str:
    """Returns the SHA-256 hash of a file's content as 64 hexadecimal digits."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def cached_fingerprint(path: Path) -> str:
    """Returns the fingerprint of a file, recomputed only if the file has changed; `missing` if there is no file."""
    try:
        state = path.stat()
        return _fingerprint(path, state.st_mtime_ns, state.st_size)
    except OSError:
        return "missing"


@cache
def _fingerprint(path: Path, modified_ns: int, size: int) -> str:
    return fingerprint(path)
