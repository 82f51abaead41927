"""Impossible images and labels are rejected, and implausible ones cause a warning."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ensdistill.config import build_config
from ensdistill.data import ClutteredDigits, Digits, ImageFolder, Npz, RawData, Split, load_data
from ensdistill.data.sizes import SplitSizes
from ensdistill.data.splits import split_source
from ensdistill.errors import DataError
from ensdistill.training.teachers import file_warnings

NAMES = ("cat", "dog", "owl")


def noise(labels: list[int], seed: int = 0, least: int = 0, most: int = 255) -> Split:
    """Returns one distinct image per label."""
    images = np.random.default_rng(seed).integers(least, most + 1, (len(labels), 1, 4, 4), dtype=np.uint8)
    return Split(torch.from_numpy(images), torch.tensor(labels))


def warnings_of(source: RawData, **sizes: float | None) -> list[str]:
    sizes = {"train_size": None, "val_size": 0.2, "test_size": 0.2} | sizes
    return [str(warning) for warning in split_source(source, SplitSizes(**sizes))[0].warnings]


POOL = noise([0, 1, 2] * 20)


def test_plausible_images_cause_no_warnings() -> None:
    assert warnings_of(RawData(POOL, NAMES)) == []
    assert load_data(Digits()).warnings == ()
    assert load_data(ClutteredDigits(train_size=50, val_size=50, test_size=50)).warnings == ()


# --- classes without images ---


def test_a_warning_names_a_class_that_has_no_image_in_a_split() -> None:
    rare = RawData(noise([0, 1] * 100 + [2] * 3), NAMES)
    assert warnings_of(rare, train_size=24, val_size=12, test_size=0) == [
        "data.train_size: 1 class without training images: owl. Add images, or raise data.train_size.",
        "data.val_size: 1 class without validation images: owl. Add images, or raise data.val_size.",
    ]


def test_a_warning_about_classes_missing_from_an_existing_split_does_not_suggest_a_larger_size() -> None:
    own = RawData(POOL, NAMES, test=noise([1, 1], 1), validation=noise([0, 1, 2], 2))
    assert warnings_of(own) == ["data.test: 2 classes without test images: cat, owl. Add images."]


# --- the same image in two splits ---


def joined(one: Split, *others: Split) -> Split:
    every = (one, *others)
    return Split(torch.cat([part.images for part in every]), torch.cat([part.labels for part in every]))


def test_a_warning_states_the_number_of_images_that_are_in_two_splits() -> None:
    fresh = noise([0, 1, 2], 1)
    source = RawData(POOL, NAMES, test=joined(POOL.take(np.arange(7)), fresh), validation=joined(fresh, noise([2], 2)))
    assert [line.split(".")[0] for line in warnings_of(source)] == [
        "data: 7 of 10 test images are also in the training split (same pixels)",
        "data: 3 of 10 test images are also in the validation split (same pixels)",
    ]


def test_the_warning_about_one_image_in_two_splits_uses_the_singular() -> None:
    fresh = noise([0, 1, 2], 1)
    source = RawData(POOL, NAMES, test=joined(POOL.take(np.arange(1)), fresh), validation=noise([0, 1, 2], 2))
    assert warnings_of(source)[0].startswith("data: 1 of 4 test images is also in the training split")


def test_duplicates_in_the_pool_can_end_up_in_two_splits_and_a_warning_states_their_number() -> None:
    twice = joined(POOL, POOL)
    data, test = split_source(RawData(twice, NAMES), SplitSizes(train_size=None, val_size=0.25, test_size=0.25))
    train = {image.numpy().tobytes() for image in data.train.images}
    same = sum(image.numpy().tobytes() in train for image in test.images)
    assert same > 0
    assert any(f"{same} of 30 test images are also in the training split" in str(warning) for warning in data.warnings)


def test_unlabeled_images_may_include_training_images_but_not_test_images() -> None:
    source = RawData(POOL, NAMES, test=noise([0, 1, 2], 1), unlabeled=noise([-1, -1, -1], 1))
    (line,) = warnings_of(source)
    assert line.startswith("data: 3 of 3 test images are also in the unlabeled split")
    assert (
        warnings_of(RawData(POOL, NAMES, unlabeled=POOL, test=noise([0, 1, 2], 1), validation=noise([0, 1, 2], 2)))
        == []
    )


def test_a_warning_states_the_number_of_images_with_two_or_more_labels() -> None:
    wrong = Split(POOL.images[:3], (POOL.labels[:3] + 1) % 3)
    own = {"test": noise([0, 1, 2], 1), "validation": noise([0, 1, 2], 2)}
    (line,) = warnings_of(RawData(joined(POOL, wrong), NAMES, **own))
    assert line.startswith("data: 3 training images with copies that have a different label")


# --- scale ---


def test_training_images_that_are_all_black_are_rejected() -> None:
    with pytest.raises(DataError, match="all training images are black"):
        warnings_of(RawData(noise([0, 1, 2] * 9, most=1), NAMES))


def test_black_and_nearly_black_images_cause_a_warning() -> None:
    own = {"validation": noise([0, 1, 2], 2)}
    black = RawData(POOL, NAMES, test=joined(noise([0, 1, 2], 1), noise([0, 0], 1, most=1)), **own)
    (line,) = warnings_of(black)
    assert line.startswith("data: 2 of 5 test images are black. ")
    sixteen = RawData(noise([0, 1, 2] * 20, most=16), NAMES, test=noise([0, 1, 2], 1), **own)
    (line,) = warnings_of(sixteen)
    assert line.startswith("data: training images are nearly black: their largest value is 16 of 255. ")


def test_images_that_are_black_because_of_8_bit_values_in_a_16_bit_file_cause_a_warning(tmp_path: Path) -> None:
    for name in NAMES:
        (tmp_path / name).mkdir()
        for n in range(6):
            pixels = np.random.default_rng(n).integers(0, 256, (8, 8))
            dtype = np.uint16 if name == "cat" and n < 5 else np.uint8
            Image.fromarray(pixels.astype(dtype)).save(tmp_path / name / f"{n}.png")
    data = load_data(ImageFolder(path=str(tmp_path), size=8, val_size=3, test_size=3))
    lines = [str(warning) for warning in data.warnings]
    assert any("training images are black. " in line and "8-bit values in a 16-bit file" in line for line in lines)


# --- teachers from files ---


def test_a_warning_states_that_teachers_from_files_may_have_been_trained_on_validation_images() -> None:
    brought = build_config({"teachers": {"count": 0, "checkpoints": [{"path": "theirs.pt"}]}})
    drawn = split_source(RawData(POOL, NAMES), SplitSizes(train_size=30, val_size=12))[0]
    (warning,) = file_warnings(brought, drawn)
    assert warning.path == ("teachers",)
    assert "may have been trained on the 12 validation images" in warning.rule
    assert "val/" in str(warning.hint)
    own = split_source(RawData(POOL, NAMES, validation=noise([0, 1, 2], 2)), SplitSizes(train_size=30))[0]
    assert file_warnings(brought, own) == []
    assert file_warnings(build_config({}), drawn) == []


# --- arrays ---

IMAGES = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 3), dtype=np.uint8)
LABELS = np.arange(30) % 3


def npz(folder: Path, **arrays: Any) -> RawData:
    np.savez(folder / "x.npz", **arrays)
    return Npz(path=str(folder / "x.npz"))()


@pytest.mark.parametrize(
    ("scale", "words"),
    [
        (lambda x: x / 255 / 255, "floats from 0 to 1/255"),
        (lambda x: (x / 255).astype(np.uint8), "bytes of 0 and 1 only"),
        (lambda x: (x / 255).round().astype(np.uint8), "bytes of 0 and 1 only"),
        (lambda x: x * 0.0, "floats from 0 to 1/255"),
    ],
    ids=["twice", "to bytes", "rounded to bytes", "zero"],
)
@pytest.mark.parametrize("name", ["x_train", "x_val", "x_test", "x_unlabeled"])
def test_arrays_that_were_scaled_twice_are_rejected_and_named_in_the_error(
    tmp_path: Path, scale: Callable[[np.ndarray], np.ndarray], words: str, name: str
) -> None:
    arrays = {f"{x}_{part}": IMAGES if x == "x" else LABELS for x in "xy" for part in ("train", "val", "test")}
    arrays |= {"x_unlabeled": IMAGES} | {name: scale(IMAGES)}
    with pytest.raises(DataError, match=f"{name} contains {words}, so its images are black"):
        npz(tmp_path, **arrays)


def test_arrays_with_a_maximum_far_below_255_cause_a_warning(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", images=IMAGES // 16, labels=LABELS)
    lines = [str(warning) for warning in load_data(Npz(path=str(tmp_path / "x.npz"))).warnings]
    assert any("training images are nearly black: their largest value is 15 of 255" in line for line in lines)
