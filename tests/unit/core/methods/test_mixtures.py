"""Mixup and cutmix agree with loops over images and pixels; their label term agrees with the mixed cross-entropy."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from ensdistill.data import DataSplits
from ensdistill.methods.losses import Labels
from ensdistill.methods.members import TeacherEnsemble
from ensdistill.methods.perturbations import CutMix, Gaussian, MixUp
from ensdistill.methods.students import Single
from ensdistill.methods.students.base import Student
from ensdistill.models import build
from ensdistill.training.step import StepContext, distill_step
from tests.unit.core.core_stand_ins import LinearMembers, streams, tiny_config

NOBODY = LinearMembers()  # mixtures depend only on images


def pictures(count: int = 12, shape: tuple[int, ...] = (3, 8, 6)) -> Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(0))


def drawn(count: int, alpha: float, seed: int) -> tuple[Tensor, float, torch.Generator]:
    """Returns the partner of each image and lambda, drawn as in the perturbations, and the generator afterwards."""
    generator = streams(seed).host
    partners = torch.randperm(count, generator=generator)
    number = int(torch.randint(2**63 - 1, (), generator=generator))
    return partners, float(np.random.default_rng(number).beta(alpha, alpha)), generator


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("alpha", [0.2, 1.0, 8.0])
def test_mixup_gives_the_same_images_as_a_loop_over_the_images(alpha: float, seed: int) -> None:
    x = pictures()
    partners, share, _ = drawn(len(x), alpha, seed)
    expected = [share * x[b] + (1 - share) * x[int(partners[b])] for b in range(len(x))]
    assert_close(MixUp(alpha=alpha)(x, NOBODY, NOBODY, streams(seed)), torch.stack(expected))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("shape", [(3, 8, 6), (1, 5, 9)], ids=str)
def test_cutmix_gives_the_same_images_as_a_loop_over_the_pixels(shape: tuple[int, ...], seed: int) -> None:
    x = pictures(4, shape)
    partners, share, generator = drawn(4, 1.0, seed)
    height, width = shape[1:]
    sides = [int(length * (1 - share) ** 0.5) for length in (height, width)]
    row, column = (int(torch.randint(length, (), generator=generator)) for length in (height, width))
    expected, kept = x.clone(), 0
    for b in range(4):
        for y in range(height):
            for z in range(width):
                inside = 0 <= y - row + sides[0] // 2 < sides[0] and 0 <= z - column + sides[1] // 2 < sides[1]
                kept += not inside
                if inside:
                    expected[b, :, y, z] = x[partners[b], :, y, z]
    labels = torch.arange(4)
    shown, mixed = CutMix().with_labels(x, labels, NOBODY, NOBODY, streams(seed))
    assert torch.equal(shown, expected)
    assert [one for one, _ in mixed] == pytest.approx([kept / (4 * height * width), 1 - kept / (4 * height * width)])
    assert torch.equal(mixed[1][1], labels[partners])


@pytest.mark.parametrize("alpha", [0.3, 1.0, 4.0])
def test_the_shares_of_mixed_images_follow_the_beta_distribution(alpha: float) -> None:
    x, labels = pictures(2, (1, 1, 1)), torch.arange(2)
    shares = [MixUp(alpha=alpha).with_labels(x, labels, NOBODY, NOBODY, streams(n))[1][0][0] for n in range(400)]
    assert kstest(shares, "beta", (alpha, alpha)).pvalue > 0.01


def test_successive_batches_are_mixed_with_different_shares_and_partners() -> None:
    x, source = pictures(), streams()
    first, second = (MixUp()(x, NOBODY, NOBODY, source) for _ in range(2))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("piece", [MixUp(label_images="clean"), CutMix(label_images="clean"), Gaussian()])
def test_clean_images_keep_their_labels(piece: Any) -> None:
    labels = torch.arange(12)
    _, ((share, own),) = piece.with_labels(pictures(), labels, NOBODY, NOBODY, streams())
    assert share == 1
    assert own is labels


def test_images_are_mixed_in_the_same_way_with_and_without_labels() -> None:
    for piece in (MixUp(), CutMix()):
        shown, _ = piece.with_labels(pictures(), torch.arange(12), NOBODY, NOBODY, streams(3))
        assert torch.equal(shown, piece(pictures(), NOBODY, NOBODY, streams(3)))


# --- in a step ---


def one_step(piece: Any, digits: DataSplits, labels: Tensor | None = None) -> tuple[float, Student, Tensor, Tensor]:
    """Returns the loss of a step with only the label term, the student before the step, the images and the labels."""
    config = tiny_config().model_copy(update={"perturbation": piece, "loss": Labels(), "student": Single()})
    student, before = (config.student(build(config.model, digits, 0)).train() for _ in range(2))
    images, own = digits.train[slice(0, 10)]
    own = own if labels is None else labels
    optimizer = config.training.new_optimizer(student)
    context = StepContext(config, student, optimizer, config.averaging(student), streams(2))
    loss = distill_step(context, TeacherEnsemble([], 10, "none"), images, own, 0.5)
    return float(loss), before, images, own


@pytest.mark.parametrize("piece", [MixUp(), CutMix()])
def test_the_label_term_equals_the_cross_entropy_with_mixed_targets(piece: Any, digits: DataSplits) -> None:
    loss, student, images, labels = one_step(piece, digits)
    shown, ((share, own), (rest, others)) = piece.with_labels(images, labels, NOBODY, NOBODY, streams(2))
    targets = share * F.one_hot(own, 10) + rest * F.one_hot(others, 10)
    assert 0 < share < 1
    assert loss == pytest.approx(float(F.cross_entropy(student(shown)[0], targets).detach()), rel=1e-5)


def test_the_label_term_on_clean_images_equals_the_plain_cross_entropy(digits: DataSplits) -> None:
    loss, student, images, labels = one_step(MixUp(label_images="clean"), digits)
    assert loss == pytest.approx(float(F.cross_entropy(student(images)[0], labels).detach()), rel=1e-5)


def test_the_label_term_omits_the_shares_of_unlabeled_images(digits: DataSplits) -> None:
    labels = torch.tensor([3, -1, 5, 2, -1, -1, 0, 1, 9, -1])
    loss, student, images, _ = one_step(MixUp(), digits, labels)
    shown, mixed = MixUp().with_labels(images, labels, NOBODY, NOBODY, streams(2))
    log_q, expected = student(shown)[0].log_softmax(-1).detach(), 0.0
    for share, own in mixed:
        expected -= share * sum(float(log_q[b, own[b]]) for b in range(10) if own[b] >= 0) / 6
    assert loss == pytest.approx(expected, rel=1e-5)
