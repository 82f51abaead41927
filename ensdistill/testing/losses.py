"""Contract for losses: a finite scalar, differentiable in the student's logits, for any labels and member counts."""

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from ensdistill.testing.contract import Contract

SIZES = [(1, 3), (3, 2)]  # (subnetworks, teachers): first fewer, then more subnetworks than teachers
OTHER_SIZES = [(1, 1), (2, 3), (3, 3), (4, 1)]
every_size = pytest.mark.parametrize(("subnetworks", "teachers"), [*SIZES, *OTHER_SIZES])
two_sizes = pytest.mark.parametrize(("subnetworks", "teachers"), SIZES)
LABELS = torch.tensor([0, 4, -1, 2])


def logits(members: int, seed: int, scale: float = 2.0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Returns random logits of shape (members,4,5) with standard deviation `scale`."""
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(members, 4, 5, generator=generator, dtype=torch.float64)).to(dtype)


def gradient(tensor: Tensor) -> Tensor:
    """Returns the gradient of a tensor; fails if the tensor has no gradient."""
    assert tensor.grad is not None
    return tensor.grad


class LossContract(Contract):
    """Tests for losses.

    Attributes:
        constant_weights: Loss classes that treat their weights as constants in the gradient, so that the gradient
            differs from finite differences.
        densities: Loss classes whose values can be negative and do not depend only on differences between logits.
        pairs: Loss classes that assign a separate teacher to each subnetwork, so that the order of teachers matters.
    """

    constant_weights: ClassVar[tuple[type, ...]] = ()
    densities: ClassVar[tuple[type, ...]] = ()
    pairs: ClassVar[tuple[type, ...]] = ()

    @every_size
    def test_loss_is_a_finite_scalar(self, piece: Any, subnetworks: int, teachers: int) -> None:
        s = logits(subnetworks, 0)
        loss = piece(s, logits(teachers, 1), LABELS, s)
        assert loss.shape == ()
        assert loss.isfinite()
        assert loss > 0 or isinstance(piece, self.densities)

    def test_student_head_depends_only_on_the_kind_of_loss(self, piece: Any) -> None:
        # The head is built once, but every setting except the kind can change during training (see `schedule.py`).
        assert repr(piece.head()) == repr(type(piece)().head())

    @two_sizes
    def test_gradient_equals_finite_differences(self, piece: Any, subnetworks: int, teachers: int) -> None:
        if isinstance(piece, self.constant_weights):
            pytest.skip("the loss treats its weights as constants in the gradient")
        s, on_labels = logits(subnetworks, 0).requires_grad_(), logits(subnetworks, 2).requires_grad_()
        t = logits(teachers, 1)
        assert torch.autograd.gradcheck(lambda a, b: piece(a, t, LABELS, b), (s, on_labels))

    def test_gradient_reaches_every_subnetwork(self, piece: Any) -> None:
        s = logits(3, 0).requires_grad_()
        piece(s, logits(3, 1), LABELS, s).backward()
        assert gradient(s).isfinite().all()
        assert gradient(s).flatten(1).any(1).all()

    def test_small_step_against_the_gradient_lowers_the_loss(self, piece: Any) -> None:
        s, t = logits(2, 0).requires_grad_(), logits(3, 1)
        before = piece(s, t, LABELS, s)
        before.backward()
        moved = (s - 0.01 * gradient(s)).detach()
        assert piece(moved, t, LABELS, moved) < before

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_lower_precision_gives_nearly_the_same_loss(self, piece: Any, dtype: torch.dtype) -> None:
        exact = piece(logits(2, 0), logits(3, 1), LABELS, logits(2, 0))
        s = logits(2, 0, dtype=dtype).requires_grad_()
        loss = piece(s, logits(3, 1, dtype=dtype), LABELS, s)
        loss.backward()
        assert gradient(s).isfinite().all()
        assert_close(loss.double(), exact, atol=1e-5 if dtype is torch.float32 else 0.2, rtol=0)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_extreme_logits_give_a_finite_loss_and_gradient(self, piece: Any, dtype: torch.dtype) -> None:
        s = logits(2, 0, scale=1e4, dtype=dtype).requires_grad_()
        loss = piece(s, logits(3, 1, scale=1e4, dtype=dtype), LABELS, s)
        loss.backward()
        assert loss.isfinite()
        assert gradient(s).isfinite().all()

    def test_batch_without_labels_has_a_finite_loss_and_gradient(self, piece: Any) -> None:
        s = logits(2, 0).requires_grad_()
        loss = piece(s, logits(3, 1), torch.full((4,), -1), s)
        loss.backward()
        assert loss.isfinite()
        assert gradient(s).isfinite().all()

    def test_loss_is_a_mean_over_images(self, piece: Any) -> None:
        s, t = logits(2, 0), logits(3, 1)
        twice = piece(s.repeat(1, 2, 1), t.repeat(1, 2, 1), LABELS.repeat(2), s.repeat(1, 2, 1))
        assert_close(twice, piece(s, t, LABELS, s))

    def test_order_of_the_images_does_not_matter(self, piece: Any) -> None:
        order = torch.tensor([2, 0, 3, 1])
        s, t = logits(2, 0), logits(3, 1)
        shuffled = piece(s[:, order], t[:, order], LABELS[order], s[:, order])
        assert_close(shuffled, piece(s, t, LABELS, s))

    def test_adding_a_constant_to_all_logits_of_an_image_does_not_change_the_loss(self, piece: Any) -> None:
        if isinstance(piece, self.densities):
            pytest.skip("the loss depends on more than the differences between logits")
        s, t = logits(2, 0), logits(3, 1)
        shift = torch.tensor([1.0, -2, 3, 0]).view(1, 4, 1)
        assert_close(piece(s + shift, t - shift, LABELS, s + shift), piece(s, t, LABELS, s))

    def test_order_of_teachers_matters_only_if_subnetworks_have_separate_teachers(self, piece: Any) -> None:
        s, t = logits(3, 0), logits(3, 1)
        loss, shuffled = piece(s, t, LABELS, s), piece(s, t[[2, 0, 1]], LABELS, s)
        assert torch.isclose(loss, shuffled, rtol=1e-9) != isinstance(piece, self.pairs)

    def test_inputs_are_not_modified(self, piece: Any) -> None:
        s, t, labels = logits(2, 0), logits(3, 1), LABELS.clone()
        piece(s, t, labels, s)
        assert torch.equal(s, logits(2, 0))
        assert torch.equal(t, logits(3, 1))
        assert torch.equal(labels, LABELS)

    def test_same_inputs_give_the_same_loss(self, piece: Any) -> None:
        losses = [piece(logits(2, 0), logits(3, 1), LABELS, logits(2, 2)) for _ in range(2)]
        assert losses[0] == losses[1]
