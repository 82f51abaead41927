"""What all trials would ask the teachers alike is asked once, before the first of them."""

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ensdistill.config import build_config
from ensdistill.data import Data, load_data
from ensdistill.methods.members import Ensemble
from ensdistill.models import build
from ensdistill_tune.execution.shared_inputs import Inputs
from ensdistill_tune.execution.worker import run_trial
from ensdistill_tune.records.study_directory import StudyFolder
from ensdistill_tune.records.trial_record import EPOCHS
from ensdistill_tune.search.hyperparameter import Axis
from ensdistill_tune.study.study_config import Resources, Study

SETTINGS: dict[str, Any] = {
    "data": {"train_size": 40, "val_size": 60},
    "model": {"width": 4, "blocks": 2},
    "teachers": {"count": 2, "model": {"width": 2, "blocks": 1}, "training": {"batch_size": 20}},
    "training": {"epochs": 2, "batch_size": 10},
}
TEMPERATURE = {"loss.temperature": Axis(uniform=[1, 4])}


def study_of(preset: str = "kd", search: dict[str, Axis] = TEMPERATURE, **more: Any) -> Study:
    return Study(preset=preset, config=SETTINGS, search=search, **more)


@pytest.fixture(scope="module")
def digits() -> Data:
    return load_data(build_config(SETTINGS).data)


@pytest.fixture
def ensemble(digits: Data) -> Ensemble:
    model = build_config(SETTINGS).teachers.model
    return Ensemble([build(model, digits, 100 + m) for m in range(2)], 10, "random")


def through_the_store(inputs: Inputs) -> Inputs:
    """As a worker gets them: arrays are shared memory that cannot be written to."""
    buffers: list[pickle.PickleBuffer] = []
    packed = pickle.dumps(inputs, protocol=5, buffer_callback=buffers.append)
    return pickle.loads(packed, buffers=[bytes(buffer.raw()) for buffer in buffers])  # noqa: S301


def metrics_of(inputs: Inputs) -> list[dict[str, float]]:
    told: list[dict[str, Any]] = []
    trial = {"number": 1, "baseline": None, "parent": None, "sampled": {}, "seed": None, "schedule": []}
    run_trial(trial, inputs, told.append)
    return [
        {name: value for name, value in epoch.items() if "seconds" not in name}
        for result in told
        for epoch in result[EPOCHS]
    ]


def asked(ensemble: Ensemble) -> list[int]:
    """How many images the first teacher is shown at each call from now on."""
    calls: list[int] = []
    ensemble.networks[0].register_forward_pre_hook(lambda _, images: calls.append(len(images[0])))
    return calls


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")  # nor is it written to
def test_a_trial_asks_the_teachers_nothing_and_has_the_numbers_of_one_that_does(
    tmp_path: Path, digits: Data, ensemble: Ensemble
) -> None:
    study, curve = study_of(), [0.5, 0.4]
    inputs = through_the_store(Inputs.of(study, StudyFolder(tmp_path / "ahead"), digits, ensemble, curve))
    assert not any(array.flags.writeable for array in inputs.ensemble.said.values())
    calls = asked(inputs.ensemble)
    ahead = metrics_of(inputs)
    assert calls == []
    itself = replace(inputs, folder=StudyFolder(tmp_path / "itself"))
    inputs.ensemble.said.clear()
    assert metrics_of(itself) == ahead
    assert calls == [40]
    assert len(ahead) == 2


PERTURBED = {"perturbation.step_size": Axis(uniform=[0.01, 0.1])}
KIND = {"perturbation.kind": Axis(choice=["ods", "none"])}
FLIP = {"training.augmentation.flip": Axis(choice=[True, False])}
UNLABELED = {"training.unlabeled_batch_size": Axis(choice=[0, 5])}


@pytest.mark.parametrize(
    ("study", "images"),
    [
        (study_of(), lambda data: {40}),
        (study_of("latentbe", PERTURBED), lambda data: set()),
        (study_of("latentbe", PERTURBED, baselines=["kd"]), lambda data: {40}),
        (study_of("kd", KIND), lambda data: {40}),
        (study_of("kd", FLIP), lambda data: {40}),
        (study_of("kd", UNLABELED), lambda data: {40, 40 + len(data.unlabeled)}),
    ],
    ids=["fixed", "never", "a baseline", "searched perturbation", "searched augmentation", "searched images"],
)
def test_teachers_are_asked_ahead_of_what_some_trials_recall(
    study: Study, images: Callable[[Data], set[int]], tmp_path: Path, digits: Data, ensemble: Ensemble
) -> None:
    inputs = Inputs.of(study, StudyFolder(tmp_path), digits, ensemble, [])
    assert {array.shape[1] for array in inputs.ensemble.said.values()} == images(digits)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_what_trials_ask_on_a_gpu_is_left_to_them_where_there_is_none(
    tmp_path: Path, digits: Data, ensemble: Ensemble
) -> None:
    inputs = Inputs.of(study_of(resources=Resources(gpus=1)), StudyFolder(tmp_path), digits, ensemble, [])
    assert inputs.ensemble.said == {}
