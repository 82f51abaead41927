"""Learning rates agree with published values and the schedulers of torch; parameter groups."""

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR
from torch.testing import assert_close

from ensdistill.config import load_config
from ensdistill.methods.optimizers import AdamW, OptimizerPiece, Sgd
from ensdistill.methods.recipe import Training, set_lr
from ensdistill.methods.students import BatchEnsemble, Single

PUBLISHED = Training(
    epochs=200, warmup_epochs=5, optimizer=Sgd(lr=0.1)
)  # METHODS 1.5: 1,755 + 68,445 steps, 351 per epoch


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 0.0), (351, 0.02), (1404, 0.08), (1755, 0.1), (1755 + 22815, 0.075), (1755 + 45630, 0.025), (70200, 0.0)],
)
def test_the_learning_rate_has_the_published_values_at_selected_steps(step: int, expected: float) -> None:
    assert PUBLISHED.lr_at(step, 351) == pytest.approx(expected, abs=1e-12)


def test_the_learning_rate_agrees_with_the_schedulers_of_torch() -> None:
    training = Training(epochs=6, warmup_epochs=2, optimizer=Sgd(lr=0.3))
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    parts = [LinearLR(optimizer, 1e-12, 1.0, total_iters=10), CosineAnnealingLR(optimizer, 20)]
    oracle = SequentialLR(optimizer, parts, milestones=[10])
    for step in range(30):
        assert training.lr_at(step, 5) == pytest.approx(oracle.get_last_lr()[0], abs=1e-9)
        optimizer.step()
        oracle.step()


def test_the_constant_schedule_stays_at_the_peak_rate_after_warm_up() -> None:
    training = Training(epochs=4, warmup_epochs=1, lr_schedule="constant", optimizer=Sgd(lr=0.2))
    assert [training.lr_at(step, 2) for step in range(8)] == [0, 0.1] + [0.2] * 6


def test_without_warm_up_the_first_step_has_the_peak_rate() -> None:
    assert Training(warmup_epochs=0, optimizer=Sgd(lr=0.2)).lr_at(0, 7) == 0.2


def test_a_run_shorter_than_its_warm_up_ends_below_the_peak_rate() -> None:
    training = Training(epochs=1, warmup_epochs=2, optimizer=Sgd(lr=0.2))
    assert [training.lr_at(step, 4) for step in range(4)] == pytest.approx([0, 0.025, 0.05, 0.075])


DIVERSITY = Training(
    epochs=300, warmup_epochs=5, lr_schedule="linear", min_lr_ratio=0.01, lr_update="epoch", optimizer=Sgd(lr=0.05)
)


@pytest.mark.parametrize(
    ("epoch", "share"),
    [
        (1, 0.01),
        (2, 0.2575),
        (4, 0.7525),
        (5, 1),
        (6, 1),
        (150, 1),
        (210, 0.505),
        (269, 0.01825),
        (270, 0.01),
        (271, 0.01),
        (300, 0.01),
    ],
)
def test_the_linear_schedule_has_the_published_values_at_selected_epochs(epoch: int, share: float) -> None:
    # METHODS 2.4; equal at every step of an epoch
    rates = [DIVERSITY.lr_at((epoch - 1) * 7 + step, 7) for step in range(7)]
    assert rates == pytest.approx([0.05 * share] * 7, abs=1e-12)


def test_the_linear_schedule_equals_the_published_function_of_the_epoch() -> None:
    for epoch in range(1, 301):
        if epoch < 5:
            share = 0.01 + 0.99 * (epoch - 1) / 4
        elif epoch <= 150:
            share = 1.0
        else:
            share = max(0.01, 1 - 0.99 * (epoch - 150) / 120)
        assert DIVERSITY.lr_at(epoch - 1, 1) == pytest.approx(0.05 * share, abs=1e-12)


def test_with_updates_per_step_the_linear_schedule_decays_between_50_and_90_percent_of_training() -> None:
    training = Training(epochs=10, warmup_epochs=0, lr_schedule="linear", min_lr_ratio=0.2, optimizer=Sgd(lr=1.0))
    shares = {0: 1, 49: 1, 50: 1, 60: 0.8, 70: 0.6, 89: 0.22, 90: 0.2, 99: 0.2}
    assert {step: training.lr_at(step, 10) for step in shares} == pytest.approx(shares)


@pytest.mark.parametrize("lr_update", ["step", "epoch"])
def test_the_multistep_schedule_has_the_published_milestones(lr_update: str) -> None:
    # METHODS 5.4: 240 epochs, multiplied by 0.1 at 150, 180 and 210
    training = Training(
        epochs=240, warmup_epochs=0, lr_schedule="multistep", lr_update=lr_update, optimizer=Sgd(lr=0.05)
    )
    per_epoch = 7
    for step in range(240 * per_epoch):
        passed = sum(step >= milestone * per_epoch for milestone in (150, 180, 210))
        assert training.lr_at(step, per_epoch) == pytest.approx(0.05 * 0.1**passed)


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_the_learning_rate_is_minimal_at_the_start_of_warm_up_and_at_the_end_of_a_decaying_schedule(
    schedule: str,
) -> None:
    training = Training(epochs=10, warmup_epochs=2, lr_schedule=schedule, min_lr_ratio=0.1, optimizer=Sgd(lr=0.5))
    assert training.lr_at(0, 1000) == pytest.approx(0.05)
    assert training.lr_at(1000, 1000) == pytest.approx(0.275)
    assert training.lr_at(2000, 1000) == pytest.approx(0.5)
    assert training.lr_at(9999, 1000) == pytest.approx(0.05, rel=1e-4)
    assert min(training.lr_at(step, 1000) for step in range(10_000)) >= 0.05


@pytest.mark.parametrize("schedule", ["cosine", "linear", "multistep", "constant"])
def test_a_learning_rate_updated_per_epoch_is_the_same_at_all_steps_of_an_epoch(schedule: str) -> None:
    training = Training(epochs=16, warmup_epochs=3, lr_schedule=schedule, lr_update="epoch", optimizer=Sgd(lr=0.5))
    for epoch in range(16):
        assert len({training.lr_at(epoch * 5 + step, 5) for step in range(5)}) == 1


@pytest.mark.parametrize("schedule", ["cosine", "linear", "multistep", "constant"])
@pytest.mark.parametrize("lr_update", ["step", "epoch"])
@pytest.mark.parametrize("warmup", [0, 1, 5, 9])
def test_the_learning_rate_never_leaves_its_range(schedule: str, lr_update: str, warmup: int) -> None:
    training = Training(
        epochs=5, warmup_epochs=warmup, lr_schedule=schedule, lr_update=lr_update, optimizer=Sgd(lr=0.5)
    )
    rates = [training.lr_at(step, 3) for step in range(15)]
    assert all(0 <= rate <= 0.5 for rate in rates)
    assert max(rates) > 0


def test_set_lr_multiplies_the_rate_by_the_lr_scale_of_each_group() -> None:
    student = BatchEnsemble(subnetworks=3, factor_lr=0.5)(nn.Linear(2, 2))
    optimizer = Training(optimizer=Sgd(lr=0.5)).new_optimizer(student)
    set_lr(optimizer, 0.2)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.2, 0.3])


def test_a_single_student_has_one_group_with_all_parameters() -> None:
    student = Single()(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2)))
    (group,) = Training(optimizer=Sgd(weight_decay=0.01)).new_optimizer(student).param_groups
    assert {id(p) for p in group["params"]} == {id(p) for p in student.parameters()}
    assert group["weight_decay"] == 0.01


@pytest.mark.parametrize(("factor_gradient", "times"), [("sum", 3), ("mean", 1)])
def test_factors_have_a_separate_parameter_group(factor_gradient: str, times: int) -> None:
    student = BatchEnsemble(subnetworks=3, factor_gradient=factor_gradient)(nn.Linear(4, 2))
    shared, factors = Training(optimizer=Sgd(weight_decay=0.03)).new_optimizer(student).param_groups
    layer = student.network
    assert {id(p) for p in shared["params"]} == {id(layer.layer.weight), id(layer.layer.bias)}
    assert {id(p) for p in factors["params"]} == {id(layer.r), id(layer.s)}
    assert factors["lr_scale"] == times
    assert factors["weight_decay"] == pytest.approx(0.03 / times)


def test_with_the_diversity_preset_factors_have_half_the_usual_learning_rate_and_no_weight_decay() -> None:
    # METHODS 2.1: factors have half the rate and no decay; biases of subnetworks are treated like all other weights
    config = load_config("diversity", ["training.optimizer.lr=0.1", "training.optimizer.weight_decay=5e-4"])
    student = config.student(nn.Linear(4, 2))
    optimizer = config.training.new_optimizer(student)
    shared, factors = optimizer.param_groups
    layer = student.network
    assert {id(p) for p in shared["params"]} == {id(layer.layer.weight), id(layer.bias)}
    assert {id(p) for p in factors["params"]} == {id(layer.r), id(layer.s)}
    set_lr(optimizer, 0.1)
    assert (shared["lr"], shared["weight_decay"], shared["nesterov"]) == (0.1, 5e-4, False)
    assert (factors["lr"], factors["weight_decay"]) == (0.05, 0)


@pytest.mark.parametrize("factor_lr", [0.5, 2.0])
@pytest.mark.parametrize(("factor_gradient", "times"), [("sum", 3), ("mean", 1)])
def test_the_learning_rate_of_factors_is_relative_to_that_of_the_shared_weights(
    factor_gradient: str, times: int, factor_lr: float
) -> None:
    settings = BatchEnsemble(subnetworks=3, factor_gradient=factor_gradient, factor_lr=factor_lr)
    _, factors = Training().new_optimizer(settings(nn.Linear(4, 2))).param_groups
    assert factors["lr_scale"] == pytest.approx(times * factor_lr)


def test_parameter_groups_of_any_batch_ensemble_contain_every_parameter_once() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2))
    student = BatchEnsemble(subnetworks=2)(network)
    ids = [id(p) for group in student.parameter_groups(0.1) for p in group["params"]]
    assert sorted(ids) == sorted(id(p) for p in student.parameters())


@pytest.mark.parametrize("optimizer", [Sgd(lr=0.1, weight_decay=0.05), AdamW(lr=0.1, weight_decay=0.05)])
def test_factor_gradients_are_multiplied_by_k_with_any_optimizer(optimizer: OptimizerPiece) -> None:
    generator = torch.Generator().manual_seed(0)
    training = Training(optimizer=optimizer)
    student = BatchEnsemble(subnetworks=4)(nn.Linear(3, 2).double())
    r = student.network.r
    with torch.no_grad():
        r.normal_(generator=generator)
    oracle = nn.Parameter(r.detach().clone())
    published: torch.optim.Optimizer = torch.optim.AdamW([oracle], lr=0.1, weight_decay=0.05)
    if isinstance(optimizer, Sgd):
        published = torch.optim.SGD([oracle], lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.05)
    ours = training.new_optimizer(student)
    for _ in range(5):
        set_lr(ours, 0.1)
        gradient = torch.randn(r.shape, generator=generator, dtype=torch.float64)
        r.grad, oracle.grad = gradient.clone(), 4 * gradient
        ours.step()
        published.step()
    assert_close(r, oracle)


def test_nesterov_is_ignored_without_momentum() -> None:
    (group,) = (
        Training(optimizer=Sgd(momentum=0.0, nesterov=True)).new_optimizer(Single()(nn.Linear(1, 1))).param_groups
    )
    assert not group["nesterov"]


def test_gradients_whose_norm_exceeds_the_limit_are_scaled_down_and_others_are_unchanged() -> None:
    student = Single()(nn.Linear(2, 1, bias=False))
    (weight,) = student.parameters()
    for gradient, limit, expected in (
        ([3.0, 4.0], 1.0, [0.6, 0.8]),
        ([3.0, 4.0], 6.0, [3, 4]),
        ([3.0, 4.0], None, [3, 4]),
    ):
        weight.grad = torch.tensor([gradient])
        Training(max_grad_norm=limit).clip_gradient(student)
        assert_close(weight.grad, torch.tensor([expected], dtype=torch.float32), atol=1e-5, rtol=1e-5)
