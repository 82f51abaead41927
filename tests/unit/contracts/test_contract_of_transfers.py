"""What every loss promises: a finite scalar, differentiable in the student, for any K, M and labels."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from ensdistill.methods.losses import Loss
from tests.unit.contracts.contract_pieces import variants

every_loss = pytest.mark.parametrize("settings", variants(Loss))
# whose gradient holds constant what finite differences would move; their own tests take its place
CONSTANT_WEIGHTS = {"aekd"}
# which tell alpha from the logits themselves, not from their differences, and whose loss is a density's logarithm
DIRICHLET = {"end2", "proxy_end2"}
SIZES = [(1, 3), (3, 2)]  # subnetworks, teachers: fewer than teachers, and more
OTHER_SIZES = [(1, 1), (2, 3), (3, 3), (4, 1)]
every_size = pytest.mark.parametrize(("subnetworks", "teachers"), [*SIZES, *OTHER_SIZES])
two_sizes_and_others_where_time_is_no_matter = pytest.mark.parametrize(
    ("subnetworks", "teachers"), [*SIZES, *(pytest.param(*size, marks=pytest.mark.slow) for size in OTHER_SIZES)]
)
LABELS = torch.tensor([0, 4, -1, 2])


def logits(members: int, seed: int, scale: float = 2.0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(members, 4, 5, generator=generator, dtype=torch.float64)).to(dtype)


@every_loss
@every_size
def test_loss_is_a_finite_scalar(settings: Any, subnetworks: int, teachers: int) -> None:
    s = logits(subnetworks, 0)
    loss = settings(s, logits(teachers, 1), LABELS, s)
    assert loss.shape == ()
    assert loss.isfinite()
    assert loss > 0 or settings.kind in DIRICHLET


@every_loss
def test_head_of_the_student_depends_on_the_kind_alone(settings: Any) -> None:
    # It is built once, while every setting but the kind can change on the way (`ensdistill.methods.schedule`).
    assert repr(settings.head()) == repr(type(settings)().head())


def all_but(kinds: set[str]) -> Any:
    return pytest.mark.parametrize("settings", [v for v in variants(Loss) if v.values[0].kind not in kinds])


@all_but(CONSTANT_WEIGHTS)
@two_sizes_and_others_where_time_is_no_matter
def test_gradient_is_that_of_finite_differences(settings: Any, subnetworks: int, teachers: int) -> None:
    s, on_labels = logits(subnetworks, 0).requires_grad_(), logits(subnetworks, 2).requires_grad_()
    t = logits(teachers, 1)
    assert torch.autograd.gradcheck(lambda a, b: settings(a, t, LABELS, b), (s, on_labels))


@every_loss
def test_gradient_reaches_every_subnetwork(settings: Any) -> None:
    s = logits(3, 0).requires_grad_()
    settings(s, logits(3, 1), LABELS, s).backward()
    assert s.grad.isfinite().all()
    assert s.grad.flatten(1).any(1).all()


@every_loss
def test_small_step_against_the_gradient_lowers_the_loss(settings: Any) -> None:
    s, t = logits(2, 0).requires_grad_(), logits(3, 1)
    before = settings(s, t, LABELS, s)
    before.backward()
    moved = (s - 0.01 * s.grad).detach()
    assert settings(moved, t, LABELS, moved) < before


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lower_precision_gives_nearly_the_same_loss(settings: Any, dtype: torch.dtype) -> None:
    exact = settings(logits(2, 0), logits(3, 1), LABELS, logits(2, 0))
    s = logits(2, 0, dtype=dtype).requires_grad_()
    loss = settings(s, logits(3, 1, dtype=dtype), LABELS, s)
    loss.backward()
    assert s.grad.isfinite().all()
    assert_close(loss.double(), exact, atol=1e-5 if dtype is torch.float32 else 0.2, rtol=0)


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_logits_give_a_finite_loss_and_gradient(settings: Any, dtype: torch.dtype) -> None:
    s = logits(2, 0, scale=1e4, dtype=dtype).requires_grad_()
    loss = settings(s, logits(3, 1, scale=1e4, dtype=dtype), LABELS, s)
    loss.backward()
    assert loss.isfinite()
    assert s.grad.isfinite().all()


@every_loss
def test_batch_without_any_label_is_no_fault(settings: Any) -> None:
    s = logits(2, 0).requires_grad_()
    loss = settings(s, logits(3, 1), torch.full((4,), -1), s)
    loss.backward()
    assert loss.isfinite()
    assert s.grad.isfinite().all()


@every_loss
def test_loss_is_a_mean_so_that_a_batch_twice_over_has_the_same(settings: Any) -> None:
    s, t = logits(2, 0), logits(3, 1)
    twice = settings(s.repeat(1, 2, 1), t.repeat(1, 2, 1), LABELS.repeat(2), s.repeat(1, 2, 1))
    assert_close(twice, settings(s, t, LABELS, s))


@every_loss
def test_order_of_the_images_does_not_matter(settings: Any) -> None:
    order = torch.tensor([2, 0, 3, 1])
    s, t = logits(2, 0), logits(3, 1)
    shuffled = settings(s[:, order], t[:, order], LABELS[order], s[:, order])
    assert_close(shuffled, settings(s, t, LABELS, s))


@all_but(DIRICHLET)
def test_adding_a_constant_to_all_logits_of_an_image_changes_nothing(settings: Any) -> None:
    s, t = logits(2, 0), logits(3, 1)
    shift = torch.tensor([1.0, -2, 3, 0]).view(1, 4, 1)
    assert_close(settings(s + shift, t - shift, LABELS, s + shift), settings(s, t, LABELS, s))


@every_loss
def test_order_of_the_teachers_matters_only_where_each_subnetwork_has_its_own(settings: Any) -> None:
    s, t = logits(3, 0), logits(3, 1)
    loss, shuffled = settings(s, t, LABELS, s), settings(s, t[[2, 0, 1]], LABELS, s)
    assert torch.isclose(loss, shuffled, rtol=1e-9) != (settings.kind in {"one_to_one", "ekd"})


@every_loss
def test_inputs_are_not_written_to(settings: Any) -> None:
    s, t, labels = logits(2, 0), logits(3, 1), LABELS.clone()
    settings(s, t, labels, s)
    assert torch.equal(s, logits(2, 0))
    assert torch.equal(t, logits(3, 1))
    assert torch.equal(labels, LABELS)


@every_loss
def test_same_inputs_give_the_same_loss(settings: Any) -> None:
    losses = [settings(logits(2, 0), logits(3, 1), LABELS, logits(2, 2)) for _ in range(2)]
    assert losses[0] == losses[1]
