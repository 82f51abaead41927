"""Optimizers are those of torch, with parameter groups defined by the settings."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from ensdistill.config import Config, load_config
from ensdistill.errors import ConfigError
from ensdistill.methods.optimizers import (
    OPTIMIZERS,
    Adam,
    AdamW,
    NAdam,
    OptimizerPiece,
    RAdam,
    RmsProp,
    Sgd,
    TorchOptim,
)
from ensdistill.methods.recipe import Training, set_lr
from ensdistill.methods.students import BatchEnsemble, Single

ADAPTIVE = {"beta1": 0.8, "beta2": 0.95, "eps": 1e-6, "weight_decay": 0.1, "lr": 0.02}
OF_TORCH = {"betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.1, "lr": 0.02}
CASES: list[tuple[OptimizerPiece, type[torch.optim.Optimizer], dict[str, Any]]] = [
    (Sgd(lr=0.02), torch.optim.SGD, {"lr": 0.02, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}),
    (Adam(**ADAPTIVE), torch.optim.Adam, OF_TORCH),
    (AdamW(**ADAPTIVE), torch.optim.AdamW, OF_TORCH),
    (NAdam(**ADAPTIVE, momentum_decay=0.1), torch.optim.NAdam, OF_TORCH | {"momentum_decay": 0.1}),
    (NAdam(**ADAPTIVE, decoupled=True), torch.optim.NAdam, OF_TORCH | {"decoupled_weight_decay": True}),
    (RAdam(**ADAPTIVE, decoupled=True), torch.optim.RAdam, OF_TORCH | {"decoupled_weight_decay": True}),
    (
        RmsProp(alpha=0.8, momentum=0.5, centered=True),
        torch.optim.RMSprop,
        {"alpha": 0.8, "momentum": 0.5, "centered": True},
    ),
    (
        TorchOptim(name="Adagrad", lr=0.1, arguments={"lr_decay": 0.5}),
        torch.optim.Adagrad,
        {"lr": 0.1, "lr_decay": 0.5},
    ),
]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 3))


def gradients(step: int, parameters: list[nn.Parameter]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(step)
    return [torch.randn(p.shape, generator=generator) for p in parameters]


def both_step(ours: torch.optim.Optimizer, mine: nn.Module, torchs: torch.optim.Optimizer, theirs: nn.Module) -> None:
    for step in range(3):
        for module in (mine, theirs):
            some = list(module.parameters())
            for p, gradient in zip(some, gradients(step, some), strict=True):
                p.grad = gradient
        ours.step()
        torchs.step()
    for p, q in zip(mine.parameters(), theirs.parameters(), strict=True):
        assert_close(p, q)


@pytest.mark.parametrize(("piece", "of_torch", "arguments"), CASES, ids=lambda value: getattr(value, "kind", ""))
def test_optimizer_steps_equal_those_of_torch(
    piece: OptimizerPiece, of_torch: type[torch.optim.Optimizer], arguments: dict[str, Any]
) -> None:
    mine, theirs = network(), network()
    optimizer = Training(optimizer=piece).new_optimizer(Single()(mine))
    both_step(optimizer, mine, of_torch(theirs.parameters(), **arguments), theirs)


def test_adamw_without_weight_decay_on_norms_and_biases_equals_torch_adamw_with_two_parameter_groups() -> None:
    mine, theirs = network(), network()
    piece = AdamW(lr=0.1, weight_decay=0.5, decay_norms_and_biases=False)
    conv, norm, _, linear = theirs
    rest = [conv.bias, norm.weight, norm.bias, linear.bias]
    groups: list[dict[str, Any]] = [{"params": [conv.weight, linear.weight]}, {"params": rest, "weight_decay": 0.0}]
    oracle = torch.optim.AdamW(groups, lr=0.1, weight_decay=0.5)
    both_step(Training(optimizer=piece).new_optimizer(Single()(mine)), mine, oracle, theirs)


def test_weight_decay_is_zero_for_subnetwork_biases_and_set_by_the_student_for_factors() -> None:
    student = BatchEnsemble(subnetworks=2, bias="per_member")(nn.Linear(4, 3))
    layer = student.network
    piece = AdamW(weight_decay=0.5, decay_norms_and_biases=False)
    decay = {
        id(p): g["weight_decay"]
        for g in Training(optimizer=piece).new_optimizer(student).param_groups
        for p in g["params"]
    }
    assert [decay[id(p)] for p in (layer.layer.weight, layer.bias, layer.r, layer.s)] == [0.5, 0.0, 0.5, 0.5]


def test_the_learning_rate_is_the_scheduled_rate_times_the_factors_of_the_group_and_the_module() -> None:
    student = BatchEnsemble(subnetworks=2, factor_lr=3.0, factor_gradient="mean")(slow(nn.Linear(4, 3), 0.5))
    optimizer = Training(optimizer=AdamW()).new_optimizer(student)
    set_lr(optimizer, 0.2)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.1, 0.3])


def slow(module: nn.Module, scale: float) -> nn.Module:
    module.lr_scale = scale
    return module


@pytest.mark.parametrize("kind", OPTIMIZERS.built_in)
def test_the_check_before_a_study_creates_only_an_optimizer_whose_creation_can_fail(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    created: list[Any] = []
    piece = OPTIMIZERS.built_in[kind]
    monkeypatch.setattr(piece, "__call__", lambda self, groups: created.append(groups) or Sgd()(groups))
    student = Single()(nn.Linear(4, 2))
    Training(optimizer=piece()).check_optimizer(student)
    assert bool(created) == (piece is TorchOptim)


def test_a_network_without_trainable_parameters_is_refused() -> None:
    student = Single()(nn.Linear(4, 2).requires_grad_(False))
    with pytest.raises(ConfigError, match="model: has no parameters that can be trained"):
        Training().check_optimizer(student)


def test_the_setting_decay_norms_and_biases_changes_the_hash_only_if_it_differs_from_its_default() -> None:
    assert "decay_norms_and_biases" not in Config().training.optimizer.model_dump()
    assert load_config("kd", ["training.optimizer.decay_norms_and_biases=true"]).hash == load_config("kd").hash
    assert load_config("kd", ["training.optimizer.decay_norms_and_biases=false"]).hash != load_config("kd").hash


def test_each_kind_of_optimizer_has_separate_defaults() -> None:
    config = load_config("kd", ["training.optimizer.kind=adamw", "teachers.training.optimizer.kind=rmsprop"])
    assert config.training.optimizer == AdamW()
    assert config.teachers.training.optimizer == RmsProp()


@pytest.mark.parametrize(
    ("piece", "message"),
    [
        (TorchOptim(name="Adamx"), r"optimizer.name: torch.optim has no optimizer 'Adamx' .*mean Adamax\?"),
        (TorchOptim(name="LBFGS"), r"optimizer.name: torch.optim has no optimizer 'LBFGS' for dense gradients"),
        (TorchOptim(arguments={"bettas": [0.9, 0.9]}), r"optimizer.arguments: .* no argument bettas .*mean betas\?"),
        (TorchOptim(arguments={"lr": 1}), r"lr is a separate setting. Set training.optimizer.lr"),
        (TorchOptim(name="Rprop", weight_decay=0.1), r"optimizer.weight_decay: torch.optim.Rprop has no weight decay"),
        (TorchOptim(name="Muon"), r"torch.optim.Muon cannot be used \(Muon only supports 2D"),
    ],
)
def test_an_optimizer_or_argument_unsupported_by_torch_is_refused_and_the_error_states_the_fix(
    piece: TorchOptim, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Training(optimizer=piece).new_optimizer(Single()(network()))
