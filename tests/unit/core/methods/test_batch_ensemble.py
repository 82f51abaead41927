"""Rank-one layers agree with hand-computed values (METHODS L1 to L3) and with explicit dense layers W*(s r^T).

r and s are stored as their difference from one; `set_factors` writes the factors themselves.
"""

import copy
import io
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision.models
from torch import Tensor, nn
from torch.testing import assert_close

from ensdistill.config import load_config
from ensdistill.data import DataSplits
from ensdistill.errors import ConfigError
from ensdistill.methods.losses import OneToOne
from ensdistill.methods.optimizers import Sgd
from ensdistill.methods.recipe import Training, set_lr
from ensdistill.methods.students import BatchEnsemble
from ensdistill.methods.students.batch_ensemble_student import BatchEnsembleStudent, RankOne
from ensdistill.models import WideResNet, build
from ensdistill.training.new_student import new_student
from tests.unit.core.core_stand_ins import tiny_config

W = [[1.0, 2.0], [3.0, 4.0]]
R = [[1.2, 0.8], [0.8, 1.2]]
S = [[1.0, 1.5], [1.0, 0.5]]
X = [[1.0, 2.0]]


def hand(value: Sequence) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def set_factors(layer: RankOne, r: Tensor, s: Tensor) -> None:
    with torch.no_grad():
        layer.r.copy_(r - 1)
        layer.s.copy_(s - 1)


def linear_student(
    bias: Sequence | None = None, s: Sequence = S, bias_kind: str = "shared", **settings: str
) -> BatchEnsembleStudent:
    """Returns the student of case L1: one linear layer with two subnetworks."""
    layer = nn.Linear(2, 2, bias=bias is not None).double()
    with torch.no_grad():
        layer.weight.copy_(hand(W))
        if bias is not None:
            layer.bias.copy_(hand(bias))
    student = BatchEnsemble(subnetworks=2, bias=bias_kind, **settings)(layer)
    set_factors(student.network, hand(R), hand(s))
    return student


def randomize(student: BatchEnsembleStudent, seed: int = 0) -> None:
    """Sets random factors and random affine parameters and statistics of BatchNorm."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in student.modules():
            if isinstance(module, RankOne):
                module.r.uniform_(-0.5, 0.5, generator=generator)
                module.s.uniform_(-0.5, 0.5, generator=generator)
            elif isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 2, generator=generator)
                module.bias.uniform_(-1, 1, generator=generator)
                module.running_mean.uniform_(-1, 1, generator=generator)
                module.running_var.uniform_(0.5, 2, generator=generator)


def network() -> nn.Module:
    """Returns two convolutions (the second grouped, both with bias) with BatchNorm, and a classifier with bias."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3, groups=2)]
    return nn.Sequential(*layers, nn.BatchNorm2d(6), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)).double()


def images(count: int = 5) -> Tensor:
    return torch.rand(count, 2, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def explicit(layer: nn.Conv2d | nn.Linear, r: Tensor, s: Tensor) -> nn.Module:
    """Returns the plain layer with weight W[o,i] s[o] r[i], computed in a loop, and bias s*b."""
    layer = copy.deepcopy(layer)
    groups = getattr(layer, "groups", 1)
    outputs, inputs = layer.weight.shape[:2]
    with torch.no_grad():
        for o in range(outputs):
            group = o // (outputs // groups)
            for i in range(inputs):
                layer.weight[o, i] *= s[o] * r[group * inputs + i]
            if layer.bias is not None:
                layer.bias[o] *= s[o]
    return layer


def member(student: BatchEnsembleStudent, factors: Callable[[RankOne], tuple[Tensor, Tensor]]) -> nn.Module:
    """Returns the plain network of the explicit layers with the selected factors."""
    layers = [explicit(m.layer, *factors(m)) if isinstance(m, RankOne) else m for m in student.network]
    return copy.deepcopy(nn.Sequential(*layers)).eval()


# --- L1 ---


def test_subnetwork_outputs_of_a_linear_layer_equal_the_hand_computed_values() -> None:
    assert_close(linear_student()(hand(X)), hand([[[4.4, 15.0]], [[5.6, 6.0]]]))


def test_the_shared_bias_is_multiplied_by_the_output_factors() -> None:
    assert_close(linear_student(bias=[0.1, -0.2])(hand(X)), hand([[[4.5, 14.7]], [[5.7, 5.9]]]))


@pytest.mark.parametrize(
    ("merge", "weight", "output"),
    [("product_of_means", W, [[5.0, 11.0]]), ("mean_of_products", [[1, 2], [3.3, 3.6]], [[5.0, 10.5]])],
)
def test_the_merged_linear_layer_equals_the_hand_computed_value(merge: str, weight: Sequence, output: Sequence) -> None:
    merged = linear_student(merge=merge).merged()
    assert_close(merged.weight.detach(), hand(weight))
    assert_close(merged(hand(X)), hand(output))


def test_a_layer_merged_by_the_mean_of_products_has_the_mean_output_of_the_subnetworks() -> None:
    student = linear_student(bias=[0.1, -0.2], merge="mean_of_products")
    assert_close(student.merged()(hand(X)), student(hand(X)).mean(0))


@pytest.mark.parametrize("merge", ["product_of_means", "mean_of_products"])
def test_the_merged_bias_is_multiplied_by_the_mean_of_s(merge: str) -> None:
    student = linear_student(bias=[0.1, -0.2], s=[[1.2, 1.5], [1, 0.9]], merge=merge)
    assert_close(student.merged().bias.detach(), hand([0.11, -0.24]))


# --- L2 and L3 ---


def test_decay_moves_a_factor_towards_one_by_lambda_times_its_distance_from_one() -> None:
    student = BatchEnsemble(subnetworks=4)(nn.Linear(2, 2).double())
    set_factors(student.network, torch.full((4, 2), 1.2), torch.full((4, 2), 1.0))
    training = Training(optimizer=Sgd(lr=1.0, momentum=0.0, weight_decay=5e-4))
    optimizer = training.new_optimizer(student)
    set_lr(optimizer, 1.0)
    for p in student.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    assert_close(1 + student.network.r.detach(), torch.full((4, 2), 1.2 - 1e-4).double(), atol=1e-7, rtol=0)
    assert_close(1 + student.network.s.detach(), torch.ones(4, 2).double(), atol=1e-12, rtol=0)


FACTOR_GRADIENT = [[-0.631059, 1.262117], [0.068941, -0.137883]]
SHARE_OF_THE_MEAN = [[-0.315529, 0.631059], [0.034471, -0.068941]]
WEIGHT_GRADIENT = [[-0.281059, -0.562117], [0.281059, 0.562117]]


@pytest.mark.parametrize(("factor_gradient", "expected"), [("sum", FACTOR_GRADIENT), ("mean", SHARE_OF_THE_MEAN)])
def test_one_sgd_step_moves_factors_and_weights_by_the_hand_computed_gradients(
    factor_gradient: str, expected: Sequence
) -> None:
    layer = nn.Linear(2, 2, bias=False).double()
    nn.init.eye_(layer.weight)
    student = BatchEnsemble(subnetworks=2, factor_gradient=factor_gradient)(layer)
    optimizer = Training(optimizer=Sgd(lr=1.0, momentum=0.0, weight_decay=0.0)).new_optimizer(student)
    set_lr(optimizer, 1.0)
    teachers = hand([[[0.9, 0.1]], [[0.2, 0.8]]]).log()
    logits = student(hand(X))
    OneToOne(temperature=1.0)(logits, teachers, torch.tensor([-1]), logits).backward()
    optimizer.step()
    assert_close(student.network.r.detach(), -hand(expected), atol=1e-5, rtol=0)
    assert_close(student.network.s.detach(), -hand(expected), atol=1e-5, rtol=0)
    assert_close(layer.weight.detach(), torch.eye(2).double() - hand(WEIGHT_GRADIENT), atol=1e-5, rtol=0)


def test_the_one_to_one_loss_is_the_hand_computed_value_minus_the_target_entropy() -> None:
    layer = nn.Linear(2, 2, bias=False).double()
    nn.init.eye_(layer.weight)
    p = hand([[[0.9, 0.1]], [[0.2, 0.8]]])
    logits = BatchEnsemble(subnetworks=2)(layer)(hand(X))
    loss = OneToOne(temperature=1.0)(logits, p.log(), torch.tensor([-1]), logits)
    entropy = -(p * p.log()).sum(-1).mean()
    assert_close(loss + entropy, torch.tensor(0.863262).double(), atol=1e-5, rtol=0)


# --- every subnetwork equals a plain network ---


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(6, 4),
        nn.Linear(6, 4, bias=False),
        nn.Conv2d(6, 4, 3, padding=1, bias=False),
        nn.Conv2d(6, 4, 3, stride=2),
        nn.Conv2d(6, 4, 3, padding=1, groups=2),
        nn.Conv2d(6, 6, 3, groups=6),
        nn.Conv2d(6, 12, 1, groups=3, bias=False),
        nn.Conv2d(6, 4, 3, padding=2, dilation=2, padding_mode="reflect"),
    ],
    ids=str,
)
def test_each_subnetwork_of_a_layer_equals_the_explicit_layer_with_its_factors(layer: nn.Conv2d | nn.Linear) -> None:
    layer = copy.deepcopy(layer).double()
    shape = (4, 6) if isinstance(layer, nn.Linear) else (4, 6, 8, 8)
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    student = BatchEnsemble(subnetworks=3)(layer)
    randomize(student)
    rank_one = student.network
    outputs = rank_one(x.repeat(3, *[1] * (x.dim() - 1))).unflatten(0, (3, 4))
    for m in range(3):
        assert_close(outputs[m], explicit(layer, 1 + rank_one.r[m], 1 + rank_one.s[m])(x))


@pytest.mark.parametrize("merge", ["product_of_means", "mean_of_products"])
@pytest.mark.parametrize("groups", [1, 2])
def test_the_merged_convolution_equals_the_explicit_layer_or_the_mean_of_explicit_layers(
    merge: str, groups: int
) -> None:
    student = BatchEnsemble(subnetworks=3, merge=merge)(nn.Conv2d(4, 6, 3, groups=groups).double())
    randomize(student)
    layer, r, s = student.network.layer, 1 + student.network.r, 1 + student.network.s
    merged = student.merged()
    if merge == "product_of_means":
        expected = explicit(layer, r.mean(0), s.mean(0)).weight
    else:
        expected = torch.stack([explicit(layer, r[m], s[m]).weight for m in range(3)]).mean(0)
    assert_close(merged.weight.detach(), expected.detach())
    assert_close(merged.bias.detach(), (layer.bias * s.mean(0)).detach())


def test_a_linear_layer_applies_its_factors_along_the_last_axis_of_tokens() -> None:
    layer = nn.Linear(3, 2).double()
    student = BatchEnsemble(subnetworks=2)(layer)
    randomize(student)
    x = torch.rand(4, 5, 3, dtype=torch.float64)
    outputs = student.network(x.repeat(2, 1, 1)).unflatten(0, (2, 4))
    for m in range(2):
        assert_close(outputs[m], explicit(layer, 1 + student.network.r[m], 1 + student.network.s[m])(x))


def test_each_subnetwork_equals_the_plain_network_of_its_explicit_layers() -> None:
    student = BatchEnsemble(subnetworks=3)(network()).eval()
    randomize(student)
    outputs = student(images())
    for m in range(3):
        plain = member(student, lambda layer, m=m: (1 + layer.r[m], 1 + layer.s[m]))
        assert_close(outputs[m], plain(images()))


def test_every_subnetwork_initially_equals_the_plain_network() -> None:
    plain = network().eval()
    student = BatchEnsemble(subnetworks=3)(copy.deepcopy(plain)).eval()
    outputs = student(images())
    for m in range(3):
        assert_close(outputs[m], plain(images()))


def test_in_training_mode_every_subnetwork_initially_equals_the_plain_network() -> None:
    plain = network().train()
    student = BatchEnsemble(subnetworks=3)(copy.deepcopy(plain)).train()
    outputs = student(images())
    for m in range(3):
        assert_close(outputs[m], plain(images()))


def test_batchnorm_in_training_mode_uses_the_statistics_of_all_subnetworks_together() -> None:
    student = BatchEnsemble(subnetworks=2)(nn.Sequential(nn.Conv2d(2, 4, 1).double(), nn.BatchNorm2d(4).double()))
    randomize(student)
    conv, norm = student.network
    x = images()
    before = torch.cat([explicit(conv.layer, 1 + conv.r[m], 1 + conv.s[m])(x) for m in range(2)])
    expected = F.batch_norm(before, None, None, norm.weight, norm.bias, training=True)
    assert_close(student.train().network(x.repeat(2, 1, 1, 1)), expected)


# --- merging complete networks ---


def test_the_merged_network_equals_the_network_with_averaged_factors() -> None:
    student = BatchEnsemble(subnetworks=3)(network()).eval()
    randomize(student)
    plain = member(student, lambda layer: (1 + layer.r.mean(0), 1 + layer.s.mean(0)))
    assert_close(student.merged().eval()(images()), plain(images()))


@pytest.mark.parametrize("merge", ["product_of_means", "mean_of_products"])
def test_the_merged_network_equals_every_subnetwork_if_all_have_the_same_factors(merge: str) -> None:
    student = BatchEnsemble(subnetworks=3, merge=merge)(network()).eval()
    randomize(student)
    with torch.no_grad():
        for layer in student.modules():
            if isinstance(layer, RankOne):
                layer.r.copy_(layer.r[:1].expand_as(layer.r))
                layer.s.copy_(layer.s[:1].expand_as(layer.s))
    merged = student.merged().eval()(images())
    for outputs in student(images()):
        assert_close(outputs, merged)


def test_merging_does_not_change_the_student() -> None:
    student = BatchEnsemble(subnetworks=2)(network()).eval()
    randomize(student)
    before = copy.deepcopy(student.state_dict())
    with torch.no_grad():
        for p in student.merged().parameters():
            p.zero_()
    assert all(torch.equal(before[name], tensor) for name, tensor in student.state_dict().items())
    assert any(isinstance(module, RankOne) for module in student.modules())


def test_the_merged_network_consists_of_plain_layers(digits: DataSplits) -> None:
    config = tiny_config(preset="latentbe")
    plain = build(config.model, digits, 0)
    names = list(plain.state_dict())
    assert list(config.student(plain).merged().state_dict()) == names


# --- selecting members ---


@pytest.mark.parametrize("members", [[0], [1], [0, 1], [1, 0], [1, 1], (1, 0), range(2), range(1, 2), range(1, -1, -1)])
def test_logits_of_selected_members_equal_the_corresponding_slices_of_all_logits(members: Sequence[int]) -> None:
    student = BatchEnsemble(subnetworks=2)(network()).eval()
    randomize(student)
    assert_close(student(images(), members), student(images())[list(members)])


def test_a_member_selection_applies_to_one_call_only() -> None:
    student = BatchEnsemble(subnetworks=3)(network()).eval()
    randomize(student)
    before = student(images())
    student(images(), [2])
    with pytest.raises(RuntimeError):
        student(torch.cat([images(), images()], 1), [1])  # a wrong number of channels
    assert torch.equal(student(images()), before)


# --- copies ---


def test_a_deep_copy_is_independent_and_gives_the_same_logits() -> None:
    student = BatchEnsemble(subnetworks=2)(network()).eval()
    randomize(student)
    before = student(images())
    clone = copy.deepcopy(student)
    assert torch.equal(clone(images()), before)
    assert torch.equal(clone(images(), [1]), student(images(), [1]))
    randomize(clone, seed=9)
    assert torch.equal(student(images()), before)


def test_a_student_with_a_loaded_state_dict_computes_the_same_function() -> None:
    student = BatchEnsemble(subnetworks=2)(network()).eval()
    randomize(student)
    file = io.BytesIO()
    torch.save(student.state_dict(), file)
    file.seek(0)
    other = BatchEnsemble(subnetworks=2)(network()).eval()
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(images()), student(images()))


# --- separate biases: one per subnetwork, added after the output factors ---


def with_own_biases(biases: Sequence, **settings: str) -> BatchEnsembleStudent:
    """Returns case L1 with these biases, one row per subnetwork."""
    student = linear_student(bias=[0.0, 0.0], bias_kind="per_member", **settings)
    with torch.no_grad():
        student.network.bias.copy_(hand(biases))
    return student


def test_a_separate_bias_is_not_multiplied_by_the_output_factors() -> None:
    assert_close(with_own_biases([[0.1, -0.2]] * 2)(hand(X)), hand([[[4.5, 14.8]], [[5.7, 5.8]]]))


def test_each_subnetwork_adds_a_separate_bias() -> None:
    student = with_own_biases([[0.1, -0.2], [1, 2]])
    assert_close(student(hand(X)), hand([[[4.5, 14.8]], [[6.6, 8.0]]]))
    assert_close(student(hand(X), [1]), hand([[[6.6, 8.0]]]))


@pytest.mark.parametrize("merge", ["product_of_means", "mean_of_products"])
def test_merging_averages_separate_biases(merge: str) -> None:
    merged = with_own_biases([[0.1, -0.2], [0.3, 0.6]], merge=merge).merged()
    assert_close(merged.bias.detach(), hand([0.2, 0.2]))
    assert_close(merged(hand(X)), hand([[5.2, 11.2 if merge == "product_of_means" else 10.7]]))


def test_with_separate_biases_merging_by_the_mean_of_products_gives_the_mean_of_the_subnetworks() -> None:
    student = with_own_biases([[0.1, -0.2], [0.3, 0.6]], merge="mean_of_products")
    assert_close(student.merged()(hand(X)), student(hand(X)).mean(0))


def test_separate_biases_start_as_copies_of_the_bias_of_the_layer() -> None:
    student = linear_student(bias=[0.1, -0.2], bias_kind="per_member")
    assert_close(student.network.bias.detach(), hand([[0.1, -0.2]] * 2))
    assert student.network.layer.bias is None


def test_a_layer_without_a_bias_gets_no_separate_biases() -> None:
    assert linear_student(bias_kind="per_member").network.bias is None


def test_a_frozen_separate_bias_stays_frozen_in_the_merged_layer() -> None:
    layer = nn.Linear(2, 3)
    layer.bias.requires_grad_(False)
    student = BatchEnsemble(subnetworks=2, bias="per_member")(layer)
    merged = student.network.merged("mean_of_products")
    assert (merged.bias.requires_grad, merged.weight.requires_grad) == (False, True)


@pytest.mark.parametrize("groups", [1, 2])
def test_separate_biases_of_a_convolution_are_added_per_channel(groups: int) -> None:
    layer = nn.Conv2d(2, 4, 3, groups=groups).double()
    plain = copy.deepcopy(layer)
    student = BatchEnsemble(subnetworks=2, bias="per_member")(layer)
    randomize(student)
    rank_one = student.network
    with torch.no_grad():
        rank_one.bias.copy_(torch.arange(8.0).view(2, 4))
        plain.bias.zero_()
    outputs = rank_one(images().repeat(2, 1, 1, 1)).unflatten(0, (2, 5))
    for m in range(2):
        expected = explicit(plain, 1 + rank_one.r[m], 1 + rank_one.s[m])(images())
        assert_close(outputs[m], expected + torch.arange(4 * m, 4 * m + 4.0).view(1, 4, 1, 1).double())


# --- random factors ---


def all_factors(settings: BatchEnsemble, seed: int = 0) -> Tensor:
    """Returns r and s of one wide layer as factors: (K, 2 * 2000)."""
    torch.manual_seed(seed)
    layer = settings(nn.Linear(2000, 2000, bias=False)).network
    return 1 + torch.cat([layer.r, layer.s], 1).detach()


@pytest.mark.parametrize("std", [0.5, 0.1, 0.0])
def test_normally_distributed_factors_have_mean_one_and_the_given_standard_deviation(std: float) -> None:
    factors = all_factors(BatchEnsemble(subnetworks=4, factor_init="normal", factor_std=std))
    assert factors.mean().item() == pytest.approx(1, abs=5 * std / 16_000**0.5 + 1e-7)
    assert factors.std().item() == pytest.approx(std, rel=0.03, abs=1e-7)
    standard = (factors - 1) / max(std, 1e-9)
    if std:
        assert (standard.abs() < 1.96).float().mean().item() == pytest.approx(0.95, abs=0.01)
        assert standard.pow(3).mean().item() == pytest.approx(0, abs=0.1)


def test_random_sign_factors_are_one_or_minus_one_with_equal_probability() -> None:
    factors = all_factors(BatchEnsemble(subnetworks=4, factor_init="random_sign"))
    assert set(factors.unique().tolist()) == {-1.0, 1.0}
    assert factors.mean().item() == pytest.approx(0, abs=5 / 16_000**0.5)


@pytest.mark.parametrize("factor_init", ["normal", "random_sign"])
def test_random_factors_are_independent_across_subnetworks_and_sides(factor_init: str) -> None:
    drawn = all_factors(BatchEnsemble(subnetworks=3, factor_init=factor_init))
    rows = torch.cat([drawn[:, :2000], drawn[:, 2000:]])
    related = torch.corrcoef(rows) - torch.eye(6)
    assert related.abs().max() < 5 / 2000**0.5


@pytest.mark.parametrize("factors", ["ones", "normal", "random_sign"])
def test_the_same_seed_gives_the_same_factors_and_shared_weights(factors: str, digits: DataSplits) -> None:
    def tensors(seed: int) -> dict[str, Tensor]:
        config = tiny_config(f"student.factor_init={factors}", f"seed={seed}", preset="latentbe")
        torch.rand(3)  # random numbers of the caller have no effect
        return new_student(config, digits).state_dict()

    one, two, other = tensors(1), tensors(1), tensors(2)
    assert all(torch.equal(one[name], two[name]) for name in one)
    drawn = [name for name in one if name.endswith((".r", ".s"))]
    assert all(torch.equal(one[name], other[name]) == (factors == "ones") for name in drawn)


@pytest.mark.parametrize("factors", ["ones", "normal", "random_sign"])
def test_shared_weights_equal_those_of_the_plain_network_with_the_same_seed(factors: str, digits: DataSplits) -> None:
    config = tiny_config(f"student.factor_init={factors}", preset="latentbe")
    plain = build(config.model, digits, config.seed).state_dict()
    shared = {
        name.removeprefix("network.").replace(".layer.", "."): tensor
        for name, tensor in new_student(config, digits).state_dict().items()
    }
    assert all(torch.equal(shared[name], tensor) for name, tensor in plain.items())


def test_mean_of_probabilities_is_the_prediction_rule_of_the_diversity_matters_paper(digits: DataSplits) -> None:
    config = load_config("diversity", ["student.subnetworks=3", "model.width=4", "model.blocks=2"])
    student = new_student(config, digits).eval()
    x = digits.train[slice(0, 5)][0]
    expected = sum(logits.softmax(-1) for logits in student(x)) / 3
    assert_close(student.merged()(x).softmax(-1), expected)
    assert_close(student.merged()(x).exp(), expected)


def test_a_student_with_mean_of_probabilities_cannot_be_merged_during_training() -> None:
    with pytest.raises(ConfigError, match="merge_after"):
        tiny_config("student.merge_after=0.5", preset="diversity")


# --- other networks ---


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet18": lambda: torchvision.models.resnet18(num_classes=4),
    "mobilenet_v3_small": lambda: torchvision.models.mobilenet_v3_small(num_classes=4),  # depthwise convolutions
    "shufflenet_v2_x0_5": lambda: torchvision.models.shufflenet_v2_x0_5(num_classes=4),
    "wide_resnet": lambda: WideResNet(depth=10, width=1)((3, 32, 32), 4),
}
every_network = pytest.mark.parametrize("name", NETWORKS)


def photographs(count: int = 3) -> Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def trained(name: str) -> nn.Module:
    """Returns a network with BatchNorm statistics of two random batches and random BatchNorm parameters."""
    torch.manual_seed(0)
    network = NETWORKS[name]().train()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.5
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.5, 0.5)
        network(torch.rand(4, 3, 32, 32))
        network(torch.rand(4, 3, 32, 32))
    return network.eval()


@every_network
@pytest.mark.parametrize("bias", ["shared", "per_member"])
def test_subnetworks_with_unit_factors_equal_the_original_network(name: str, bias: str) -> None:
    plain = trained(name)
    expected = plain(photographs())
    student = BatchEnsemble(subnetworks=3, bias=bias)(plain).eval()
    for logits in student(photographs()):
        assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    assert_close(student.merged().eval()(photographs()), expected, atol=1e-5, rtol=1e-5)


@every_network
@pytest.mark.parametrize("bias", ["shared", "per_member"])
def test_the_merged_network_equals_every_subnetwork_if_all_have_the_mean_factors(name: str, bias: str) -> None:
    settings = BatchEnsemble(subnetworks=2, factor_init="normal", factor_std=0.1, bias=bias)
    student = settings(trained(name)).eval()
    layers = [m for m in student.modules() if isinstance(m, RankOne)]
    with torch.no_grad():
        for layer in layers:
            if layer.bias is not None:
                layer.bias.add_(0.1 * torch.randn(layer.bias.shape))
    merged = student.merged().eval()(photographs())
    assert (student(photographs())[0] - merged).abs().max() > 1e-4  # with different factors, they differ
    with torch.no_grad():
        for layer in layers:
            for vectors in (layer.r, layer.s, layer.bias):
                if vectors is not None:
                    vectors.copy_(vectors.mean(0, keepdim=True).expand_as(vectors))
    for logits in student(photographs()):
        assert_close(logits, merged, atol=1e-4, rtol=1e-4)


@every_network
def test_every_convolution_and_linear_layer_is_converted_without_a_warning(name: str) -> None:
    network = NETWORKS[name]()
    count = sum(isinstance(m, nn.Conv2d | nn.Linear) for m in network.modules())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        student = BatchEnsemble(subnetworks=2)(network)
    assert sum(isinstance(m, RankOne) for m in student.modules()) == count


@every_network
def test_the_merged_network_has_the_names_and_shapes_of_the_original(name: str) -> None:
    shapes = {key: tensor.shape for key, tensor in NETWORKS[name]().state_dict().items()}
    for bias in ("shared", "per_member"):
        merged = BatchEnsemble(subnetworks=2, bias=bias)(NETWORKS[name]()).merged()
        assert {key: tensor.shape for key, tensor in merged.state_dict().items()} == shapes


def vision_transformer() -> nn.Module:
    return torchvision.models.VisionTransformer(
        image_size=16, patch_size=8, num_layers=1, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=4
    )


def test_a_warning_names_attention_layers_that_stay_shared() -> None:
    with pytest.warns(UserWarning, match=r"encoder_layer_0\.self_attention \(MultiheadAttention\)"):
        BatchEnsemble(subnetworks=2)(vision_transformer())


@pytest.mark.filterwarnings("ignore:batch_ensemble")
def test_layers_of_a_transformer_other_than_attention_layers_are_converted_and_merged() -> None:
    torch.manual_seed(0)
    plain = vision_transformer().eval()
    nn.init.normal_(plain.heads.head.weight)
    x = torch.rand(3, 3, 16, 16)
    expected = plain(x)
    student = BatchEnsemble(subnetworks=2)(copy.deepcopy(plain)).eval()
    assert sum(isinstance(m, RankOne) for m in student.modules()) == 4  # patches, two layers of the MLP, classifier
    assert_close(student(x), expected.expand(2, -1, -1), atol=1e-5, rtol=1e-5)
    randomize(student)
    assert (student(x)[0] - student(x)[1]).abs().max() > 1e-3
    with torch.no_grad():
        for layer in (m for m in student.modules() if isinstance(m, RankOne)):
            for vectors in (layer.r, layer.s):
                vectors.copy_(vectors.mean(0, keepdim=True).expand_as(vectors))
    assert_close(student.merged().eval()(x), student(x)[1], atol=1e-5, rtol=1e-5)


def swin(**settings: Any) -> nn.Module:
    return torchvision.models.SwinTransformer(
        patch_size=[2, 2],
        embed_dim=8,
        depths=[1, 1],
        num_heads=[2, 2],
        window_size=[2, 2],
        num_classes=4,
        **settings,
    )


class TokensFirst(nn.Module):
    """Linear layers on tokens (T,B,channels), as in recurrent networks and older transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.classify = nn.Linear(16, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classify(self.embed(x.mean(1).transpose(0, 1)).relu().mean(0))
        return logits


@pytest.mark.parametrize(
    "network",
    [
        swin,  # reads weights directly
        lambda: swin(block=torchvision.models.swin_transformer.SwinTransformerBlockV2),  # has layers for positions
        TokensFirst,  # has the images on the second axis
    ],
    ids=["swin", "swin_v2", "tokens_first"],
)
def test_a_network_that_uses_layers_in_unsupported_ways_is_refused_and_the_error_states_a_fix(
    network: Callable[[], nn.Module],
) -> None:
    student = BatchEnsemble(subnetworks=2)(network())
    with pytest.raises(ConfigError, match=r"student\.kind: batch_ensemble cannot convert this network.*use another"):
        student(torch.rand(3, 3, 16, 16))
