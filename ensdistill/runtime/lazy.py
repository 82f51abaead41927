"""torch and NumPy for modules that hold settings and mathematics: each is imported when it is first used.

Reading settings needs neither, and torch alone takes two seconds to import. Such a module begins with

    from __future__ import annotations
    from ensdistill.runtime.lazy import torch

and has no class that inherits from `torch.nn.Module`: that would import torch at once.
"""

from functools import cached_property
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

__all__ = ["F", "nn", "np", "torch"]


class LazyModule(ModuleType):
    """Stands in for a module, which is imported at the first access to an attribute."""

    @cached_property
    def _module(self) -> ModuleType:
        return import_module(self.__name__)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


if TYPE_CHECKING:
    import numpy as np
    import torch
    import torch.nn.functional as F
    from torch import nn
else:
    np = LazyModule("numpy")
    torch = LazyModule("torch")
    nn = LazyModule("torch.nn")
    F = LazyModule("torch.nn.functional")
