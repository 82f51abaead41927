"""A network of the user's own, or of any other library, by its import path."""

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
    """Calls what the path names with the arguments and, unless they say otherwise, the number of classes as
    `num_classes` (or else `classes`), and the image's `shape` (channels, height, width) and `in_channels` where its
    signature has parameters of these names."""

    kind: Literal["custom"] = "custom"
    path: str = setting(
        ..., "`package.module:Name` of a class or function that makes the network; its code is run.", min_length=1
    )
    arguments: dict[str, JsonValue] = setting({}, "Keyword arguments for it.")

    def __call__(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """A network with random weights for images (B,*shape) -> logits (B,classes).

        Raises ConfigError if it cannot be imported or called, or does not give such logits.
        """
        make = self._import()
        arguments = self._arguments(make, shape, classes)
        return tried(
            lambda: make(**arguments), shape, classes, f"model.path: {self.path}", "mend it, or change model.arguments"
        )

    def code(self) -> str:
        """SHA-256 of the source file; empty if there is none to read. What that file imports is not in it."""
        try:
            return hashlib.sha256(Path(inspect.getfile(self._import())).read_bytes()).hexdigest()
        except (TypeError, OSError):
            return ""

    def _import(self) -> Any:
        try:
            make = import_object(self.path)
        except PluginError as error:
            raise ConfigError(
                f"model.path: {self.path} cannot be imported ({error}); write package.module:Name, and "
                "install the package, put its folder on PYTHONPATH, or start the command there"
            ) from error
        if not callable(make):
            raise ConfigError(f"model.path: {self.path} is a {type(make).__name__}; name a class or a function")
        return make

    def _arguments(self, make: Callable[..., Any], shape: tuple[int, int, int], classes: int) -> dict[str, Any]:
        """The given arguments, and what the signature asks for of what is known."""
        signature = self._signature(make)
        takes = signature.parameters
        open_ended = any(p.kind is p.VAR_KEYWORD for p in takes.values())
        count = next((name for name in ("num_classes", "classes") if name in takes), "num_classes")
        if count not in takes and not open_ended:
            raise ConfigError(
                f"model.path: {self.path}{signature} has no parameter num_classes or classes; wrap it in a function "
                "that has one"
            )
        image = {"shape": shape, "in_channels": shape[0]}
        arguments = {count: classes, **{name: image[name] for name in image if name in takes}, **self.arguments}
        try:
            signature.bind(**arguments)
        except TypeError as error:
            raise ConfigError(f"model.arguments: {error}; {self.path} takes {signature}") from error
        return arguments

    def _signature(self, make: Callable[..., Any]) -> inspect.Signature:
        try:
            return inspect.signature(make)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"model.path: {self.path} does not tell its parameters; wrap it in a function of num_classes"
            ) from error
