"""Devices of torch."""

from __future__ import annotations

from ensdistill.errors import ConfigError
from ensdistill.runtime.lazy import torch


def pick_device(name: str) -> torch.device:
    """`auto` is the first GPU if there is one. Raises ConfigError for a device that torch cannot use here."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"--device {name}: torch cannot use it here ({reason}); try --device cpu") from error
