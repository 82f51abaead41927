"""Selection of the torch device."""

from __future__ import annotations

from ensdistill.errors import ConfigError
from ensdistill.runtime.lazy import torch


def pick_device(name: str) -> torch.device:
    """Returns a torch device.

    Args:
        name: Name of a device, for example `cpu` or `cuda:1`; `auto` selects the first GPU, or the CPU if there is no
            GPU.

    Raises:
        ConfigError: torch cannot use the device on this machine.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"--device {name}: torch cannot use it here ({reason}); try --device cpu") from error
