"""Parameter groups of a student's optimizer: learning rate and weight decay of each parameter that is not frozen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from ensdistill.methods.optimizers import OptimizerPiece
    from ensdistill.methods.students.base import Student


def parameter_groups(student: Student, optimizer: OptimizerPiece) -> list[dict[str, Any]]:
    """Returns the student's parameter groups, split by weight decay and learning rate, without frozen parameters.

    Args:
        student: The student; `Student.parameter_groups` defines the initial groups.
        optimizer: Settings of the optimizer.

    Returns:
        Groups with `params`, `weight_decay`, `lr_scale` and `grad_scale`.
    """
    # The optional attribute `lr_scale` of a module multiplies the learning rate of the module's direct parameters.
    scales = {
        id(p): getattr(module, "lr_scale", 1.0)
        for module in student.modules()
        for p in module.parameters(recurse=False)
    }
    spared = set() if optimizer.decay_norms_and_biases else _norms_and_biases(student)
    found: dict[tuple[int, float, float], dict[str, Any]] = {}
    for n, group in enumerate(student.parameter_groups(optimizer.weight_decay)):
        for p in group["params"]:
            decay, scale = 0.0 if id(p) in spared else group["weight_decay"], scales[id(p)] * group["lr_scale"]
            if p.requires_grad:
                own = {"grad_scale": 1.0, **group, "params": [], "weight_decay": decay, "lr_scale": scale}
                found.setdefault((n, decay, scale), own)["params"].append(p)
    return list(found.values())


def _norms_and_biases(network: nn.Module) -> set[int]:
    """Returns the ids of all biases and of all other vectors and scalars, such as the gains of normalization layers."""
    return {id(p) for name, p in network.named_parameters() if p.ndim < 2 or name.endswith("bias")}


def scale_gradients(optimizer: Optimizer, *_: Any) -> None:
    """Multiplies the gradients of each group by its `grad_scale`, in place; called before every step."""
    for group in optimizer.param_groups:
        if group["grad_scale"] != 1:
            for p in group["params"]:
                if p.grad is not None:
                    p.grad.mul_(group["grad_scale"])
