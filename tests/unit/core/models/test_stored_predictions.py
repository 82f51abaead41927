"""Training on stored predictions equals training on the networks that made them if no setting changes the images."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ensdistill import Config, DataSplits, Distiller, TeacherEnsemble, get_ensemble
from ensdistill.config import Teachers
from ensdistill.data import Data, Digits, Split, load_data, load_test
from ensdistill.errors import ConfigError, DataError
from ensdistill.evaluation.evaluator import Evaluator
from tests.unit.core.models.test_in_memory_teacher import SHORT, linear

NETWORKS = [linear(0), linear(1), linear(2)]


def logits_of(split: Split) -> np.ndarray:
    with torch.no_grad():
        return TeacherEnsemble(NETWORKS)(split[slice(0, len(split))][0]).numpy()


def written(folder: Path, data: Any = None, **arrays: np.ndarray) -> Config:
    """Returns settings with stored predictions of the networks; given arrays replace or, if empty, remove them."""
    source = data or Digits()
    arrays = {"train_logits": logits_of(source().pool)} | arrays
    np.savez(folder / "p.npz", **{name: array for name, array in arrays.items() if array.size})
    teachers = Teachers(count=0, predictions=str(folder / "p.npz"))
    return Config(data=source, teachers=teachers, training=SHORT)


def test_training_on_stored_predictions_gives_the_same_metrics_as_training_with_the_networks(
    tmp_path: Path, digits: DataSplits
) -> None:
    settings = written(tmp_path)
    stored = get_ensemble(settings, digits, tmp_path)
    results = [
        [epoch.val["nll"] for epoch in Distiller(settings, ensemble, digits)]
        for ensemble in (stored, TeacherEnsemble(NETWORKS))
    ]
    assert results[0] == pytest.approx(results[1], rel=1e-5)


def test_stored_probabilities_give_the_same_targets_as_logits(tmp_path: Path, digits: DataSplits) -> None:
    p = torch.from_numpy(logits_of(Digits()().pool)).softmax(-1).numpy()
    stored = get_ensemble(written(tmp_path, train_logits=np.empty(0), train_probabilities=p), digits, tmp_path)
    images, _ = digits.validation[slice(0, 50)]
    expected = TeacherEnsemble(NETWORKS)(images).softmax(-1)
    assert torch.allclose(stored(images).softmax(-1), expected, atol=1e-6)


def test_validation_and_test_metrics_of_stored_predictions_equal_those_of_the_networks(
    tmp_path: Path, digits: DataSplits
) -> None:
    stored = get_ensemble(written(tmp_path), digits, tmp_path)
    for split in (digits.validation, load_test(Digits())):
        got, real = (Evaluator(e, digits, split).teachers() for e in (stored, TeacherEnsemble(NETWORKS)))
        shared = {name: value for name, value in real["ensemble"].items() if name not in ("parameters", "flops")}
        assert got["ensemble"] == pytest.approx(shared, rel=1e-5)
        assert got["curve"] == pytest.approx(real["curve"], rel=1e-5)


def test_each_split_of_the_source_has_separate_predictions(tmp_path: Path) -> None:
    raw = Digits()().pool
    parts = {"validation": raw.take(np.arange(300, 400)), "test": raw.take(np.arange(400, 500))}
    pool, unlabeled = raw.take(np.arange(300)), raw.take(np.arange(500, 600))
    pairs = {name: (part.images, part.labels) for name, part in parts.items()}
    data = Data.from_arrays(pool.images, pool.labels, **pairs, unlabeled=unlabeled.images)
    arrays = {f"{name}_logits": logits_of(part) for name, part in {**parts, "unlabeled": unlabeled}.items()}
    settings, splits = written(tmp_path, data, **arrays), load_data(data)
    stored = get_ensemble(settings, splits, tmp_path)
    for part in (splits.validation, splits.unlabeled, load_test(data)):
        images, _ = part[slice(0, 100)]
        assert torch.equal(stored(images), torch.from_numpy(logits_of(part)))
    with pytest.raises(
        DataError, match=r"either validation_logits or validation_probabilities, but contains only .*; add"
    ):
        get_ensemble(written(tmp_path, data), splits, tmp_path)


@pytest.mark.parametrize(
    ("change", "setting"),
    [
        ({"perturbation": {"kind": "gaussian"}}, "perturbation.kind: changes images, but teachers.predictions were"),
        ({"training": {"augmentation": {"flip": True}}}, "training.augmentation: changes images, but teachers.predic"),
    ],
)
def test_settings_that_change_images_are_refused_with_stored_predictions(change: dict[str, Any], setting: str) -> None:
    with pytest.raises(ConfigError, match=setting):
        Config(teachers=Teachers(count=0, predictions="p.npz"), **change)


def test_images_without_stored_predictions_are_refused(tmp_path: Path, digits: DataSplits) -> None:
    stored = get_ensemble(written(tmp_path), digits, tmp_path)
    assert not stored.takes_any_image
    with pytest.raises(DataError, match="no predictions for 2 images of 3"):
        stored(torch.stack([digits.train[slice(0, 1)][0][0], torch.ones(1, 8, 8), torch.full((1, 8, 8), 0.5)]))


def wrong(array: np.ndarray) -> list[tuple[dict[str, np.ndarray], str]]:
    nothing, infinite = np.empty(0), array.copy()
    infinite[0, 0, 0] = np.inf
    return [
        (
            {"train_logits": array[:, :5]},
            r"train_logits is float32 of shape \(3, 5, 10\); give floats of shape \(M,1797,10\)",
        ),
        ({"train_logits": array[:, :, :9]}, r"train_logits is float32 of shape \(3, 1797, 9\); give floats"),
        ({"train_logits": array.astype(np.int64)}, "train_logits is int64"),
        ({"train_logits": infinite}, "train_logits contains NaN or infinite values; give finite numbers"),
        (
            {"train_logits": nothing, "train_probabilities": array},
            "the values of train_probabilities must be from 0 to 1, with a sum of 1 per image",
        ),
        (
            {"train_probabilities": array},
            "the file must contain either train_logits or train_probabilities, but contains both; remove one",
        ),
        (
            {"train_logits": nothing, "x": array},
            "the file must contain either train_logits or train_probabilities, but contains only x; add one",
        ),
        ({"test_logits": array}, "test_logits matches no split of this data set, which has train"),
    ]


@pytest.mark.parametrize("case", range(8))
def test_an_array_that_violates_a_rule_is_refused_and_named_in_the_error(
    case: int, tmp_path: Path, digits: DataSplits
) -> None:
    arrays, message = wrong(logits_of(Digits()().pool))[case]
    with pytest.raises(DataError, match=rf"teachers\.predictions: {message}"):
        get_ensemble(written(tmp_path, **arrays), digits, tmp_path)


def test_an_invalid_predictions_file_is_refused(tmp_path: Path, digits: DataSplits) -> None:
    settings = written(tmp_path)
    (tmp_path / "p.npz").write_bytes(b"no zip")
    with pytest.raises(DataError, match=r"p\.npz is not a readable \.npz file"):
        get_ensemble(settings, digits, tmp_path)
    (tmp_path / "p.npz").unlink()
    with pytest.raises(DataError, match=r"no such file: .*p\.npz; give a \.npz file with train_logits"):
        get_ensemble(settings, digits, tmp_path)


def test_equal_images_with_different_predictions_are_refused(tmp_path: Path) -> None:
    pool = Digits()().pool
    images = torch.cat([pool.images[:60], pool.images[:1]])
    data = Data.from_arrays(images, torch.cat([pool.labels[:60], pool.labels[:1]]))
    logits = np.random.default_rng(0).normal(size=(2, 61, 10)).astype(np.float32)
    few = {"training": {"batch_size": 8, "epochs": 1}, "teachers": {"count": 0, "predictions": str(tmp_path / "p.npz")}}
    settings, splits = Config(data=data, **few), load_data(data)
    np.savez(tmp_path / "p.npz", train_logits=logits)
    with pytest.raises(
        DataError, match="identical images must have equal predictions, got different predictions for 1 image"
    ):
        get_ensemble(settings, splits, tmp_path)
    logits[:, 60] = logits[:, 0]
    np.savez(tmp_path / "p.npz", train_logits=logits)
    assert len(get_ensemble(settings, splits, tmp_path)) == 2
