"""Torch datasets by import path, and Hugging Face data sets."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ensdistill.data import DatasetCall, HubDataset, RawData, TorchDataset
from ensdistill.errors import ConfigError, DataError

IMAGES: dict[str, Any] = {  # all give the same gray square
    "pil": Image.new("L", (8, 8), 51),
    "array": np.full((8, 8, 3), 51, dtype=np.uint8),
    "tensor": torch.full((3, 8, 8), 51, dtype=torch.uint8),
    "floats": torch.full((1, 8, 8), 0.2),
    "deep": np.full((8, 8), 51 * 257, dtype=np.uint16),
}


def pairs(kind: str, labels: list[int]) -> list[tuple[Any, int]]:
    return [(IMAGES[kind], label) for label in labels]


def broken(labels: list[int]) -> list[Any]:
    return [(torch.full((3, 8, 8), 2.0), label) for label in labels]


def singles() -> list[Any]:
    return [IMAGES["pil"], IMAGES["pil"]]


class Failing:
    """A dataset with readable labels and unreadable images."""

    targets = (0, 1)

    def __len__(self) -> int:
        return 2

    def __getitem__(self, number: int) -> Any:
        raise OSError("disk is gone")


def of_shape(shape: list[int], dtype: str) -> list[Any]:
    return [(np.zeros(shape, dtype), label) for label in (0, 1)]


def read(function: str, **arguments: Any) -> RawData:
    call = DatasetCall(path=f"{__name__}:{function}", arguments=arguments)
    return TorchDataset(train=call, size=8)()


@pytest.mark.parametrize("kind", IMAGES)
def test_every_image_type_gives_the_same_pixels(kind: str) -> None:
    raw = read("pairs", kind=kind, labels=[0, 1, 1])
    assert raw.pool.images.shape == (3, 3, 8, 8)
    assert raw.pool.images[:].unique().tolist() == [51]
    assert raw.pool.labels.tolist() == [0, 1, 1]
    assert raw.class_names == ("0", "1")


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        ("missing", {}, "cannot be imported"),
        ("pairs", {"kind": "pil"}, "data.train: .* fails"),
        ("pairs", {"kind": "pil", "labels": []}, "has no items"),
        ("pairs", {"kind": "pil", "labels": [0, -1]}, "whole numbers from 0, got -1"),
        ("pairs", {"kind": "pil", "labels": [0, 0]}, "1 class"),
        ("pairs", {"kind": "pil", "labels": ["cat", "dog"]}, r"data.train\[0\]: its label is 'cat'; give a"),
        ("singles", {}, "is a Image, not a pair of an image and a label; return a pair"),
        ("Failing", {}, "the dataset raises an exception .*disk is gone"),
        ("of_shape", {"shape": [8, 8, 4], "dtype": "uint8"}, r"it has shape \(8, 8, 4\); give \(C,H,W\) or \(H,W\)"),
        ("of_shape", {"shape": [8, 8], "dtype": "int64"}, "it is int64; give uint8"),
        ("pairs", {"kind": "pil", "labels": [0, 1.7]}, r"data.train\[1\]: its label is 1.7; give a whole number"),
        ("broken", {"labels": [0, 1]}, r"some of its floats are outside 0 to 1; remove Normalize"),
    ],
)
def test_an_invalid_dataset_is_rejected(function: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(function, **arguments)


def test_a_missing_library_is_reported_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(ConfigError, match=r"pip install 'ensdistill\[hub\]'"):
        HubDataset(path=str(tmp_path))()


def test_splits_of_a_hub_data_set_are_found_under_their_usual_names(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    kinds = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})

    def part(labels: list[int]) -> Any:
        images = [Image.new("RGB", (8, 8), (100 * label, 0, 0)) for label in labels]
        return datasets.Dataset.from_dict({"image": images, "label": labels}, kinds)

    parts = {"train": part([0, 1, 1]), "valid": part([1]), "test": part([0]), "other": part([0])}
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "saved"))
    raw = HubDataset(path=str(tmp_path / "saved"), size=8)()
    assert raw.class_names == ("cat", "dog")
    assert raw.pool.images[:, 0, 0, 0].tolist() == [0, 100, 100]
    assert raw.validation is not None
    assert raw.test is not None
    assert (raw.validation.labels.tolist(), raw.test.labels.tolist()) == ([1], [0])
    assert any("other" in str(warning) for warning in raw.warnings)


@pytest.mark.parametrize(
    ("columns", "settings", "message"),
    [
        ({"photo": [0, 1], "label": [0, 1]}, {}, "data.image_column: 'image' of the train split must be a column of"),
        ({"image": [0, 1], "kind": [0, 1]}, {}, "data.label_column: no column 'label'; give one of"),
        ({"image": [0, 1], "label": [0, None]}, {}, "data.label_column: 'label' has rows without a label"),
        ({"image": [0, 1], "label": [0, 1]}, {"image_column": "label"}, "must be a column of images"),
    ],
)
def test_an_invalid_hub_data_set_is_rejected(
    columns: dict[str, Any], settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    datasets = pytest.importorskip("datasets")
    image = next(name for name in columns if name in ("image", "photo"))
    rows = columns | {image: [Image.new("L", (8, 8), value) for value in columns[image]]}
    datasets.Dataset.from_dict(rows).cast_column(image, datasets.Image()).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(DataError, match=message):
        HubDataset(path=str(tmp_path / "saved"), size=8, **settings)()


def test_a_hub_data_set_without_a_training_split_is_rejected_and_its_splits_are_listed(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    with pytest.raises(DataError, match="is not a data set written by the library datasets"):
        HubDataset(path=str(tmp_path))()
    part = datasets.Dataset.from_dict({"label": [0]})
    datasets.DatasetDict({"test": part}).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(DataError, match=r"no split named train \(available: test\)"):
        HubDataset(path=str(tmp_path / "saved"))()
    datasets.DatasetDict({"val": part, "validation": part}).save_to_disk(str(tmp_path / "double"))
    with pytest.raises(DataError, match=r"val, validation are the same split \(validation\)"):
        HubDataset(path=str(tmp_path / "double"))()


def test_labels_of_a_hub_data_set_are_matched_by_name_and_damaged_images_are_reported(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")

    def part(names: list[str], labels: list[int], images: list[bytes]) -> Any:
        kinds = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
        return datasets.Dataset.from_dict({"image": [{"bytes": raw} for raw in images], "label": labels}, kinds)

    Image.new("L", (8, 8), 51).save(tmp_path / "a.png")
    good = (tmp_path / "a.png").read_bytes()
    parts = {"train": part(["a", "b"], [0, 1, 1], [good] * 3), "test": part(["b", "a"], [0, 0, 1], [good] * 3)}
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "saved"))
    raw = HubDataset(path=str(tmp_path / "saved"), size=8)()
    assert raw.test is not None
    assert raw.test.labels.tolist() == [1, 1, 0]
    part(["a", "b"], [0, 1, 1], [good, good, b"no image"]).save_to_disk(str(tmp_path / "damaged"))
    with pytest.raises(DataError, match=r"train\[2\]"):
        HubDataset(path=str(tmp_path / "damaged"), size=8)()
