"""Optimizers: settings classes that return a torch optimizer for the parameter groups of a student.

To add an optimizer, add one class to this file. Other optimizers in `torch.optim` can be selected by name; see
`TorchOptim`.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import JsonValue

from ensdistill.errors import NO_VALUE, ConfigError, ConfigIssue
from ensdistill.runtime.lazy import torch
from ensdistill.settings.base import setting
from ensdistill.settings.families import PieceFamily
from ensdistill.settings.pieces import Piece
from ensdistill.settings.validation import closest_match, did_you_mean

if TYPE_CHECKING:
    from torch.optim import Optimizer

Groups = list[dict[str, Any]]  # parameter groups, each with `params` and `weight_decay`
_SET_ELSEWHERE = ("params", "lr", "weight_decay")
_UNSUITABLE = ("Optimizer", "LBFGS", "SparseAdam")  # in order: abstract, requires a closure, requires sparse gradients


class OptimizerPiece(Piece):
    """Base class of all optimizers."""

    lr: float = setting(1e-3, "Peak learning rate.", gt=0, le=100)
    weight_decay: float = setting(0.0, "L2 decay of the parameters, added to the gradient.", ge=0, le=1)
    decay_norms_and_biases: bool = setting(
        True,
        "Also apply weight decay to normalization layers and biases; for factors of `batch_ensemble`, "
        "`student.factor_decay` applies instead.",
        exclude_if=bool,  # omitted if True (the default), so that earlier content hashes stay valid
    )

    def __call__(self, groups: Groups) -> Optimizer:
        """Returns an optimizer for the given parameter groups.

        Args:
            groups: Torch parameter groups, each with `params` and `weight_decay`. Before every step, the training loop
                sets the `lr` of each group and multiplies the group's gradients by its `grad_scale`.
        """
        raise NotImplementedError


class Sgd(OptimizerPiece):
    """Stochastic gradient descent with momentum."""

    kind: Literal["sgd"] = "sgd"
    lr: float = setting(0.05, "Peak learning rate.", gt=0, le=100)
    momentum: float = setting(0.9, "Momentum.", ge=0, lt=1)
    nesterov: bool = setting(True, "Use Nesterov momentum (requires momentum above 0).")
    weight_decay: float = setting(5e-4, "Coupled L2 decay of the parameters, added to the gradient.", ge=0, le=1)

    def __call__(self, groups: Groups) -> Optimizer:
        """Returns torch's SGD.

        The `grad_scale` K of a group is folded into its learning rate and decay, which saves a pass over the
        gradients: the learning rate is multiplied by K, and the decay is divided by K. With or without momentum, the
        steps are the same as if the gradient were multiplied by K.
        """
        nesterov = self.nesterov and self.momentum > 0
        folded = [_folded(group) for group in groups]
        return torch.optim.SGD(folded, lr=self.lr, momentum=self.momentum, nesterov=nesterov)


def _folded(group: dict[str, Any]) -> dict[str, Any]:
    """Returns a parameter group whose learning rate includes its `grad_scale`."""
    times = group["grad_scale"]
    scale, decay = times * group["lr_scale"], group["weight_decay"] / times
    return {**group, "grad_scale": 1.0, "lr_scale": scale, "weight_decay": decay}


class _Adaptive(OptimizerPiece):
    """Base class of the optimizers that keep running averages of the gradient and of the squared gradient."""

    beta1: float = setting(0.9, "Decay rate of the average gradient.", ge=0, lt=1)
    beta2: float = setting(0.999, "Decay rate of the average squared gradient.", ge=0, lt=1)
    eps: float = setting(1e-8, "Number added to the square root of the average squared gradient.", gt=0, le=1)

    def _common(self) -> dict[str, Any]:
        """Returns the arguments that these optimizers share."""
        return {"lr": self.lr, "betas": (self.beta1, self.beta2), "eps": self.eps}


class Adam(_Adaptive):
    """Adam, with coupled L2 decay. Kingma and Ba 2015."""

    kind: Literal["adam"] = "adam"

    def __call__(self, groups: Groups) -> Optimizer:
        """Returns torch's Adam."""
        return torch.optim.Adam(groups, **self._common())


class AdamW(_Adaptive):
    """Adam with decoupled weight decay: each step also multiplies the weights by 1 - lr * weight_decay.

    Loshchilov and Hutter 2019.
    """

    kind: Literal["adamw"] = "adamw"
    weight_decay: float = setting(0.01, "Decoupled decay of the parameters, relative to the learning rate.", ge=0, le=1)

    def __call__(self, groups: Groups) -> Optimizer:
        """Returns torch's AdamW."""
        return torch.optim.AdamW(groups, **self._common())


class NAdam(_Adaptive):
    """Adam with Nesterov momentum. Dozat 2016."""

    kind: Literal["nadam"] = "nadam"
    lr: float = setting(2e-3, "Peak learning rate.", gt=0, le=100)
    momentum_decay: float = setting(4e-3, "Decay of the momentum over steps.", ge=0, le=1)
    decoupled: bool = setting(False, "Use decoupled weight decay, as in AdamW.")

    def __call__(self, groups: Groups) -> Optimizer:
        """Returns torch's NAdam."""
        own: dict[str, Any] = {"momentum_decay": self.momentum_decay, "decoupled_weight_decay": self.decoupled}
        return torch.optim.NAdam(groups, **self._common(), **own)


class RAdam(_Adaptive):
    """Adam with a rectified step size in the first steps. Liu et al. 2020."""

    kind: Literal["radam"] = "radam"
    decoupled: bool = setting(False, "Use decoupled weight decay, as in AdamW.")

    def __call__(self, groups: Groups) -> Optimizer:
        """Returns torch's RAdam."""
        return torch.optim.RAdam(groups, **self._common(), decoupled_weight_decay=self.decoupled)


class RmsProp(OptimizerPiece):
    """RMSprop: divides the gradient by the square root of the average squared gradient. Hinton's lecture, 2012."""

    kind: Literal["rmsprop"] = "rmsprop"
    lr: float = setting(0.01, "Peak learning rate.", gt=0, le=100)
    alpha: float = setting(0.99, "Decay rate of the average squared gradient.", ge=0, lt=1)
    eps: float = setting(1e-8, "Number added to the square root of the average squared gradient.", gt=0, le=1)
    momentum: float = setting(0.0, "Momentum.", ge=0, lt=1)
    centered: bool = setting(False, "Divide by the standard deviation of the gradient.")

    def __call__(self, groups: Groups) -> Optimizer:
        """Returns torch's RMSprop."""
        own: dict[str, Any] = {
            "alpha": self.alpha,
            "eps": self.eps,
            "momentum": self.momentum,
            "centered": self.centered,
        }
        return torch.optim.RMSprop(groups, lr=self.lr, **own)


class TorchOptim(OptimizerPiece):
    """Any other optimizer in `torch.optim`, selected by name, with torch's default arguments."""

    kind: Literal["torch_optim"] = "torch_optim"
    name: str = setting("Adamax", "Name of the class, such as Adamax, Adagrad or Adafactor.", min_length=1)
    arguments: dict[str, JsonValue] = setting(
        {}, "Further keyword arguments of the class, except lr and weight_decay, which have separate settings."
    )

    def __call__(self, groups: Groups) -> Optimizer:
        """Returns an optimizer of the selected class.

        Raises:
            ConfigError: The class or an argument does not exist, or the class rejects the parameters.
        """
        make = self._class()
        takes = inspect.signature(make).parameters
        for name in self.arguments:
            if name not in takes or name in _SET_ELSEWHERE:
                raise self._unknown_argument(name, takes)
        if self.weight_decay and "weight_decay" not in takes:
            raise _issue("weight_decay", f"torch.optim.{self.name} has no weight decay", hint="set it to 0")
        try:
            return make(groups, lr=self.lr, **self.arguments)  # type: ignore[no-any-return]
        except (TypeError, ValueError, RuntimeError) as error:
            rule = f"torch.optim.{self.name} cannot be used ({' '.join(str(error).split())[:200]})"
            raise _issue("arguments", rule, hint="correct the arguments, or use another optimizer") from error

    def _class(self) -> Any:
        """Returns the class of the optimizer."""
        known = dict(_of_torch())
        if self.name not in known:
            rule = f"torch.optim has no optimizer {{value}} for dense gradients ({', '.join(known)})"
            raise _issue("name", rule, self.name, did_you_mean(closest_match(self.name, known)))
        return known[self.name]

    def _unknown_argument(self, name: str, takes: Any) -> ConfigError:
        """Returns the error for an argument that the class does not accept or that has a separate setting."""
        known = [one for one in takes if one not in _SET_ELSEWHERE]
        if name in _SET_ELSEWHERE:
            return _issue("arguments", f"{name} is a separate setting", hint=f"set training.optimizer.{name}")
        rule = f"torch.optim.{self.name} has no argument {name} (available: {', '.join(known)})"
        return _issue("arguments", rule, hint=did_you_mean(closest_match(name, known)))


def can_fail(optimizer: OptimizerPiece) -> bool:
    """Returns whether the creation of an optimizer can fail although its settings are valid.

    For other optimizers, nothing needs to be created as a check. Creating one imports TorchDynamo, which takes two
    seconds.
    """
    return type(optimizer) not in (Sgd, Adam, AdamW, NAdam, RAdam, RmsProp)


def _of_torch() -> Iterator[tuple[str, type]]:
    """Yields the name and class of each torch optimizer that accepts dense gradients and requires no closure."""
    for name, found in vars(torch.optim).items():
        if inspect.isclass(found) and issubclass(found, torch.optim.Optimizer) and name not in _UNSUITABLE:
            yield name, found


def _issue(name: str, rule: str, value: object = NO_VALUE, hint: str | None = None) -> ConfigError:
    """Returns the error for one setting of the optimizer."""
    return ConfigError(ConfigIssue(("training", "optimizer", name), rule, value, hint))


OPTIMIZERS = PieceFamily("optimizers", OptimizerPiece)
OptimizerSetting = Annotated[OptimizerPiece, OPTIMIZERS]
