"""Learning rates against the published check points and torch's own schedulers; parameter groups."""

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR
from torch.testing import assert_close

from ensdistill.optimiser import Training, set_lr
from ensdistill.students import BatchEnsemble, Single

PUBLISHED = Training(epochs=200, lr=0.1, warmup_epochs=5)  # METHODS 1.5: 1,755 + 68,445 steps of 351 an epoch


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 0.0), (351, 0.02), (1404, 0.08), (1755, 0.1), (1755 + 22815, 0.075), (1755 + 45630, 0.025), (70200, 0.0)],
)
def test_learning_rate_passes_the_published_check_points(step: int, expected: float) -> None:
    assert PUBLISHED.lr_at(step, 351) == pytest.approx(expected, abs=1e-12)


def test_learning_rate_agrees_with_torchs_schedulers() -> None:
    training = Training(epochs=6, lr=0.3, warmup_epochs=2)
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    parts = [LinearLR(optimiser, 1e-12, 1.0, total_iters=10), CosineAnnealingLR(optimiser, 20)]
    oracle = SequentialLR(optimiser, parts, milestones=[10])
    for step in range(30):
        assert training.lr_at(step, 5) == pytest.approx(oracle.get_last_lr()[0], abs=1e-9)
        optimiser.step()
        oracle.step()


def test_constant_schedule_stays_at_the_largest_rate_after_the_warm_up() -> None:
    training = Training(epochs=4, lr=0.2, warmup_epochs=1, schedule="constant")
    assert [training.lr_at(step, 2) for step in range(8)] == [0, 0.1] + [0.2] * 6


def test_without_warm_up_the_first_step_has_the_largest_rate() -> None:
    assert Training(lr=0.2, warmup_epochs=0).lr_at(0, 7) == 0.2


def test_a_run_that_is_all_warm_up_ends_below_the_largest_rate() -> None:
    training = Training(epochs=1, lr=0.2, warmup_epochs=2)
    assert [training.lr_at(step, 4) for step in range(4)] == pytest.approx([0, 0.025, 0.05, 0.075])


def test_set_lr_gives_each_group_its_share() -> None:
    student = BatchEnsemble(subnetworks=3)(nn.Linear(2, 2))
    optimiser = Training(lr=0.5).optimiser(student)
    set_lr(optimiser, 0.2)
    assert [group["lr"] for group in optimiser.param_groups] == pytest.approx([0.2, 0.6])


def test_single_student_has_one_group_with_all_parameters() -> None:
    student = Single()(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2)))
    (group,) = Training(weight_decay=0.01).optimiser(student).param_groups
    assert {id(p) for p in group["params"]} == {id(p) for p in student.parameters()}
    assert group["weight_decay"] == 0.01


@pytest.mark.parametrize(("factor_gradient", "times"), [("own", 3), ("mean", 1)])
def test_factors_have_a_group_of_their_own(factor_gradient: str, times: int) -> None:
    student = BatchEnsemble(subnetworks=3, factor_gradient=factor_gradient)(nn.Linear(4, 2))
    shared, factors = Training(weight_decay=0.03).optimiser(student).param_groups
    layer = student.network
    assert {id(p) for p in shared["params"]} == {id(layer.layer.weight), id(layer.layer.bias)}
    assert {id(p) for p in factors["params"]} == {id(layer.r), id(layer.s)}
    assert factors["lr_scale"] == times
    assert factors["weight_decay"] == pytest.approx(0.03 / times)


def test_groups_of_any_batch_ensemble_hold_every_parameter_once() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2))
    student = BatchEnsemble(subnetworks=2)(network)
    ids = [id(p) for group in student.parameter_groups(0.1) for p in group["params"]]
    assert sorted(ids) == sorted(id(p) for p in student.parameters())


@pytest.mark.parametrize("nesterov", [True, False])
def test_rate_times_k_with_decay_over_k_is_the_gradient_times_k_with_the_whole_decay(nesterov: bool) -> None:
    # The published code multiplies the factors' gradients by K; here their rate is multiplied instead.
    generator = torch.Generator().manual_seed(0)
    training = Training(lr=0.1, momentum=0.9, nesterov=nesterov, weight_decay=0.05)
    student = BatchEnsemble(subnetworks=4)(nn.Linear(3, 2).double())
    r = student.network.r
    with torch.no_grad():
        r.normal_(generator=generator)
    oracle = nn.Parameter(r.detach().clone())
    published = torch.optim.SGD([oracle], lr=0.1, momentum=0.9, nesterov=nesterov, weight_decay=0.05)
    optimiser = training.optimiser(student)
    for _ in range(5):
        set_lr(optimiser, 0.1)
        gradient = torch.randn(r.shape, generator=generator, dtype=torch.float64)
        r.grad, oracle.grad = gradient.clone(), 4 * gradient
        optimiser.step()
        published.step()
    assert_close(r, oracle)


def test_nesterov_is_left_out_without_momentum() -> None:
    (group,) = Training(momentum=0.0, nesterov=True).optimiser(Single()(nn.Linear(1, 1))).param_groups
    assert not group["nesterov"]
