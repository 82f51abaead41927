"""Lazy import of torch and NumPy, for modules that contain both settings and computations.

Reading settings requires neither library, and torch alone takes two seconds to import. A module that contains both
settings and computations begins with

    from __future__ import annotations
    from ensdistill.runtime.lazy import torch

and must not define a subclass of `torch.nn.Module`, which would import torch immediately.
"""

from functools import cached_property
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

__all__ = ["F", "nn", "np", "torch"]


class LazyModule(ModuleType):
    """A placeholder for a module; the first access to an attribute imports the module."""

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
