"""A step in bfloat16 is close to one in float32, and only products are computed in bfloat16."""

import pytest
import torch
from torch import Tensor, nn

from ensdistill.data import DataSplits
from ensdistill.methods import recipe as training
from ensdistill.methods.recipe import fast_in_bfloat16
from ensdistill.training.loop import distill
from ensdistill.training.new_student import new_student
from ensdistill.training.step import StepContext, distill_step
from tests.unit.core.core_stand_ins import random_ensemble, streams, tiny_config

PRESETS = ("kd", "latentbe", "diversity", "ekd")


def one_step(preset: str, precision: str, data: DataSplits) -> tuple[Tensor, Tensor, nn.Module]:
    """Returns the loss, all gradients in one vector, and the student."""
    config = tiny_config(f"training.precision={precision}", preset=preset)
    student = new_student(config, data).train()
    sgd, average = config.training.new_optimizer(student), config.averaging(student)
    images, labels = data.train[slice(0, 10)]
    context = StepContext(config, student, sgd, average, streams())
    loss = distill_step(context, random_ensemble(data), images, labels, 0.5)
    return loss, torch.cat([p.grad.flatten() for p in student.parameters() if p.grad is not None]), student


@pytest.mark.parametrize("preset", PRESETS)
def test_a_step_in_bfloat16_is_close_to_the_step_in_float32(preset: str, digits: DataSplits) -> None:
    loss, gradient, _ = one_step(preset, "bfloat16", digits)
    exact_loss, exact, _ = one_step(preset, "float32", digits)
    assert loss.dtype == gradient.dtype == torch.float32
    assert not torch.equal(gradient, exact)
    assert loss.item() == pytest.approx(exact_loss.item(), rel=0.05)
    assert torch.cosine_similarity(gradient, exact, 0) > 0.98


@pytest.mark.parametrize("preset", PRESETS)
def test_weights_and_statistics_stay_in_float32(preset: str, digits: DataSplits) -> None:
    _, _, student = one_step(preset, "bfloat16", digits)
    kinds = {tensor.dtype for tensor in student.state_dict().values() if tensor.is_floating_point()}
    assert kinds == {torch.float32}


def test_the_same_seed_gives_the_same_metrics_in_bfloat16(digits: DataSplits) -> None:
    config = tiny_config("training.precision=bfloat16", preset="latentbe")
    one, two = ([epoch.val for epoch in distill(config, random_ensemble(digits), digits)] for _ in range(2))
    assert one == two


@pytest.mark.parametrize("fast", [True, False])
def test_automatic_precision_is_bfloat16_if_the_device_is_fast_in_bfloat16(
    fast: bool, digits: DataSplits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "fast_in_bfloat16", lambda _: fast)
    gradient = one_step("kd", "auto", digits)[1]
    assert torch.equal(gradient, one_step("kd", "bfloat16" if fast else "float32", digits)[1])


def test_a_processor_without_bfloat16_instructions_is_not_fast_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    for told, fast in (({"avx512_bf16": True}, True), ({"avx512_bf16": False, "avx2": True}, False), ({}, False)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda told=told: told)
        assert fast_in_bfloat16(torch.device("cpu")) == fast


def test_the_default_precision_does_not_change_the_hash() -> None:
    plain = tiny_config()
    assert "precision" not in plain.training.model_dump()
    assert tiny_config("training.precision=float32").hash == plain.hash
    assert tiny_config("training.precision=bfloat16").hash != plain.hash
