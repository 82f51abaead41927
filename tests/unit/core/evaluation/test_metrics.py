"""Metrics agree with the cases of METHODS section 7, explicit loops, and torchmetrics."""

import math
from collections.abc import Callable

import pytest
import scipy.stats
import torch
from sklearn.metrics import balanced_accuracy_score, f1_score, recall_score, top_k_accuracy_score
from torch import Tensor
from torch.testing import assert_close
from torchmetrics.functional.classification import binary_auroc, multiclass_accuracy, multiclass_calibration_error

from ensdistill.evaluation.metrics import (
    BUILT_IN,
    accuracy,
    all_metrics,
    balanced_accuracy,
    brier,
    ece,
    entropy,
    log_mean_probability,
    macro_f1,
    nll,
    ood_auroc,
    reliability,
    top5_accuracy,
    worst_class_accuracy,
)

P = torch.tensor([[0.82, 0.18], [0.61, 0.39], [0.28, 0.72], [0.57, 0.43]], dtype=torch.float64)
Y = torch.tensor([0, 1, 1, 0])


def random_case(seed: int, images: int = 400, classes: int = 7) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    log_p = (2 * torch.randn(images, classes, generator=generator, dtype=torch.float64)).log_softmax(-1)
    guess = torch.randint(classes, (images,), generator=generator)
    right = torch.rand(images, generator=generator) < 0.5
    return log_p, torch.where(right, log_p.argmax(-1), guess)


@pytest.mark.parametrize(
    ("name", "expected"), [("accuracy", 0.75), ("nll", 0.507671), ("brier", 0.3339), ("ece", 0.375)]
)
def test_the_metric_equals_the_hand_computed_value(name: str, expected: float) -> None:
    assert all_metrics(P.log(), Y)[name] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_accuracy_agrees_with_torchmetrics(seed: int) -> None:
    log_p, labels = random_case(seed)
    oracle = multiclass_accuracy(log_p.exp(), labels, num_classes=7, average="micro")
    assert accuracy(log_p, labels) == pytest.approx(float(oracle), abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_ece_agrees_with_torchmetrics(seed: int) -> None:
    log_p, labels = random_case(seed)
    oracle = multiclass_calibration_error(log_p.exp(), labels, num_classes=7, n_bins=15, norm="l1")
    assert ece(log_p, labels) == pytest.approx(float(oracle), abs=1e-6)


def test_nll_is_the_mean_negative_log_probability_of_the_labels() -> None:
    log_p, labels = random_case(5)
    terms = [-float(row[label]) for row, label in zip(log_p, labels.tolist(), strict=True)]
    assert nll(log_p, labels) == pytest.approx(sum(terms) / len(terms), abs=1e-12)


def test_the_brier_score_is_summed_over_classes_and_not_averaged() -> None:
    log_p, labels = random_case(6)
    terms = [
        sum((math.exp(row[k]) - (k == label)) ** 2 for k in range(7))
        for row, label in zip(log_p.tolist(), labels.tolist(), strict=True)
    ]
    assert brier(log_p, labels) == pytest.approx(sum(terms) / len(terms), abs=1e-12)


def test_certain_and_correct_predictions_have_the_best_value_of_every_metric() -> None:
    log_p = torch.tensor([[0.0, -torch.inf], [-torch.inf, 0.0]], dtype=torch.float64)
    by_class = dict.fromkeys(("macro_f1", "balanced_accuracy", "worst_class_accuracy"), 1.0)
    assert (
        all_metrics(log_p, torch.tensor([0, 1])) == {"accuracy": 1.0, "nll": 0.0, "brier": 0.0, "ece": 0.0} | by_class
    )


def test_certain_and_wrong_predictions_have_the_worst_value_of_every_metric() -> None:
    log_p = torch.tensor([[0.0, -torch.inf]], dtype=torch.float64)
    by_class = dict.fromkeys(("macro_f1", "balanced_accuracy", "worst_class_accuracy"), 0.0)
    worst = {"accuracy": 0.0, "nll": math.inf, "brier": 2.0, "ece": 1.0} | by_class
    assert all_metrics(log_p, torch.tensor([1])) == worst


def test_a_confidence_rounded_to_a_value_above_one_is_in_the_last_bin() -> None:
    log_p = torch.tensor([[1e-15, -40.0]], dtype=torch.float64)
    assert ece(log_p, torch.tensor([0])) == pytest.approx(0, abs=1e-12)


EDGES = torch.linspace(0, 1, 16, dtype=torch.float64)
# Bin edges k/15 that equal exp(log(k/15)) exactly; with three classes, the largest probability is at least 1/3.
EXACT = [k for k in range(6, 15) if EDGES[k].log().exp() == EDGES[k]]


@pytest.mark.parametrize("k", EXACT)
def test_a_confidence_on_a_bin_edge_is_in_the_lower_bin(k: int) -> None:
    # A second image, whose confidence is in the bin below the edge, is misclassified. If both images are in the same
    # bin, the error is the gap of their means.
    edge = float(EDGES[k])
    below = edge - 0.02
    p = torch.tensor([[c, (1 - c) / 2, (1 - c) / 2] for c in (edge, below)], dtype=torch.float64)
    together = abs((1 - edge) + (0 - below)) / 2
    assert ece(p.log(), torch.tensor([0, 1])) == pytest.approx(together, abs=1e-9)


def test_a_confidence_of_one_half_is_in_the_middle_bin() -> None:
    # 0.5 is inside (7/15, 8/15]; half correct and half wrong is perfectly calibrated there.
    log_p = torch.full((4, 2), 0.5, dtype=torch.float64).log()
    labels = torch.tensor([0, 1, 0, 1])  # argmax of a tie is the first class
    assert ece(log_p, labels) == pytest.approx(0, abs=1e-12)


def test_log_mean_probability_equals_the_logarithm_of_the_directly_computed_mean() -> None:
    logits = 3 * torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(0))
    assert_close(log_mean_probability(logits), logits.double().softmax(-1).mean(0).log())


def test_log_mean_probability_of_a_single_member_is_its_log_softmax() -> None:
    logits = torch.randn(1, 6, 5, generator=torch.Generator().manual_seed(0))
    assert_close(log_mean_probability(logits), logits[0].double().log_softmax(-1))


def test_log_mean_probability_is_finite_if_probabilities_underflow() -> None:
    logits = torch.tensor([[[0.0, -2000.0]], [[0.0, -1000.0]]])
    assert_close(log_mean_probability(logits)[0, 1], torch.tensor(-1000 - math.log(2), dtype=torch.float64))


def test_metrics_of_float32_predictions_are_computed_in_float64() -> None:
    log_p, labels = random_case(8, images=1000)
    single = all_metrics(log_p.float(), labels)
    assert single == pytest.approx(all_metrics(log_p.float().double(), labels), abs=1e-15)


MEMBERS = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.1, 0.6, 0.3]], dtype=torch.float64)


def test_entropies_of_the_members_and_of_their_mean_equal_the_hand_computed_values() -> None:
    assert float(entropy(MEMBERS.log()).mean()) == pytest.approx(0.909806, abs=1e-5)
    assert float(entropy(MEMBERS.mean(0).log())) == pytest.approx(1.052139, abs=1e-5)


def test_entropy_agrees_with_scipy() -> None:
    log_p, _ = random_case(9)
    assert_close(entropy(log_p), torch.from_numpy(scipy.stats.entropy(log_p.exp().numpy(), axis=-1)))


def test_entropy_is_log_c_for_a_uniform_prediction_and_zero_for_a_one_hot_prediction() -> None:
    log_p = torch.tensor([[0.25] * 4, [0.0, 1.0, 0.0, 0.0]], dtype=torch.float64).log()
    assert_close(entropy(log_p), torch.tensor([math.log(4), 0.0], dtype=torch.float64))


def test_auroc_is_the_share_of_pairs_in_which_the_ood_image_scores_higher_and_ties_count_half() -> None:
    log_in, log_out = random_case(10, images=40)[0], random_case(11, images=25)[0] / 2
    log_out = torch.cat([log_out.log_softmax(-1), log_in[:5]])  # five ties
    inside, outside = entropy(log_in).tolist(), entropy(log_out).tolist()
    wins = [(o > i) + (o == i) / 2 for o in outside for i in inside]
    assert ood_auroc(log_in, log_out) == pytest.approx(sum(wins) / len(wins), abs=1e-12)


def test_auroc_agrees_with_torchmetrics() -> None:
    log_in, log_out = random_case(12)[0], (random_case(13)[0] / 2).log_softmax(-1)
    scores = torch.cat([entropy(log_in), entropy(log_out)]) / math.log(7)
    foreign = torch.cat([torch.zeros(400), torch.ones(400)]).long()
    assert ood_auroc(log_in, log_out) == pytest.approx(float(binary_auroc(scores, foreign)), abs=1e-6)


def test_auroc_is_one_half_for_identical_image_sets() -> None:
    log_p, _ = random_case(14)
    assert ood_auroc(log_p, log_p) == 0.5


def test_auroc_is_one_if_all_ood_images_are_less_certain_and_zero_if_all_are_more_certain() -> None:
    certain = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.9, 0.1]], dtype=torch.float64).log()
    unsure = torch.tensor([[0.4, 0.3, 0.3], [0.3, 0.5, 0.2], [0.4, 0.4, 0.2]], dtype=torch.float64).log()
    assert (ood_auroc(certain, unsure), ood_auroc(unsure, certain)) == (1, 0)


def test_auroc_of_nan_predictions_is_nan_like_the_other_metrics() -> None:
    log_p = torch.full((3, 2), torch.nan)
    assert math.isnan(ood_auroc(log_p, P.log()))
    assert math.isnan(nll(log_p, torch.tensor([0, 1, 0])))


@pytest.mark.parametrize("seed", range(3))
def test_the_reliability_diagram_counts_every_image_once_and_agrees_with_the_ece(seed: int) -> None:
    log_p, labels = random_case(seed)
    bins = reliability(log_p, labels)
    assert sum(images for _, _, images in bins) == len(labels)
    gap = sum(images * abs(confidence - right) for confidence, right, images in bins) / len(labels)
    assert gap == pytest.approx(ece(log_p, labels), abs=1e-12)


def test_a_bin_of_the_reliability_diagram_has_the_mean_confidence_and_accuracy_of_its_images() -> None:
    p = torch.tensor([[0.9, 0.1], [0.1, 0.9], [0.55, 0.45]], dtype=torch.float64)
    (low, high) = reliability(p.log(), torch.tensor([0, 0, 0]))
    assert low == (pytest.approx(0.55), 1.0, 1)
    assert high == (pytest.approx(0.9), 0.5, 2)


# --- metrics by class -------------------------------------------------------------------------------------------------


def classes_missing(seed: int) -> tuple[Tensor, Tensor]:
    """Returns a case in which class 2 has no image, class 4 is never predicted, and both hold for class 6."""
    log_p, labels = random_case(seed)
    log_p[:, [4, 6]] = -50.0
    return log_p, labels.where(~torch.isin(labels, torch.tensor([2, 6])), torch.tensor(0))


@pytest.mark.parametrize("case", [random_case, classes_missing])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_per_class_metrics_agree_with_scikit_learn(case: Callable[[int], tuple[Tensor, Tensor]], seed: int) -> None:
    log_p, labels = case(seed)
    truth, predicted = labels.numpy(), log_p.argmax(-1).numpy()
    recalls = recall_score(truth, predicted, labels=sorted(set(truth.tolist())), average=None)
    assert macro_f1(log_p, labels) == pytest.approx(f1_score(truth, predicted, average="macro"), abs=1e-12)
    assert balanced_accuracy(log_p, labels) == pytest.approx(balanced_accuracy_score(truth, predicted), abs=1e-12)
    assert worst_class_accuracy(log_p, labels) == pytest.approx(recalls.min(), abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_top_5_accuracy_agrees_with_scikit_learn(seed: int) -> None:
    log_p, labels = random_case(seed)
    oracle = top_k_accuracy_score(labels.numpy(), log_p.exp().numpy(), k=5, labels=range(7))
    assert top5_accuracy(log_p, labels) == pytest.approx(oracle, abs=1e-12)


def test_top_5_accuracy_resolves_ties_in_class_order() -> None:
    uniform = torch.full((7, 7), 1 / 7, dtype=torch.float64).log()
    assert top5_accuracy(uniform, torch.arange(7)) == pytest.approx(5 / 7)


def test_a_nan_prediction_is_never_correct() -> None:
    log_p, labels = torch.full((4, 7), math.nan, dtype=torch.float64), torch.tensor([0, 1, 2, 6])
    assert top5_accuracy(log_p, labels) == 0


@pytest.mark.parametrize(("classes", "reported"), [(5, False), (6, True)])
def test_top_5_accuracy_is_omitted_if_it_is_always_1(classes: int, reported: bool) -> None:
    log_p, labels = random_case(0, classes=classes)
    assert ("top5_accuracy" in all_metrics(log_p, labels)) is reported


def test_the_metrics_table_lists_each_metric_once_and_states_its_direction() -> None:
    log_p, labels = random_case(0)
    right = (50.0 * torch.nn.functional.one_hot(labels, 7).double()).log_softmax(-1)
    now, perfect = all_metrics(log_p, labels), all_metrics(right, labels)
    assert {name for name, metric in BUILT_IN.items() if metric.compute} == set(now)
    for name, value in now.items():
        assert (perfect[name] > value) is BUILT_IN[name].higher_is_better, name
