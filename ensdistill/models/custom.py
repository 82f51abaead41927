"""A user-defined network, or a network from another library, selected by its import path."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import JsonValue

from ensdistill.errors import ConfigError
from ensdistill.models.network import NetworkPiece
from ensdistill.models.probe import tried
from ensdistill.runtime.lazy import nn
from ensdistill.settings.base import setting
from ensdistill.settings.plugins import PluginError, import_object


class CustomModel(NetworkPiece):
    """A class or function that is imported by path and called with the given arguments.

    The number of classes is passed as `num_classes` or `classes`. The image's `shape` (channels, height, width) and
    `in_channels` are also passed if the signature has parameters with these names. Values in `arguments` take
    precedence.
    """

    kind: Literal["custom"] = "custom"
    path: str = setting(
        ..., "`package.module:Name` of the class or function that is called to create the network.", min_length=1
    )
    arguments: dict[str, JsonValue] = setting({}, "Keyword arguments of the class or function.")

    def __call__(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """Returns a network with random weights: images (B,*shape) -> logits (B,classes).

        Args:
            shape: Channels, height and width of an image.
            classes: Number of classes.

        Raises:
            ConfigError: The class or function cannot be imported or called, or the network does not return such logits.
        """
        make = self._import()
        arguments = self._arguments(make, shape, classes)
        return tried(
            lambda: make(**arguments),
            shape,
            classes,
            f"model.path: {self.path}",
            "fix the network, or change model.arguments",
        )

    def code(self) -> str:
        """Returns the SHA-256 hash of the source file, without imported modules; empty if the file cannot be read."""
        try:
            return hashlib.sha256(Path(inspect.getfile(self._import())).read_bytes()).hexdigest()
        except (TypeError, OSError):
            return ""

    def _import(self) -> Any:
        """Returns the class or function at the path."""
        try:
            make = import_object(self.path)
        except PluginError as error:
            raise ConfigError(
                f"model.path: {self.path} cannot be imported ({error}); write package.module:Name, and "
                "install the package, put its folder on PYTHONPATH, or start the command in its folder"
            ) from error
        if not callable(make):
            raise ConfigError(
                f"model.path: must be a class or a function, but {self.path} is a {type(make).__name__}; correct it"
            )
        return make

    def _arguments(self, make: Callable[..., Any], shape: tuple[int, int, int], classes: int) -> dict[str, Any]:
        """Returns the keyword arguments of the call.

        The number of classes is always passed; `shape` and `in_channels` are passed if the signature has parameters
        with these names. Values in the settings take precedence.
        """
        signature = self._signature(make)
        takes = signature.parameters
        open_ended = any(p.kind is p.VAR_KEYWORD for p in takes.values())
        count = next((name for name in ("num_classes", "classes") if name in takes), "num_classes")
        if count not in takes and not open_ended:
            raise ConfigError(
                f"model.path: {self.path}{signature} has no parameter num_classes or classes; wrap it in a function "
                "with such a parameter"
            )
        image = {"shape": shape, "in_channels": shape[0]}
        arguments = {count: classes, **{name: image[name] for name in image if name in takes}, **self.arguments}
        try:
            signature.bind(**arguments)
        except TypeError as error:
            raise ConfigError(f"model.arguments: {error}; the signature of {self.path} is {signature}") from error
        return arguments

    def _signature(self, make: Callable[..., Any]) -> inspect.Signature:
        """Returns the signature of the class or function; raises ConfigError if it has none."""
        try:
            return inspect.signature(make)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"model.path: {self.path} has no readable signature; wrap it in a function with a parameter num_classes"
            ) from error
