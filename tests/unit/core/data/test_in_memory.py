"""Images in memory give the same splits, hashes and errors as files, and items of a Dataset are read unchanged."""

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from ensdistill import Config, Data, load_data
from ensdistill.config import load_config, to_yaml
from ensdistill.data import Npz, load_test
from ensdistill.errors import ConfigError, DataError

RANDOM = np.random.default_rng(0)
GRAY = RANDOM.integers(0, 256, (40, 6, 5), dtype=np.uint8)
COLOR = RANDOM.integers(0, 256, (40, 3, 6, 5), dtype=np.uint8)
LABELS = np.arange(40) % 4
SIZES: dict[str, Any] = {"train_size": 20, "val_size": 10, "test_size": 10}


class Pairs(Dataset[Any]):
    def __init__(self, images: Any, labels: Any = LABELS) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, n: int) -> Any:
        return self.images[n], self.labels[n]


def pictures(mode: str = "RGB") -> list[Image.Image]:
    return [Image.fromarray(image.transpose(1, 2, 0)).convert(mode) for image in COLOR]


def test_a_file_with_the_same_arrays_gives_the_same_splits(tmp_path: Any) -> None:
    np.savez(tmp_path / "a.npz", x_train=GRAY, y_train=LABELS)
    stored, given = (
        load_data(source)
        for source in (Npz(path=str(tmp_path / "a.npz"), **SIZES), Data.from_arrays(GRAY, LABELS, **SIZES))
    )
    assert given.identity == stored.identity
    assert torch.equal(given.train.images, stored.train.images)


@pytest.mark.parametrize("convert", [torch.from_numpy, list, lambda array: torch.from_numpy(array).float() / 255])
def test_tensors_and_lists_and_floats_give_the_same_images_as_arrays(convert: Any) -> None:
    assert Data.from_arrays(convert(COLOR), LABELS, **SIZES) == Data.from_arrays(COLOR, torch.tensor(LABELS), **SIZES)


def test_changing_the_array_later_does_not_change_the_data() -> None:
    own = GRAY.copy()
    data = Data.from_arrays(own, LABELS, **SIZES)
    before = load_data(data).train.images.clone()
    own[:] = 0
    assert torch.equal(load_data(data).train.images, before)


def test_given_splits_are_used_in_full() -> None:
    parts = {"validation": (GRAY[:7], LABELS[:7]), "test": (GRAY[7:12], LABELS[7:12]), "unlabeled": GRAY[:3]}
    data = Data.from_arrays(GRAY[12:], LABELS[12:], **parts, class_names="abcd")
    splits = load_data(data)
    assert [len(splits.validation), len(load_test(data)), len(splits.unlabeled), len(splits.train)] == [7, 5, 3, 28]
    assert splits.own_validation
    assert splits.class_names == ("a", "b", "c", "d")


def test_different_splits_have_different_content_hashes() -> None:
    one = Data.from_arrays(GRAY, LABELS, test=(GRAY[:8], LABELS[:8]))
    other = Data.from_arrays(GRAY, LABELS, validation=(GRAY[:8], LABELS[:8]))
    assert one.content != other.content


def test_copied_settings_refer_to_the_same_images_within_the_process(tmp_path: Any) -> None:
    data = Data.from_arrays(GRAY, LABELS, **SIZES)
    (tmp_path / "config.yaml").write_text(
        to_yaml(Config(data=data, teachers={"training": {"batch_size": 8}}, training={"batch_size": 8}))
    )
    read = load_config(tmp_path / "config.yaml").data
    assert read == deepcopy(data) == data
    assert load_data(read).identity == load_data(data).identity


def test_in_another_process_the_error_states_how_to_pass_the_images_again() -> None:
    data = Data.from_arrays(GRAY, LABELS, **SIZES)
    with pytest.raises(DataError, match=r"0000 are not in the memory of this process; pass them again"):
        data.model_copy(update={"content": "0000"})()


@pytest.mark.parametrize("items", [pictures(), COLOR, torch.from_numpy(COLOR), torch.from_numpy(COLOR).float() / 255])
def test_a_dataset_gives_the_same_images_as_arrays(items: Any) -> None:
    data = Data.from_dataset(Pairs(items), **SIZES)
    assert data == Data.from_arrays(COLOR, LABELS, **SIZES)


def test_a_dataset_may_contain_images_and_labels_as_tensors() -> None:
    pairs = TensorDataset(torch.from_numpy(COLOR), torch.from_numpy(LABELS))
    assert Data.from_dataset(pairs, **SIZES) == Data.from_arrays(COLOR, LABELS, **SIZES)


def test_palette_and_transparent_images_are_read_as_rgb_and_gray_images_as_gray() -> None:
    assert load_data(Data.from_dataset(Pairs(pictures("P")), **SIZES)).train.images.shape[1] == 3
    assert load_data(Data.from_dataset(Pairs(pictures("L")), **SIZES)).train.images.shape[1] == 1


def test_class_names_are_taken_from_the_dataset() -> None:
    named = Pairs(COLOR)
    named.classes = ["cat", "cow", "dog", "owl"]  # type: ignore[attr-defined]
    assert load_data(Data.from_dataset(named, **SIZES)).class_names == ("cat", "cow", "dog", "owl")


def test_each_split_may_be_a_dataset() -> None:
    data = Data.from_dataset(Pairs(COLOR), validation=Pairs(COLOR[:8]), test=Pairs(COLOR[8:16]), unlabeled=Pairs(COLOR))
    splits = load_data(data)
    assert [len(splits.validation), len(load_test(data)), len(splits.unlabeled)] == [8, 8, 40]


class Endless(IterableDataset[Any]):
    def __iter__(self) -> Any:
        yield from Pairs(COLOR)


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (Endless(), "dataset: is a Endless, which has no length or no indexing; give a map-style torch Dataset"),
        (COLOR, r"dataset\[0\]: is a ndarray, not a pair of an image and a label"),
        (Pairs([object()] * 40), r"dataset\[0\]: its image is a object; give a PIL image, a tensor or an array"),
        (Pairs(COLOR, ["cat"] * 40), r"dataset\[0\]: its label is 'cat'; give a whole number of at least 0"),
        (Pairs(COLOR, [1.5] * 40), r"dataset\[0\]: its label is 1\.5; give a whole number of at least 0"),
        (
            Pairs([*COLOR[:39], COLOR[39, :, :5]]),
            "dataset: its images have different shapes or types, .*give them the same size and type",
        ),
        (Pairs(torch.randn(40, 3, 6, 5)), "dataset: its images contain floats from .*remove Normalize"),
        (Pairs([]), "dataset: has no items"),
    ],
)
def test_an_invalid_dataset_is_rejected_and_the_error_states_the_index_of_the_item(dataset: Any, message: str) -> None:
    with pytest.raises(DataError, match=f"^{message}"):
        Data.from_dataset(dataset, **SIZES)


@pytest.mark.parametrize(
    ("images", "labels", "more", "message"),
    [
        (GRAY, LABELS[:39], {}, "40 images in images and 39 labels in labels; give one label for each image"),
        (GRAY.astype(np.int32), LABELS, {}, "images is int32; give uint8 from 0 to 255, or floats from 0 to 1"),
        (GRAY / 10.0, LABELS, {}, r"images contains floats from .*; scale them to \[0,1\]"),
        (GRAY, LABELS * 1.0, {}, "labels is float64 of shape"),
        (GRAY, LABELS, {"test": (COLOR, LABELS)}, "images of test images and images differ"),
        (GRAY, LABELS, {"validation": GRAY}, "validation: must be a pair of images and labels"),
        (GRAY, LABELS, {"class_names": ["a", "b"]}, "class_names is"),
        (None, LABELS, {}, "images is object"),
    ],
)
def test_an_invalid_array_is_rejected_and_named_in_the_error(images: Any, labels: Any, more: Any, message: str) -> None:
    with pytest.raises(DataError, match=f"^{message}"):
        Data.from_arrays(images, labels, **more)


def test_a_split_size_out_of_range_or_an_unknown_size_name_causes_a_config_error() -> None:
    with pytest.raises(ConfigError, match="val_size: must be a whole number of at least 1"):
        Data.from_arrays(GRAY, LABELS, val_size=-1)
    with pytest.raises(ConfigError, match="trainsize: no such setting"):
        Data.from_arrays(GRAY, LABELS, trainsize=5)
