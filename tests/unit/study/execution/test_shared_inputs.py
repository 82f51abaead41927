"""Teacher outputs that all trials use are computed once, before the first trial."""

import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ensdistill.config import build_config
from ensdistill.data import DataSplits, ImageFolder, load_data
from ensdistill.data import store as stores
from ensdistill.data.shared_images import SharedImages
from ensdistill.errors import DataError
from ensdistill.methods.members import TeacherEnsemble
from ensdistill.models import build
from ensdistill_tune.execution.shared_inputs import SharedData, SharedInputs
from ensdistill_tune.execution.worker import run_trial
from ensdistill_tune.records.study_directory import StudyDirectory
from ensdistill_tune.records.trial_record import EPOCHS
from ensdistill_tune.search.hyperparameter import Hyperparameter
from ensdistill_tune.study.study_config import Resources, StudyConfig

SETTINGS: dict[str, Any] = {
    "data": {"train_size": 40, "val_size": 60},
    "model": {"width": 4, "blocks": 2},
    "teachers": {"count": 2, "model": {"width": 2, "blocks": 1}, "training": {"batch_size": 20}},
    "training": {"epochs": 2, "batch_size": 10},
}
TEMPERATURE = {"loss.temperature": Hyperparameter(uniform=[1, 4])}


def study_of(preset: str = "kd", search: dict[str, Hyperparameter] = TEMPERATURE, **more: Any) -> StudyConfig:
    return StudyConfig(preset=preset, config=SETTINGS, search=search, **more)


@pytest.fixture(scope="module")
def digits() -> DataSplits:
    return load_data(build_config(SETTINGS).data)


@pytest.fixture
def ensemble(digits: DataSplits) -> TeacherEnsemble:
    model = build_config(SETTINGS).teachers.model
    return TeacherEnsemble([build(model, digits, 100 + m) for m in range(2)], 10, "random")


def through_the_store(inputs: SharedInputs) -> SharedInputs:
    """Returns the inputs as a worker receives them: arrays are read-only shared memory."""
    buffers: list[pickle.PickleBuffer] = []
    packed = pickle.dumps(inputs, protocol=5, buffer_callback=buffers.append)
    return pickle.loads(packed, buffers=[bytes(buffer.raw()) for buffer in buffers])  # noqa: S301


def metrics_of(inputs: SharedInputs) -> list[dict[str, float]]:
    told: list[dict[str, Any]] = []
    trial = {"number": 1, "baseline": None, "parent": None, "sampled": {}, "seed": None, "schedule": []}
    run_trial(trial, inputs, told.append)
    return [
        {name: value for name, value in epoch.items() if "seconds" not in name}
        for result in told
        for epoch in result[EPOCHS]
    ]


def asked(ensemble: TeacherEnsemble) -> list[int]:
    """Returns a list that records the batch sizes of the first teacher from now on."""
    calls: list[int] = []
    ensemble.networks[0].register_forward_pre_hook(lambda _, images: calls.append(len(images[0])))
    return calls


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")  # nor is it modified
def test_a_trial_with_shared_logits_has_the_same_metrics_as_a_trial_that_computes_the_logits(
    tmp_path: Path, digits: DataSplits, ensemble: TeacherEnsemble
) -> None:
    study, curve = study_of(), [0.5, 0.4]
    inputs = through_the_store(SharedInputs.of(study, StudyDirectory(tmp_path / "ahead"), digits, ensemble, curve))
    assert not any(array.flags.writeable for array in inputs.teacher_logits.arrays.values())
    calls = asked(inputs.teacher_logits.ensemble)
    ahead = metrics_of(inputs)
    assert calls == []
    itself = replace(inputs, folder=StudyDirectory(tmp_path / "itself"))
    inputs.teacher_logits.arrays.clear()
    assert metrics_of(itself) == ahead
    assert calls == [40]
    assert len(ahead) == 2


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SharedData:
    """A small image folder in a store of decoded images."""
    monkeypatch.setattr(stores, "IN_MEMORY", 0)
    noise = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for n in range(20):
            pixels = noise.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{n}.png")
    source = ImageFolder(path=str(tmp_path / "images"), size=8)
    return SharedData.of(load_data(source, tmp_path), source, tmp_path)


def through_ray(data: SharedData) -> SharedData:
    received: SharedData = pickle.loads(pickle.dumps(data))  # noqa: S301 - written above
    return received


def test_workers_receive_no_pixels_of_a_store_and_read_the_same_images(stored: SharedData) -> None:
    data, images = through_ray(stored).to("cpu"), stored.arrays["train"][0]
    assert isinstance(images, SharedImages)
    assert len(pickle.dumps(images)) < images.nbytes
    assert torch.equal(data.train.images[:], images[:])
    assert data.identity == stored.identity


def test_a_machine_without_the_store_builds_the_store(stored: SharedData, tmp_path: Path) -> None:
    there, packed = stored.to("cpu"), pickle.dumps(stored)
    expected = there.validation.images[:]
    shutil.rmtree(tmp_path / "datasets")
    received: SharedData = pickle.loads(packed)  # noqa: S301 - written above
    assert torch.equal(received.to("cpu").validation.images[:], expected)
    assert any((tmp_path / "datasets").glob("*/images.npy"))


def test_a_machine_with_different_images_is_refused(stored: SharedData, tmp_path: Path) -> None:
    packed = pickle.dumps(stored)
    shutil.rmtree(tmp_path / "datasets")
    (tmp_path / "images/cat/0.png").unlink()
    received: SharedData = pickle.loads(packed)  # noqa: S301 - written above
    with pytest.raises(DataError, match="must be those of the study"):
        received.to("cpu")


PERTURBED = {"perturbation.step_size": Hyperparameter(uniform=[0.01, 0.1])}
KIND = {"perturbation.kind": Hyperparameter(choice=["ods", "none"])}
FLIP = {"training.augmentation.flip": Hyperparameter(choice=[True, False])}
UNLABELED = {"training.unlabeled_batch_size": Hyperparameter(choice=[0, 5])}


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
def test_cached_teacher_logits_are_computed_in_advance(
    study: StudyConfig,
    images: Callable[[DataSplits], set[int]],
    tmp_path: Path,
    digits: DataSplits,
    ensemble: TeacherEnsemble,
) -> None:
    inputs = SharedInputs.of(study, StudyDirectory(tmp_path), digits, ensemble, [])
    assert {array.shape[1] for array in inputs.teacher_logits.arrays.values()} == images(digits)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_logits_for_gpu_trials_are_not_computed_in_advance_without_a_gpu(
    tmp_path: Path, digits: DataSplits, ensemble: TeacherEnsemble
) -> None:
    inputs = SharedInputs.of(study_of(resources=Resources(gpus=1)), StudyDirectory(tmp_path), digits, ensemble, [])
    assert inputs.teacher_logits.arrays == {}
