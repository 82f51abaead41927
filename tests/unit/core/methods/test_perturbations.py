"""Perturbations agree with the hand-computed values of METHODS L4 and change nothing but the images."""

import copy
import math
from collections.abc import Sequence

import pytest
import torch
from scipy.stats import kstest
from torch import Tensor, nn
from torch.testing import assert_close

from ensdistill.data import DataSplits
from ensdistill.methods.assignment import sample_pair
from ensdistill.methods.members import TeacherEnsemble
from ensdistill.methods.perturbations import ConfOds, Gaussian, NoPerturbation, Ods, TDivSDiv
from ensdistill.methods.students import Single
from ensdistill.methods.students.base import Student
from ensdistill.models import build
from ensdistill.models.normalization import Normalize
from tests.unit.core.core_stand_ins import LinearMembers, random_ensemble, streams, tiny_config


def hand(value: Sequence) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


A = hand([[1, 0], [0, 0]]), hand([[0, 0], [0, 1]])
TEACHERS = LinearMembers(*A)
STUDENT = LinearMembers(A[0] / 2, A[1] / 4)
X = hand([0.6, 0.3]).view(1, 1, 1, 2)


@pytest.fixture
def student(digits: DataSplits) -> Student:
    """A student with two different subnetworks, in training mode."""
    config = tiny_config("student.subnetworks=2", preset="latentbe")
    student = config.student(build(config.model, digits, 0))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in student.named_parameters():
            if name.endswith((".r", ".s")):
                p.uniform_(-0.3, 0.3, generator=generator)
    return student.train()


def gray(images: int = 8) -> Tensor:
    """Returns images far from black and white, so that nothing is clipped."""
    return 0.3 + 0.4 * torch.rand(images, 1, 8, 8, generator=torch.Generator().manual_seed(0))


# --- L4 ---


@pytest.mark.parametrize(("pair", "g"), [((0, 1), [0.173507, 0]), ((1, 0), [0, 0.196803])])
def test_the_direction_equals_the_hand_computed_value(pair: tuple[int, int], g: Sequence) -> None:
    direction = TDivSDiv.direction(X, TEACHERS, STUDENT, pair, pair)
    assert_close(direction.flatten(), hand(g), atol=1e-5, rtol=0)


@pytest.mark.parametrize("seed", range(6))
def test_the_perturbed_image_equals_the_hand_computed_value_for_the_drawn_pair(seed: int) -> None:
    pair, _ = sample_pair(2, 2, streams(seed).host)
    expected = {(0, 1): [0.605546, 0.3], (1, 0): [0.6, 0.305546]}[pair]
    shown = TDivSDiv()(X, TEACHERS, STUDENT, streams(seed))
    assert_close(shown.flatten(), hand(expected), atol=1e-5, rtol=0)


def test_both_orders_of_a_pair_are_drawn() -> None:
    assert {sample_pair(2, 2, streams(seed).host)[0] for seed in range(6)} == {(0, 1), (1, 0)}


def test_the_direction_for_linear_members_matches_the_closed_form_solution() -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(3, 4, 6, generator=generator, dtype=torch.float64)
    b = torch.randn(3, 4, 6, generator=generator, dtype=torch.float64)
    x = torch.rand(5, 1, 2, 3, generator=generator, dtype=torch.float64)
    p, q = [torch.einsum("mcd,bd->mbc", maps, x.flatten(1)).softmax(-1) for maps in (a, b)]
    i, j, k, m = 2, 0, 1, 2
    expected = (p[i] - p[j]) @ a[i] - (q[k] - q[m]) @ b[k]
    direction = TDivSDiv.direction(x, LinearMembers(*a), LinearMembers(*b), (i, j), (k, m))
    assert_close(direction.flatten(1), expected)


def test_with_one_subnetwork_only_the_teacher_term_of_the_direction_remains() -> None:
    single = LinearMembers(hand([[3.0, 1], [-2, 5]]))
    p = torch.stack([X.flatten(1) @ a.T for a in A]).softmax(-1)
    direction = TDivSDiv.direction(X, TEACHERS, single, (0, 1), (0, 0))
    assert_close(direction.flatten(1), (p[0] - p[1]) @ A[0], atol=1e-12, rtol=0)


# --- the step ---


@pytest.mark.parametrize("step_size", [1 / 255, 0.01])
def test_the_step_length_is_root_d_times_eta_if_no_pixel_is_clipped(
    student: Student, digits: DataSplits, step_size: float
) -> None:
    shown = TDivSDiv(step_size=step_size)(gray(), random_ensemble(digits), student, streams())
    assert 0 < shown.min() < shown.max() < 1
    lengths = (shown - gray()).flatten(1).norm(dim=1)
    assert_close(lengths, torch.full((8,), math.sqrt(64) * step_size), atol=1e-5, rtol=0)


def test_the_step_of_an_image_does_not_depend_on_other_images(student: Student, digits: DataSplits) -> None:
    together = TDivSDiv()(gray(), random_ensemble(digits), student, streams())
    alone = TDivSDiv()(gray()[2:3], random_ensemble(digits), student, streams())
    assert_close(together[2:3], alone)


def test_pixels_of_perturbed_images_are_clipped_to_the_image_range(student: Student, digits: DataSplits) -> None:
    x = gray().round()
    for piece in (TDivSDiv(step_size=1.0), Gaussian(step_size=1.0)):
        shown = piece(x, random_ensemble(digits), student, streams())
        assert shown.min() == 0
        assert shown.max() == 1


def test_an_image_is_unchanged_if_all_teachers_agree_and_all_subnetworks_agree(digits: DataSplits) -> None:
    config = tiny_config("student.subnetworks=2", preset="latentbe")
    network = build(config.model, digits, 0)
    twins = TeacherEnsemble([network, copy.deepcopy(network)], 10, "twins")
    equal = config.student(build(config.model, digits, 1))
    assert torch.equal(TDivSDiv()(gray(), twins, equal, streams()), gray())


def test_an_image_with_a_zero_direction_is_unchanged() -> None:
    blind = LinearMembers(torch.zeros(2, 2).double(), torch.zeros(2, 2).double())
    assert torch.equal(TDivSDiv()(X, blind, blind, streams()), X)


def test_with_step_size_zero_the_images_are_unchanged(student: Student, digits: DataSplits) -> None:
    for piece in (TDivSDiv(step_size=0.0), Gaussian(step_size=0.0), NoPerturbation()):
        assert torch.equal(piece(gray(), random_ensemble(digits), student, streams()), gray())


# --- what a step does not change ---


def _without_student_changes(student: Student, digits: DataSplits) -> None:
    before = copy.deepcopy(student.state_dict())
    modes = [module.training for module in student.modules()]
    TDivSDiv()(gray(), random_ensemble(digits), student, streams())
    assert all(torch.equal(before[name], tensor) for name, tensor in student.state_dict().items())
    assert [module.training for module in student.modules()] == modes


@pytest.mark.parametrize("training", [True, False])
def test_a_perturbation_does_not_change_the_weights_or_batchnorm_statistics_or_mode_of_the_student(
    student: Student, digits: DataSplits, training: bool
) -> None:
    _without_student_changes(student.train(training), digits)


def test_student_and_teachers_receive_no_gradient(student: Student, digits: DataSplits) -> None:
    ensemble = random_ensemble(digits)
    TDivSDiv()(gray(), ensemble, student, streams())
    assert all(p.grad is None for p in [*student.parameters(), *ensemble.parameters()])


def test_existing_gradients_of_the_student_are_kept(student: Student, digits: DataSplits) -> None:
    for p in student.parameters():
        p.grad = torch.ones_like(p)
    TDivSDiv()(gray(), random_ensemble(digits), student, streams())
    assert all(torch.equal(p.grad, torch.ones_like(p)) for p in student.parameters())


def test_input_images_are_not_modified(student: Student, digits: DataSplits) -> None:
    x = gray()
    shown = TDivSDiv()(x, random_ensemble(digits), student, streams())
    assert torch.equal(x, gray())
    assert not x.requires_grad
    assert not shown.requires_grad


def test_perturbed_images_are_the_same_in_training_and_evaluation_mode(student: Student, digits: DataSplits) -> None:
    in_training = TDivSDiv()(gray(), random_ensemble(digits), student.train(), streams())
    in_evaluation = TDivSDiv()(gray(), random_ensemble(digits), student.eval(), streams())
    assert torch.equal(in_training, in_evaluation)


def test_a_step_works_with_gradients_disabled(student: Student, digits: DataSplits) -> None:
    with torch.no_grad():
        shown = TDivSDiv()(gray(), random_ensemble(digits), student, streams())
    assert torch.equal(shown, TDivSDiv()(gray(), random_ensemble(digits), student, streams()))


# --- networks that normalize their inputs ---


def test_a_step_through_a_normalizing_network_agrees_with_the_chain_rule() -> None:
    # f(x) = A (x - mean) / std with two channels of two pixels: dx = (A_i / std)^T (p_i - p_j), per channel.
    generator = torch.Generator().manual_seed(0)
    mean, std = hand([0.5, 0.4]), hand([0.25, 0.1])
    a = [torch.randn(3, 4, generator=generator, dtype=torch.float64) for _ in range(2)]
    x = 0.4 + 0.2 * torch.rand(6, 2, 1, 2, generator=generator, dtype=torch.float64)

    def normalizing(matrix: Tensor) -> nn.Module:
        linear = nn.Linear(4, 3, bias=False).double()
        linear.weight = nn.Parameter(matrix.clone())
        return nn.Sequential(Normalize(mean, std), nn.Flatten(), linear)

    teachers = TeacherEnsemble([normalizing(matrix) for matrix in a], 3, "normalizing")
    student = Single()(normalizing(a[0]))
    shown = TDivSDiv()(x, teachers, student, streams(1))

    (i, j), _ = sample_pair(2, 1, streams(1).host)
    pixel_mean, pixel_std = mean.repeat_interleave(2), std.repeat_interleave(2)
    inside = (x.flatten(1) - pixel_mean) / pixel_std
    p = [(inside @ matrix.T).softmax(-1) for matrix in a]
    g = (p[i] - p[j]) @ a[i] / pixel_std
    expected = x.flatten(1) + math.sqrt(4) / 255 * g / g.norm(dim=1, keepdim=True)
    assert_close(shown.flatten(1), expected)


# --- gaussian noise and none ---


def test_gaussian_noise_is_normally_distributed_with_the_step_size_as_standard_deviation() -> None:
    x = torch.full((100, 1, 20, 20), 0.5)
    noise = (Gaussian(step_size=0.05)(x, TEACHERS, STUDENT, streams()) - x).flatten().double()
    assert kstest((noise / 0.05).numpy(), "norm").pvalue > 0.01
    assert float(noise.std()) == pytest.approx(0.05, rel=0.02)


def test_gaussian_noise_differs_between_images_and_between_calls() -> None:
    x = torch.full((2, 1, 4, 4), 0.5)
    stream = streams()
    first, second = (Gaussian()(x, TEACHERS, STUDENT, stream) for _ in range(2))
    assert not torch.equal(first, second)
    assert not torch.equal(first[0], first[1])


def test_without_perturbation_the_same_object_is_returned() -> None:
    x = gray()
    assert NoPerturbation()(x, TEACHERS, STUDENT, streams()) is x


# --- O1 ---

A_O1 = hand([[1, -1], [0, 1], [-1, 0]])
W_O1 = hand([[0.5, -1, 0.25]])


@pytest.mark.parametrize(
    ("piece", "expected"), [(Ods(), [0.601743, 0.294735]), (ConfOds(), [0.600724, 0.297812])], ids=["ods", "conf_ods"]
)
def test_output_diversified_sampling_returns_the_hand_computed_image(
    piece: Ods, expected: Sequence, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "rand", lambda *shape, **named: (W_O1 + 1) / 2)
    assert_close(piece(X, LinearMembers(A_O1), STUDENT, streams()).flatten(), hand(expected), atol=1e-6, rtol=0)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_direction_of_diversified_sampling_for_linear_teachers_matches_the_closed_form_solution(
    temperature: float,
) -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(3, 4, 6, generator=generator, dtype=torch.float64)
    x = 0.4 + 0.2 * torch.rand(5, 1, 2, 3, generator=generator, dtype=torch.float64)
    shown = Ods(temperature=temperature)(x, LinearMembers(*maps), STUDENT, streams(7))
    same = streams(7)
    teacher = maps[int(torch.randint(3, (), generator=same.host))]
    w = torch.rand(5, 4, generator=same.device).double() * 2 - 1
    y = (x.flatten(1) @ teacher.T / temperature).softmax(-1)
    g = (y * w - y * (y * w).sum(-1, keepdim=True)) @ teacher / temperature
    expected = x.flatten(1) + math.sqrt(6) / 255 * g / g.norm(dim=1, keepdim=True)
    assert_close(shown.flatten(1), expected)


def test_confods_step_lengths_are_ods_step_lengths_times_the_confidence_of_the_teacher(digits: DataSplits) -> None:
    teachers = random_ensemble(digits)
    x = gray()
    plain, confident = (piece(x, teachers, teachers, streams(3)) - x for piece in (Ods(), ConfOds()))
    teacher = int(torch.randint(len(teachers), (), generator=streams(3).host))
    confidence = teachers(x, [teacher])[0].softmax(-1).amax(-1)
    assert_close(plain.flatten(1).norm(dim=1), torch.full((8,), 8 / 255), rtol=1e-4, atol=0)
    assert_close(confident.flatten(1).norm(dim=1) / plain.flatten(1).norm(dim=1), confidence, rtol=1e-3, atol=0)


def test_every_teacher_is_chosen_about_equally_often(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []

    class Watched(LinearMembers):
        def forward(self, x: Tensor, members: Sequence[int] | None = None) -> Tensor:
            chosen.extend(members or [])
            return super().forward(x, members)

    stream = streams()
    for _ in range(300):
        Ods()(X, Watched(*[A_O1] * 3), STUDENT, stream)
    assert all(70 < chosen.count(teacher) < 130 for teacher in range(3))
