"""Custom metrics in addition to the built-in ones of the evaluator."""

import pytest
import torch

from ensdistill.config import Config
from ensdistill.errors import ConfigError
from ensdistill.evaluation.evaluator import Evaluator
from ensdistill.evaluation.metrics import all_metrics
from ensdistill.evaluation.own_metrics import OTHERS, metric_directions, own_metrics
from ensdistill.methods.members import CombinedClassifier
from ensdistill.methods.metrics import Metric
from ensdistill.methods.students import BatchEnsemble
from ensdistill.testing.toy import toy_data, toy_ensemble, toy_student
from tests.plugin.ensdistill_example.methods import LabelProbability

DATA = toy_data()


class WorstOfTwo(Metric):
    """The lower of two accuracies, on images with odd and with even indices; its name depends on its settings."""

    higher_is_better = False
    power: int = 2

    @property
    def name(self) -> str:
        return f"worst_{self.power}"

    def __call__(self, log_p: torch.Tensor, labels: torch.Tensor) -> float:
        log_p.zero_()  # a careless metric may modify its input
        return float(self.power)


def test_the_custom_metric_is_computed_for_students_and_teachers() -> None:
    ensemble = toy_ensemble(DATA)
    examiner = Evaluator(ensemble, DATA, DATA.validation, [LabelProbability()])
    images, labels = DATA.validation[slice(0, 10)]
    p = torch.stack([network(images).softmax(-1) for network in ensemble.networks]).double()
    by_hand = p.gather(-1, labels.expand(2, -1).unsqueeze(-1)).squeeze(-1).mean(-1)
    assert examiner.student(ensemble.networks[0])["label_probability"] == pytest.approx(float(by_hand[0]), abs=1e-6)
    teachers = examiner.teachers()
    found = [row["label_probability"] for row in teachers["members"]]
    assert found == pytest.approx(by_hand.tolist(), abs=1e-6)
    assert teachers["ensemble"]["label_probability"] == pytest.approx(float(by_hand.mean()), abs=1e-6)


def test_every_metric_name_of_the_evaluator_is_reserved() -> None:
    student = toy_student(BatchEnsemble(merge="mean_of_probabilities", subnetworks=2), DATA)
    network = student.merged()
    assert isinstance(network, CombinedClassifier)
    row = Evaluator(toy_ensemble(DATA), DATA, DATA.validation).student(network)
    log_p, labels = torch.full((4, 2), 0.5).log(), torch.tensor([0, 1, 0, 1])
    assert row.keys() == OTHERS | all_metrics(log_p, labels).keys()


def test_each_metric_has_the_direction_that_its_class_declares() -> None:
    config = Config(metrics=[LabelProbability(), WorstOfTwo(power=3)])
    assert metric_directions(config) == {"label_probability": True, "worst_3": False}
    assert metric_directions(Config()) == {}


def test_a_metric_that_modifies_its_input_does_not_affect_the_next_metric() -> None:
    log_p, labels = torch.full((4, 2), 0.5).log(), torch.tensor([0, 1, 0, 1])
    values = own_metrics([WorstOfTwo(), LabelProbability()], log_p, labels)
    assert values == {"worst_2": 2.0, "label_probability": pytest.approx(0.5)}


@pytest.mark.parametrize("name", ["Top 5", "", "a/b", "5th"])
def test_a_metric_name_that_is_invalid_in_file_names_or_mlflow_is_refused(name: str) -> None:
    own = type("Mine", (LabelProbability,), {"name": name, "__module__": __name__})
    with pytest.raises(ConfigError, match="must consist of a-z, 0-9 and _"):
        Config(metrics=[own()])


def test_metrics_without_a_direction_and_duplicate_metric_names_are_refused() -> None:
    class Undirected(Metric):
        pass

    with pytest.raises(ConfigError, match="does not define higher_is_better"):
        Config(metrics=[Undirected()])
    with pytest.raises(ConfigError, match="must be unique among the metrics, got 'label_probability'"):
        Config(metrics=[LabelProbability(), LabelProbability()])


def test_without_custom_metrics_the_metrics_setting_is_omitted_from_files_and_hashes() -> None:
    assert "metrics" not in Config().model_dump()
    assert Config(metrics=[LabelProbability()]).hash != Config().hash


def test_a_metric_that_raises_an_error_is_named_in_the_message() -> None:
    own = type("Mine", (LabelProbability,), {"__call__": lambda self, log_p, labels: 0 / 0, "__module__": __name__})
    with pytest.raises(ConfigError, match=r":Mine fails on predictions of shape \(4, 2\) \(ZeroDivisionError"):
        own_metrics([own()], torch.full((4, 2), 0.5).log(), torch.tensor([0, 1, 0, 1]))
