"""Contract for perturbations: they preserve the shape, type and range of images and have no side effects."""

import copy
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from ensdistill.methods.students import BatchEnsemble, Single
from ensdistill.testing.contract import Contract
from ensdistill.testing.toy import streams, toy_data, toy_ensemble, toy_student

DATA = toy_data()
ENSEMBLE = toy_ensemble(DATA)


def student(subnetworks: int = 2) -> Any:
    """Returns a new student."""
    return toy_student(BatchEnsemble(subnetworks=subnetworks), DATA)


def images() -> Tensor:
    """Returns six images of shape (6,1,8,8) with values in [0,1]."""
    return DATA.train[slice(0, 6)][0]


class PerturbationContract(Contract):
    """Tests for perturbations.

    Attributes:
        without_chance: Perturbation classes that draw no random numbers.
    """

    without_chance: ClassVar[tuple[type, ...]] = ()

    @pytest.mark.parametrize("teachers", [2, 3])
    @pytest.mark.parametrize("subnetworks", [1, 2, 3, 4])
    def test_shape_type_and_range_are_preserved(self, piece: Any, teachers: int, subnetworks: int) -> None:
        shown = piece(images(), toy_ensemble(DATA, teachers), student(subnetworks), streams())
        assert shown.shape == images().shape
        assert shown.dtype == images().dtype
        assert shown.isfinite().all()
        assert shown.min() >= 0
        assert shown.max() <= 1

    def test_student_without_subnetworks_is_supported(self, piece: Any) -> None:
        shown = piece(images(), ENSEMBLE, toy_student(Single(), DATA), streams())
        assert shown.isfinite().all()

    @pytest.mark.parametrize("value", [0.0, 1.0])
    def test_black_and_white_images_stay_in_range(self, piece: Any, value: float) -> None:
        shown = piece(torch.full((3, 1, 8, 8), value), ENSEMBLE, student(), streams())
        assert shown.isfinite().all()
        assert 0 <= shown.min() <= shown.max() <= 1

    def test_perturbed_images_are_detached(self, piece: Any) -> None:
        shown = piece(images(), ENSEMBLE, student(), streams())
        assert not shown.requires_grad
        assert shown.grad_fn is None

    def test_same_seed_gives_the_same_images(self, piece: Any) -> None:
        first, second = (piece(images(), ENSEMBLE, student(), streams(3)) for _ in range(2))
        assert torch.equal(first, second)

    def test_different_seeds_give_different_images(self, piece: Any) -> None:
        shown = [piece(images(), ENSEMBLE, student(), streams(seed)) for seed in range(5)]
        different = any(not torch.equal(shown[0], other) for other in shown[1:])
        assert different != isinstance(piece, self.without_chance)

    def test_global_random_state_is_unchanged(self, piece: Any) -> None:
        before = torch.get_rng_state()
        piece(images(), ENSEMBLE, student(), streams())
        assert torch.equal(torch.get_rng_state(), before)

    def test_input_images_are_not_modified(self, piece: Any) -> None:
        x = images()
        piece(x, ENSEMBLE, student(), streams())
        assert torch.equal(x, images())

    @pytest.mark.parametrize("training", [True, False])
    def test_student_and_teachers_are_unchanged(self, piece: Any, training: bool) -> None:
        pupil = student().train(training)
        before = copy.deepcopy(pupil.state_dict())
        piece(images(), ENSEMBLE, pupil, streams())
        assert all(torch.equal(before[name], tensor) for name, tensor in pupil.state_dict().items())
        assert all(module.training == training for module in pupil.modules())
        assert all(p.grad is None for p in [*pupil.parameters(), *ENSEMBLE.parameters()])

    def test_float64_and_float32_give_nearly_equal_images(self, piece: Any) -> None:
        single = piece(images(), ENSEMBLE, student(), streams())
        teachers, pupil = copy.deepcopy(ENSEMBLE).double(), student().double()
        double = piece(images().double(), teachers, pupil, streams())
        assert double.dtype == torch.float64
        assert_close(single.double(), double, atol=1e-4, rtol=0)

    def test_type_and_range_of_bfloat16_images_are_preserved(self, piece: Any) -> None:
        teachers, pupil = copy.deepcopy(ENSEMBLE).bfloat16(), student().bfloat16()
        shown = piece(images().bfloat16(), teachers, pupil, streams())
        assert shown.dtype == torch.bfloat16
        assert shown.isfinite().all()
        assert 0 <= shown.min() <= shown.max() <= 1

    def test_label_shares_add_up_to_one(self, piece: Any) -> None:
        labels = torch.arange(6)
        shown, mixed = piece.with_labels(images(), labels, ENSEMBLE, student(), streams(3))
        assert torch.equal(shown, piece(images(), ENSEMBLE, student(), streams(3)))
        assert sum(share for share, _ in mixed) == pytest.approx(1)
        assert all(own.shape == labels.shape and own.dtype == labels.dtype for _, own in mixed)

    def test_label_images_is_clean_or_perturbed(self, piece: Any) -> None:
        assert piece.label_images in ("clean", "perturbed")
