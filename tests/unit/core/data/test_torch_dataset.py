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
        ("broken", {"labels": [0, 1]}, r"floats are not all from 0 to 1; remove Normalize"),
    ],
)
def test_an_invalid_dataset_is_rejected(function: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(function, **arguments)


def test_a_missing_library_is_reported_with_its_installation_command(
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
