"""Prepares a network for training: initial weights, frozen parts, and a separate learning rate for the body."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator
from fnmatch import fnmatchcase
from functools import cache
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from ensdistill.errors import ConfigError, ConfigIssue, DataError, SettingWarning
from ensdistill.models.image_statistics import statistics
from ensdistill.models.normalization import Normalize
from ensdistill.models.published_weights import fill_matching
from ensdistill.models.weight_files import copy_weights, first_fit, read_checkpoint_file, unclear
from ensdistill.runtime.files import user_path

if TYPE_CHECKING:
    from pathlib import Path

    from ensdistill.models.network import NetworkPiece

NETWORK = 1  # index of the network in the result of `build`; the normalization has index 0


def prepare_training(network: nn.Sequential, model: NetworkPiece, classes: int) -> None:
    """Loads initial weights in place, and marks the parts that are frozen or have a separate learning rate.

    If the weights do not fit the classifier, the classifier keeps its random weights, and a warning is issued.

    Args:
        network: Result of `build`.
        model: Settings of the network.
        classes: Number of classes.

    Raises:
        DataError: The weights are missing or damaged, or they are the weights of another network.
        ConfigError: A pattern in `freeze` matches nothing, or nothing is left to train.
    """
    inner = network[NETWORK]
    if model.mean or model.std:
        own = (network[0].get_buffer("mean").flatten(), network[0].get_buffer("std").flatten())
        network[0] = Normalize(*statistics(model.mean, model.std, own, "model: mean and std"))
    if model.weights:
        _load(network, model, _classifier(inner, classes))
    if published := model.published():
        _warn_of_random(fill_matching(inner, published))
    frozen = _frozen(inner, model, classes)
    if frozen:
        _freeze(inner, frozen)
    if model.body_lr not in (0, 1):
        _slow_down(inner, model.body_lr, _required_classifier(inner, classes))


# --- weights ----------------------------------------------------------------------------------------------------------


def _load(network: nn.Sequential, model: NetworkPiece, classifier: str) -> None:
    """Loads a weights file; the normalization and the classifier may be missing from the file."""
    path = user_path(model.weights)
    content = read_checkpoint_file(path, "model.weights")
    inner, prefix = network[NETWORK], f"{NETWORK}."
    replaced = [name for name in inner.state_dict() if classifier and name.startswith(f"{classifier}.")]
    of_whole = [prefix + name for name in replaced]
    fit = first_fit(content, ((network, ()), (inner, ()), (network, of_whole), (inner, replaced)))
    found = fit.weights
    if not found:
        small = getattr(model, "stem", "") == "small"
        hint = "; a published first layer requires model.stem: original" if small else ""
        raise DataError(f"model.weights: {path} does not fit the network ({fit.reason}){hint}")
    if fit.network is network and (model.mean or model.std):
        raise ConfigError(f"model.weights: {path} already contains mean and std; remove them from the settings")
    if unclear(found):
        raise DataError(
            f"model.weights: {path} contains the weights of {len(found)} networks that fit ({found[0]}, {found[1]}); "
            "save one state dict"
        )
    copy_weights(fit, f"model.weights: {path}", "give other weights")
    if fit.replaced:
        warnings.warn(SettingWarning(_replaced(path, classifier)), stacklevel=2)


def _replaced(path: Path, classifier: str) -> ConfigIssue:
    """Returns the warning about a classifier whose weights are not taken from the file."""
    rule = f"the classifier ({classifier}) starts from random weights, because {path.name} is for other classes"
    return ConfigIssue(("model", "weights"), rule)


def _warn_of_random(names: Collection[str]) -> None:
    """Issues a warning that lists the layers without published weights."""
    layers = list(dict.fromkeys(name.rpartition(".")[0] or name for name in names))
    if layers:
        shown = ", ".join(layers[:4]) + (f" and {len(layers) - 4} more" if len(layers) > 4 else "")
        rule = f"start from random weights, because their published weights have a different shape: {shown}"
        warnings.warn(SettingWarning(ConfigIssue(("model", "pretrained"), f"these layers {rule}")), stacklevel=3)


def _classifier(network: nn.Module, classes: int) -> str:
    """Returns the name of the classifier: the last layer with one output per class; empty if there is none."""
    outputs = {name: getattr(m, "out_features", getattr(m, "out_channels", 0)) for name, m in _layers(network)}
    return next((name for name in reversed(outputs) if outputs[name] == classes), "")


def _layers(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yields the name and module of each convolutional or linear layer."""
    for name, module in network.named_modules():
        if name and isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            yield name, module


def _required_classifier(network: nn.Module, classes: int) -> str:
    """Returns the result of `_classifier`; raises ConfigError if there is no classifier."""
    if not (name := _classifier(network, classes)):
        rule = f"this network has no linear or convolutional layer with {classes} outputs as its classifier"
        raise ConfigError(ConfigIssue(("model", "body_lr"), rule, hint="leave body_lr at 1, and use freeze"))
    return name


# --- frozen parts and learning rates ----------------------------------------------------------------------------------


def _frozen(network: nn.Module, model: NetworkPiece, classes: int) -> set[str]:
    """Returns the names of the frozen parameters and buffers."""
    names = list(network.state_dict())
    frozen: set[str] = set()
    for pattern in model.freeze:
        matched = {name for name in names if any(fnmatchcase(part, pattern) for part in _ancestors(name))}
        if not matched:
            parts = ", ".join(dict.fromkeys(name.split(".")[0] for name in names))
            rule = f"{{value}} matches no part of the network (its parts are {parts})"
            raise ConfigError(ConfigIssue(("model", "freeze"), rule, pattern, "use names, or patterns with *"))
        frozen |= matched
    if model.body_lr == 0:
        classifier = _required_classifier(network, classes)
        frozen |= {name for name in names if not name.startswith(f"{classifier}.")}
    if all(name in frozen for name, _ in network.named_parameters()):
        raise ConfigError(ConfigIssue(("model", "freeze"), "leaves nothing to train", hint="freeze fewer parts"))
    return frozen


def _ancestors(name: str) -> Iterator[str]:
    """Yields a dotted name and the names of all modules that contain it."""
    parts = name.split(".")
    yield from (".".join(parts[: n + 1]) for n in range(len(parts)))


def _freeze(network: nn.Module, frozen: Collection[str]) -> None:
    """Freezes parameters in place, and also the statistics of completely frozen normalization layers."""
    for name, p in network.named_parameters():
        p.requires_grad_(name not in frozen)
    for prefix, module in network.named_modules():
        if not isinstance(module, _NormBase) or module.running_mean is None:
            continue
        if all((f"{prefix}.{name}" if prefix else name) in frozen for name in module.state_dict()):
            kind: Any = module.__class__
            module.__class__ = _with_frozen_statistics(kind)
            module.eval()


class FrozenStatistics:
    """Mixin for a normalization layer that always uses its stored statistics, even in training mode."""

    def train(self, mode: bool = True) -> Any:
        """Returns the layer in evaluation mode."""
        return super().train(False)  # type: ignore[misc]

    def reset_running_stats(self) -> None:
        """Keeps the statistics; `torch.optim.swa_utils.update_bn` resets the statistics of all other layers."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Returns a constructor and its arguments for copies and pickles; the class exists only in this process."""
        return _new_frozen, (type(self).__bases__[1],), self.__dict__

    def _get_name(self) -> str:
        """Returns the original class name, so that freezing does not change the `repr` of the network."""
        return str(type(self).__bases__[1].__name__)


def _new_frozen(kind: Any) -> Any:
    """Returns a layer that has frozen statistics and whose state is not set yet."""
    made = _with_frozen_statistics(kind)
    return made.__new__(made)


@cache
def _with_frozen_statistics(kind: Any) -> Any:
    """Returns a subclass of a normalization layer class, in which the statistics are frozen."""
    return type(f"Frozen{kind.__name__}", (FrozenStatistics, kind), {})


def _slow_down(network: nn.Module, scale: float, classifier: str) -> None:
    """Sets the learning rate of all modules except the classifier, relative to the optimizer's learning rate."""
    for name, module in network.named_modules():
        if name != classifier:
            module.lr_scale = scale
