"""Images as NumPy arrays: every supported layout, and every error with the array name."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ensdistill.data import Npz, RawData, load_data, load_test
from ensdistill.errors import DataError

N = 12
GENERATOR = np.random.default_rng(0)
RGB = GENERATOR.integers(0, 256, (N, 3, 6, 5), dtype=np.uint8)  # (N,C,H,W)
GRAY = GENERATOR.integers(0, 256, (N, 1, 6, 5), dtype=np.uint8)
LABELS = np.arange(N) % 3


def read(folder: Path, **arrays: Any) -> RawData:
    file = folder / "images.npz"
    np.savez(file, **arrays)
    return Npz(path=str(file))()


def fault(folder: Path, **arrays: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(folder, **arrays)
    return str(caught.value)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (RGB, RGB),
        (RGB.transpose(0, 2, 3, 1), RGB),
        (np.asfortranarray(RGB), RGB),
        (GRAY, GRAY),
        (GRAY.transpose(0, 2, 3, 1), GRAY),
        (GRAY[:, 0], GRAY),
    ],
    ids=["N3HW", "NHW3", "fortran", "N1HW", "NHW1", "NHW"],
)
def test_every_array_layout_is_converted_to_channels_first(
    tmp_path: Path, given: np.ndarray, expected: np.ndarray
) -> None:
    images = read(tmp_path, x_train=given, y_train=LABELS).pool.images
    assert images.dtype == torch.uint8
    assert images.is_contiguous()
    np.testing.assert_array_equal(images.numpy(), expected)


@pytest.mark.parametrize("shape", [(N, 3, 6, 3), (N, 1, 6, 3), (N, 3, 3, 3), (N, 3, 6, 1)], ids=str)
def test_the_last_axis_is_the_channel_axis_if_the_layout_is_ambiguous(tmp_path: Path, shape: tuple[int, ...]) -> None:
    given = GENERATOR.integers(0, 256, shape, dtype=np.uint8)
    images = read(tmp_path, x_train=given, y_train=LABELS).pool.images
    np.testing.assert_array_equal(images.numpy(), np.moveaxis(given, 3, 1))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_floats_between_zero_and_one_are_rounded_to_bytes(tmp_path: Path, dtype: Any) -> None:
    given = (RGB / 255).astype(dtype)
    np.testing.assert_array_equal(read(tmp_path, x_train=given, y_train=LABELS).pool.images.numpy(), RGB)


@pytest.mark.parametrize("labels", [LABELS, LABELS[:, None], LABELS.astype(np.uint8), LABELS.astype(">i4")])
def test_labels_may_have_any_integer_type(tmp_path: Path, labels: np.ndarray) -> None:
    read_labels = read(tmp_path, x_train=RGB, y_train=labels).pool.labels
    assert read_labels.dtype == torch.int64
    assert read_labels.tolist() == [0, 1, 2] * 4


def test_the_arrays_may_be_named_images_and_labels(tmp_path: Path) -> None:
    source = read(tmp_path, images=RGB, labels=LABELS)
    np.testing.assert_array_equal(source.pool.images.numpy(), RGB)
    assert source.test is None


def test_the_test_split_is_kept_separate(tmp_path: Path) -> None:
    source = read(tmp_path, x_train=RGB, y_train=LABELS, x_test=RGB[:2].transpose(0, 2, 3, 1) / 255, y_test=[2, 0])
    assert source.test is not None
    np.testing.assert_array_equal(source.test.images.numpy(), RGB[:2])
    assert source.test.labels.tolist() == [2, 0]


def test_class_names_are_the_given_names_or_the_labels(tmp_path: Path) -> None:
    assert read(tmp_path, images=RGB, labels=LABELS).class_names == ("0", "1", "2")
    named = read(tmp_path, images=RGB, labels=LABELS, class_names=["cat", "dog", "eel"])
    assert named.class_names == ("cat", "dog", "eel")
    assert all(type(name) is str for name in named.class_names)


def test_a_named_class_may_have_no_images(tmp_path: Path) -> None:
    source = read(tmp_path, images=RGB, labels=2 * (LABELS % 2), class_names=["cat", "dog", "eel"])
    assert source.class_names == ("cat", "dog", "eel")
    assert set(source.pool.labels.tolist()) == {0, 2}


def test_a_warning_names_unused_arrays(tmp_path: Path) -> None:
    source = read(tmp_path, images=RGB, labels=LABELS, notes=np.array([{"a": 1}], dtype=object), mask=GRAY)
    assert len(source.pool) == N
    assert list(map(str, source.warnings)) == ["data.path: 2 arrays not used: notes, mask"]


@pytest.mark.parametrize(
    ("x", "y"), [("x_{}", "y_{}"), ("X_{}", "Y_{}"), ("X_{}", "y_{}"), ("{}_images", "{}_labels")], ids=str
)
@pytest.mark.parametrize("val", ["val", "valid", "validation", "dev"])
@pytest.mark.parametrize("unlabeled", ["unlabeled", "unlabelled"])
def test_splits_in_the_file_are_found_under_their_usual_names_and_used_in_full(
    tmp_path: Path, x: str, y: str, val: str, unlabeled: str
) -> None:
    arrays = {x.format("train"): RGB, y.format("train"): LABELS[:, None]}  # (N,1) as in MedMNIST
    arrays |= {x.format(val): RGB[:3] // 2, y.format(val): LABELS[:3], x.format("test"): RGB[:4] // 3}
    arrays |= {y.format("test"): LABELS[:4], x.format(unlabeled): RGB[:5] // 5}
    source = read(tmp_path, **arrays)
    parts = (source.pool, source.validation, source.test, source.unlabeled)
    for part, divisor, count in zip(parts, (1, 2, 3, 5), (N, 3, 4, 5), strict=True):
        assert part is not None
        np.testing.assert_array_equal(part.images.numpy(), RGB[:count] // divisor)
    assert [part.labels.tolist() for part in parts[1:] if part] == [[0, 1, 2], [0, 1, 2, 0], [-1] * 5]
    assert source.warnings == ()


def test_splits_that_exist_in_the_source_are_not_drawn_again(tmp_path: Path) -> None:
    file = tmp_path / "x.npz"
    np.savez(file, x_train=RGB, y_train=LABELS, x_val=RGB[:3] // 2, y_val=LABELS[:3], x_unlabeled=RGB[:5] // 5)
    data = load_data(Npz(path=str(file), test_size=3))
    assert [len(part) for part in (data.train, data.validation, data.unlabeled)] == [9, 3, 5]
    assert data.own_validation
    assert (data.unlabeled.labels == -1).all()


def test_a_size_setting_that_an_existing_split_overrides_causes_a_warning(tmp_path: Path) -> None:
    file = tmp_path / "x.npz"
    np.savez(file, x_train=RGB, y_train=LABELS, x_val=RGB[:3], y_val=LABELS[:3], x_test=RGB[:4], y_test=LABELS[:4])
    for sizes in ({}, {"val_size": 3, "test_size": 4}):
        assert Npz(path=str(file), **sizes)().warnings == ()
    assert [str(warning) for warning in Npz(path=str(file), val_size=2, test_size=0.5)().warnings] == [
        "data.val_size: is not used, got 2. The 3 images of x_val are the validation images; "
        "remove the setting or x_val.",
        "data.test_size: is not used, got 0.5. The 4 images of x_test are the test images; remove the setting "
        "or x_test.",
    ]


def test_if_arrays_exist_under_two_spellings_a_warning_names_the_unused_ones(tmp_path: Path) -> None:
    both = {"x_val": RGB[:3], "y_val": LABELS[:3], "val_images": RGB, "val_labels": LABELS, "images": RGB}
    source = read(tmp_path, x_train=RGB, y_train=LABELS, **both)
    assert source.validation is not None
    assert len(source.validation) == 3
    assert list(map(str, source.warnings)) == ["data.path: 3 arrays not used: val_images, val_labels, images"]


def test_arrays_are_split_like_any_other_source(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "x.npz", images=RGB, labels=LABELS)
    settings = Npz(path=str(tmp_path / "x.npz"), train_size=3, val_size=3, test_size=3)
    data = load_data(settings)
    assert [len(part) for part in (data.train, data.validation, data.unlabeled, load_test(settings))] == [3] * 4


# --- invalid data ---


def test_a_missing_file_is_named_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^data\.path: .*nowhere\.npz"):
        Npz(path=str(tmp_path / "nowhere.npz"))()


@pytest.mark.parametrize("damage", ["text", "empty", "cut", "npy", "byte"])
def test_an_incomplete_npz_file_is_named_in_the_error(tmp_path: Path, damage: str) -> None:
    file = tmp_path / "x.npz"
    np.savez(file, images=RGB, labels=LABELS)
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 3] ^= 1  # within the pixels, where the checksum of the zip member detects it
    np.save(tmp_path / "x.npy", RGB)
    content = {
        "text": b"hello",
        "empty": b"",
        "cut": file.read_bytes()[:-30],
        "npy": (tmp_path / "x.npy").read_bytes(),
        "byte": bytes(raw),
    }
    file.write_bytes(content[damage])
    with pytest.raises(DataError, match=r"^data\.path: .*x\.npz is not a readable \.npz"):
        Npz(path=str(file))()


@pytest.mark.parametrize("name", ["images", "labels", "class_names"])
def test_pickled_objects_are_never_unpickled(tmp_path: Path, name: str) -> None:
    arrays: dict[str, Any] = {"images": RGB, "labels": LABELS, "class_names": np.array(["a", "b", "c"])}
    assert "array of Python objects" in fault(tmp_path, **arrays | {name: arrays[name].astype(object)})


@pytest.mark.parametrize("missing", ["x_train", "y_train", "x_test", "y_test"])
def test_the_error_names_a_missing_array_and_lists_the_available_ones(tmp_path: Path, missing: str) -> None:
    arrays = {"x_train": RGB, "y_train": LABELS, "x_test": RGB, "y_test": LABELS}
    del arrays[missing]
    message = fault(tmp_path, **arrays)
    assert message.startswith(f"data.path: no array {missing};")
    assert all(name in message for name in arrays)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (RGB.astype(np.float32), ("0 to 255", r"[0,1]")),
        (RGB / 255 * 1.5, ("1.5", r"[0,1]")),
        (RGB / 255 - 0.1, ("-0.1", r"[0,1]")),
        (np.full((N, 6, 5), np.nan), ("NaN", "from 0 to 1")),
        (RGB.astype(np.int64), ("int64", "uint8")),
        (RGB > 9, ("bool", "uint8")),
        (RGB.reshape(N, -1), ("(12, 90)", "(N,H,W)")),
        (np.concatenate([RGB, RGB], 1), ("(12, 6, 6, 5)", "(N,H,W)")),
        (RGB[:, :, :0], ("(12, 3, 0, 5)",)),
        (RGB[:-1], ("11 images", "12 labels")),
        (RGB[0, 0, 0, 0], ("()",)),
    ],
    ids=[
        "0..255 floats",
        "above one",
        "negative",
        "nan",
        "int64",
        "bool",
        "flat",
        "six channels",
        "no rows",
        "too few",
        "scalar",
    ],
)
def test_the_error_about_invalid_images_states_the_fix(
    tmp_path: Path, images: np.ndarray, words: tuple[str, ...]
) -> None:
    message = fault(tmp_path, x_train=images, y_train=LABELS)
    assert message.startswith("data.path: ")
    assert all(word in message for word in ("x_train", *words))


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (LABELS / 1, ("float64",)),
        (np.eye(3)[LABELS], ("(12, 3)", "argmax")),
        (LABELS - 1, ("from -1 to 1", "from 0")),
        (2 * LABELS, ("3 classes", "4", "gaps")),
        (0 * LABELS, ("1 class;",)),
        (LABELS.astype(str), ("whole numbers",)),
        (LABELS.astype(np.uint64) + 2**63, ("from 0",)),
        (LABELS[:0], ("0 labels",)),
    ],
    ids=["floats", "one-hot", "from -1", "gaps", "one class", "strings", "huge", "none"],
)
def test_the_error_about_invalid_labels_states_the_fix(
    tmp_path: Path, labels: np.ndarray, words: tuple[str, ...]
) -> None:
    message = fault(tmp_path, x_train=RGB, y_train=labels)
    assert message.startswith("data.path: ")
    assert all(word in message for word in ("y_train", *words))


@pytest.mark.parametrize("names", [["a", "b"], [1, 2, 3], [["a", "b", "c"]], [b"a", b"b", b"c"]], ids=str)
def test_class_names_that_do_not_match_the_labels_are_rejected(tmp_path: Path, names: list[Any]) -> None:
    assert "class_names" in fault(tmp_path, images=RGB, labels=LABELS, class_names=names)


def test_two_classes_with_the_same_name_are_rejected(tmp_path: Path) -> None:
    message = fault(tmp_path, images=RGB, labels=LABELS, class_names=["cat", "eel", "cat"])
    assert "'cat' more than once" in message


@pytest.mark.parametrize("part", ["test", "val"])
def test_a_split_whose_images_have_a_different_shape_is_rejected(tmp_path: Path, part: str) -> None:
    other = {f"x_{part}": GRAY, f"y_{part}": LABELS}
    assert f"x_{part} and x_train differ in shape, (1, 6, 5) and (3, 6, 5)" in fault(
        tmp_path, x_train=RGB, y_train=LABELS, **other
    )
    assert "(1, 6, 5) and (3, 6, 5)" in fault(tmp_path, x_train=RGB, y_train=LABELS, x_unlabeled=GRAY)


@pytest.mark.parametrize("part", ["test", "val"])
def test_a_label_missing_from_the_training_split_is_rejected(tmp_path: Path, part: str) -> None:
    other = {f"x_{part}": RGB, f"y_{part}": LABELS + 1}
    assert f"y_{part} has label 3" in fault(tmp_path, x_train=RGB, y_train=LABELS, **other)


@pytest.mark.parametrize("missing", ["x_val", "y_val"])
def test_a_validation_split_without_images_or_labels_is_rejected(tmp_path: Path, missing: str) -> None:
    arrays = {"x_train": RGB, "y_train": LABELS, "x_val": RGB, "y_val": LABELS}
    del arrays[missing]
    assert f"no array {missing};" in fault(tmp_path, **arrays)


def test_a_class_name_that_is_not_utf_8_is_rejected(tmp_path: Path) -> None:
    assert "not UTF-8" in fault(tmp_path, images=RGB, labels=LABELS, class_names=["a", "b", "caf\udce9"])


def test_the_error_about_missing_training_images_lists_the_arrays_in_the_file(tmp_path: Path) -> None:
    message = fault(tmp_path, data=RGB, target=LABELS)
    assert message.startswith("data.path: no array x_train;")
    assert "data, target" in message


def test_empty_arrays_are_rejected(tmp_path: Path) -> None:
    for images in (RGB[:0], RGB[:0] / 255):
        assert "0 images" in fault(tmp_path, x_train=images, y_train=LABELS[:0])
    assert "x_test" in fault(tmp_path, x_train=RGB, y_train=LABELS, x_test=RGB[:0], y_test=LABELS[:0])


def test_an_object_array_is_named_in_the_error(tmp_path: Path) -> None:
    message = fault(tmp_path, x_train=RGB, y_train=LABELS.astype(object))
    assert "y_train is an array of Python objects" in message
    names = np.array(["a", "b", "c"], dtype=object)
    assert "class_names is an array of" in fault(tmp_path, images=RGB, labels=LABELS, class_names=names)


def test_a_single_array_or_a_pickle_instead_of_an_npz_file_is_recognized_and_reported(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", RGB)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(RGB))
    for name, what in (("a.npy", "a single array, as written by numpy.save"), ("a.pkl", "a pickle")):
        with pytest.raises(DataError, match=f"{what}.*; write it with numpy.savez$") as caught:
            Npz(path=str(tmp_path / name))()
        assert "allow_pickle" not in str(caught.value)


def test_nan_and_empty_class_names_are_reported(tmp_path: Path) -> None:
    assert "x_train contains NaN" in fault(tmp_path, x_train=np.full(RGB.shape, np.nan), y_train=LABELS)
    assert "class_names contains an empty name" in fault(
        tmp_path, images=RGB, labels=LABELS, class_names=["a", " ", "c"]
    )


def test_a_web_page_saved_instead_of_an_npz_file_is_recognized_and_reported(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_text("<!doctype html><title>Not found</title>")
    with pytest.raises(DataError, match=r"a\.npz is a web page, not the file itself; download it again$"):
        Npz(path=str(tmp_path / "a.npz"))()
