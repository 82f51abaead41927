"""During a step, the host never waits for the device, because no code reads the value of a tensor."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ensdistill.config import presets
from ensdistill.data import DataSplits
from ensdistill.training.new_student import new_student
from ensdistill.training.step import StepContext, distill_step
from tests.unit.core.core_stand_ins import random_ensemble, streams, tiny_config

ASK = {"item", "tolist", "numpy", "cpu", "equal", "allclose", "nonzero", "masked_select", "unique"}
ASK |= {"__bool__", "__float__", "__int__", "__index__", "__contains__"}
DRAW = {"randint", "randperm"}  # on the host, like the generators of discrete choices in this project


class Waits(TorchFunctionMode):
    """Records reads of tensor values, except of tensors that were drawn on the host or passed to it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self._on_host: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__
        known = bool(args) and any(args[0] is tensor for tensor in self._on_host)
        by_mask = name in ("__getitem__", "__setitem__") and _has_mask(args[1])
        if not known and (name in ASK or by_mask):
            self.seen.append(name)
        out = func(*args, **(kwargs or {}))
        if (known or name in DRAW or name == "cpu") and isinstance(out, Tensor):
            self._on_host.append(out)
        return out


def _has_mask(index: Any) -> bool:
    return any(
        isinstance(i, Tensor) and i.dtype == torch.bool for i in (index if isinstance(index, tuple) else (index,))
    )


@pytest.mark.parametrize("preset", presets())
def test_a_step_synchronizes_with_the_device_only_for_the_weights_of_aekd(preset: str, digits: DataSplits) -> None:
    config = tiny_config(preset=preset)
    ensemble, student = random_ensemble(digits, 3), new_student(config, digits)
    optimizer, average = config.training.new_optimizer(student), config.averaging(student)
    images, labels = digits.train[slice(0, 8)]
    labels = labels.where(torch.arange(8) < 6, -1)
    with Waits() as waits:
        for progress in (0.5, 1.0):
            context = StepContext(config, student, optimizer, average, streams())
            distill_step(context, ensemble, images, labels, progress)
    of_average = ["__bool__"] * 4  # the counter of averaged states in torch, which is on the host
    assert waits.seen == {"aekd": ["cpu"] * 2, "kd_constant": of_average}.get(preset, [])


def test_synchronization_with_the_device_is_detected() -> None:
    x, mask = torch.rand(3), torch.tensor([True, False, True])
    with Waits() as waits:
        int(torch.randint(3, ()))
        torch.randperm(3)[:2].tolist()
        x[mask]
        x[None, mask]
        float(x.sum())
        x.tolist()
        if x.sum() > 0:
            x.cpu().numpy()
    assert waits.seen == ["__getitem__", "__getitem__", "__float__", "tolist", "__bool__", "cpu"]
