"""Evaluation of a student against its teachers."""

import statistics
from pathlib import Path

import pytest
import torch
from torch import nn

from ensdistill.data import DataSplits, Split, load_data
from ensdistill.evaluation.calibration import calibrated_nll
from ensdistill.evaluation.corruptions import CORRUPTIONS, corrupt
from ensdistill.evaluation.evaluator import Evaluator, evaluate_corruptions, model_complexity
from ensdistill.evaluation.metric_values import mean_metrics
from ensdistill.evaluation.metrics import accuracy
from ensdistill.evaluation.predict import evaluate, predict
from ensdistill.methods.members import CombinedClassifier, TeacherEnsemble
from ensdistill.methods.students import BatchEnsemble, Branches
from ensdistill.training.new_student import new_student
from ensdistill.training.teachers import find_ensemble, get_ensemble
from tests.unit.core.core_stand_ins import numbered_split, random_ensemble, tiny_config

LINEAR = 2  # multiplications and additions per weight


@pytest.fixture(scope="module")
def data() -> DataSplits:
    return load_data(tiny_config().data)


@pytest.fixture(scope="module")
def ensemble(data: DataSplits) -> TeacherEnsemble:
    return random_ensemble(data, 3)


@pytest.fixture(scope="module")
def elsewhere(data: DataSplits, ensemble: TeacherEnsemble) -> Split:
    """Images not used for validation; the first network classifies at least two thirds of them correctly."""
    known = predict(ensemble.networks[0], data.train).argmax(-1)
    return Split(data.train.images, torch.where(torch.arange(len(known)) % 3 == 0, data.train.labels, known))


def test_the_temperature_is_fitted_on_the_validation_split_and_not_on_the_evaluated_split(
    data: DataSplits, ensemble: TeacherEnsemble, elsewhere: Split
) -> None:
    row = Evaluator(ensemble, data, elsewhere).student(ensemble.networks[0])
    validation, split = (predict(ensemble.networks[0], part) for part in (data.validation, elsewhere))
    assert row["cnll"] == calibrated_nll(split, elsewhere.labels, validation, data.validation.labels)
    assert row["cnll"] != calibrated_nll(split, elsewhere.labels, split, elsewhere.labels)


def test_uncalibrated_metrics_are_computed_on_the_evaluated_split(
    data: DataSplits, ensemble: TeacherEnsemble, elsewhere: Split
) -> None:
    row = Evaluator(ensemble, data, elsewhere).student(ensemble.networks[1])
    assert evaluate(ensemble.networks[1], elsewhere).items() <= row.items()


def test_the_ensemble_has_agreement_one_and_a_deep_ensemble_equivalent_equal_to_its_size(
    data: DataSplits, ensemble: TeacherEnsemble
) -> None:
    teachers = Evaluator(ensemble, data, data.validation).teachers()
    assert (teachers["ensemble"]["dee"], teachers["ensemble"]["top1_agreement"]) == (3.0, 1.0)
    assert len(teachers["members"]) == len(teachers["curve"]) == 3
    assert teachers["curve"][-1] == pytest.approx(teachers["ensemble"]["cnll"])
    assert teachers["curve"][0] == pytest.approx(mean_metrics(teachers["members"])["cnll"])


def test_a_student_that_equals_the_ensemble_has_the_metrics_of_the_ensemble(
    data: DataSplits, ensemble: TeacherEnsemble
) -> None:
    examiner = Evaluator(ensemble, data, data.validation)
    row = examiner.student(CombinedClassifier(ensemble, "mean_of_probabilities"))
    together = examiner.teachers()["ensemble"]
    assert row["nll"] == pytest.approx(together["nll"], rel=1e-6)
    assert row["top1_agreement"] == 1.0
    assert row["kl_to_ensemble"] == pytest.approx(0, abs=1e-6)
    assert row["diversity"] == pytest.approx(together["diversity"], rel=1e-6)


def test_without_teachers_a_student_has_no_ensemble_metrics(data: DataSplits, ensemble: TeacherEnsemble) -> None:
    examiner = Evaluator(None, data, data.validation)
    row = examiner.student(ensemble.networks[0])
    assert "cnll" in row
    assert not {"dee", "top1_agreement", "kl_to_ensemble"} & set(row)
    assert examiner.teachers() == {}


def test_diversity_is_computed_only_for_students_that_keep_several_members(
    data: DataSplits, ensemble: TeacherEnsemble
) -> None:
    examiner = Evaluator(ensemble, data, data.validation)
    merged = tiny_config().model_copy(update={"student": BatchEnsemble(subnetworks=2)})
    apart = tiny_config().model_copy(update={"student": Branches(subnetworks=2)})
    assert "diversity" not in examiner.student(new_student(merged, data).merged())
    assert examiner.student(new_student(apart, data).merged())["diversity"] > 0


def test_parameters_and_operations_of_a_network_are_counted() -> None:
    network = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1, bias=False), nn.Flatten(), nn.Linear(3 * 4 * 5, 7))
    figures = model_complexity(network, (1, 4, 5))
    assert figures["parameters"] == 3 * 9 + 60 * 7 + 7
    assert figures["flops"] == LINEAR * (4 * 5 * 3 * 9 + 60 * 7)


@pytest.mark.parametrize("subnetworks", [1, 3])
def test_the_cost_of_unmerged_subnetworks_is_proportional_to_their_number(subnetworks: int, data: DataSplits) -> None:
    shape = data.train.images.shape[1:]
    plain = model_complexity(new_student(tiny_config(), data).merged(), shape)
    settings = BatchEnsemble(subnetworks=subnetworks, merge="mean_of_probabilities")
    apart = model_complexity(new_student(tiny_config().model_copy(update={"student": settings}), data).merged(), shape)
    assert apart["flops"] == subnetworks * plain["flops"]
    settings = BatchEnsemble(subnetworks=subnetworks)
    merged = model_complexity(new_student(tiny_config().model_copy(update={"student": settings}), data).merged(), shape)
    assert merged == plain


def test_measuring_the_cost_preserves_the_training_mode_of_the_network(data: DataSplits) -> None:
    network = new_student(tiny_config(), data).merged().train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    model_complexity(network, data.train.images.shape[1:])
    assert all(module.training for module in network.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_metrics_under_corruption_are_computed_on_the_corrupted_images(
    data: DataSplits, ensemble: TeacherEnsemble
) -> None:
    worse = evaluate_corruptions(ensemble.networks[0], data.validation)
    assert list(worse) == list(CORRUPTIONS)
    assert all(len(rows) == 5 for rows in worse.values())
    images = corrupt(data.validation.images, "contrast", 4, seed=0)
    log_p = predict(ensemble.networks[0], Split(images, data.validation.labels))
    assert worse["contrast"][3]["accuracy"] == accuracy(log_p.cpu(), data.validation.labels)


def test_an_ensemble_is_found_only_if_all_its_teachers_exist(tmp_path: Path, data: DataSplits) -> None:
    config = tiny_config()
    assert find_ensemble(config, data, tmp_path) is None
    one = config.model_copy(update={"teachers": config.teachers.model_copy(update={"count": 1})})
    get_ensemble(one, data, tmp_path)
    assert find_ensemble(config, data, tmp_path) is None
    trained = get_ensemble(config, data, tmp_path)
    found = find_ensemble(config, data, tmp_path)
    assert found is not None
    assert found.identity == trained.identity


def test_the_given_split_is_not_modified(data: DataSplits, ensemble: TeacherEnsemble) -> None:
    split = numbered_split(20, 10)
    before = split.images.clone()
    evaluate_corruptions(nn.Sequential(nn.Flatten(), nn.Linear(2, 10)), split)
    assert torch.equal(split.images, before)


def test_the_diagnostics_contain_every_network_and_the_teachers(data: DataSplits, ensemble: TeacherEnsemble) -> None:
    one = ensemble.networks[0]
    drawn = Evaluator(ensemble, data, data.validation).diagnostics([one])
    (portrait,) = drawn["networks"]
    assert portrait["ece"] == evaluate(one, data.validation)["ece"]
    assert sum(images for _, _, images in portrait["reliability"]) == drawn["images"] == len(data.validation)
    assert sum(images for _, _, images in drawn["ensemble"]["reliability"]) == len(data.validation)


def test_the_diagnostics_sort_images_by_the_disagreement_of_the_teachers(
    data: DataSplits, ensemble: TeacherEnsemble
) -> None:
    drawn = Evaluator(ensemble, data, data.validation).diagnostics([])
    teachers = Evaluator(ensemble, data, data.validation).teachers()["ensemble"]
    assert drawn["teachers"] == sorted(drawn["teachers"])
    assert len(drawn["teachers"]) == len(drawn["ensemble"]["entropy"]) == 10
    assert statistics.fmean(drawn["teachers"]) == pytest.approx(teachers["mutual_information"], rel=0.05)


def test_without_teachers_the_diagnostics_contain_no_disagreement(data: DataSplits, ensemble: TeacherEnsemble) -> None:
    drawn = Evaluator(None, data, data.validation).diagnostics([ensemble.networks[0]])
    assert (drawn["ensemble"], drawn["teachers"], drawn["networks"][0]["entropy"]) == (None, [], [])
