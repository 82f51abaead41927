"""Image folders and zip files, valid and invalid."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ensdistill.data import ImageFolder, RawData, load_data, load_test
from ensdistill.errors import ConfigError, DataError

CLASSES = ("cat", "dog")


def png(color: int, side: int = 8, mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side), (color, 255 - color, 0)).convert(mode).save(file, "png")
    return file.getvalue()


def noise_png() -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def files(each: int = 5, prefix: str = "") -> dict[str, bytes]:
    """Returns contents by path; image n of class k has the red value 100 k + n."""
    return {f"{prefix}{name}/{n}.png": png(100 * k + n) for k, name in enumerate(CLASSES) for n in range(each)}


def write_folder(root: Path, content: dict[str, bytes]) -> Path:
    for name, raw in content.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(raw)
    return root


def write_zip(path: Path, content: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, raw in content.items():
            archive.writestr(name, raw)
    return path


def read(path: Path, **settings: int) -> RawData:
    return ImageFolder(path=str(path), size=8, train_size=2, val_size=2, **settings)()


def reds(source: RawData) -> list[int]:
    return source.pool.images[:, 0, 0, 0].tolist()


ALL_REDS = [0, 1, 2, 3, 4, 100, 101, 102, 103, 104]


def assert_whole(source: RawData) -> None:
    assert source.class_names == CLASSES
    assert source.pool.labels.tolist() == [0] * 5 + [1] * 5
    assert reds(source) == ALL_REDS
    assert source.pool.images.dtype == torch.uint8
    assert source.pool.images.shape == (10, 3, 8, 8)


def test_images_in_a_folder_are_read_in_order_and_each_subfolder_is_a_class(tmp_path: Path) -> None:
    assert_whole(read(write_folder(tmp_path, files())))


@pytest.mark.parametrize("top", ["", "pets/"])
def test_a_zip_file_gives_the_same_images_with_and_without_a_top_folder(tmp_path: Path, top: str) -> None:
    assert_whole(read(write_zip(tmp_path / "pets.zip", files(prefix=top))))


@pytest.mark.parametrize("top", ["", "pets/"])
@pytest.mark.parametrize("zipped", [True, False])
def test_the_test_split_next_to_the_training_split_is_kept_separate(tmp_path: Path, zipped: bool, top: str) -> None:
    content = files(prefix=f"{top}train/") | {f"{top}test/dog/7.png": png(200)}
    place = write_zip(tmp_path / "x.zip", content) if zipped else write_folder(tmp_path / "x", content) / top
    source = read(place)
    assert_whole(source)
    assert source.test.images[:, 0, 0, 0].tolist() == [200]
    assert source.test.labels.tolist() == [1]


@pytest.mark.parametrize("zipped", [True, False])
def test_a_folder_with_only_a_training_split_has_no_test_split(tmp_path: Path, zipped: bool) -> None:
    content = files(prefix="train/")
    source = read(write_zip(tmp_path / "x.zip", content) if zipped else write_folder(tmp_path, content))
    assert_whole(source)
    assert source.test is None


def test_files_that_are_not_images_are_skipped(tmp_path: Path) -> None:
    content = {"readme.txt": b"hello", "cat/notes.md": b"x", ".hidden": b""}
    assert_whole(read(write_folder(tmp_path, files() | content)))


def test_zip_files_created_by_macos_are_read_like_any_other(tmp_path: Path) -> None:
    companions = {f"__MACOSX/pets/cat/._{n}.png": b"\x00\x05\x16\x07" for n in range(2)}
    assert_whole(read(write_zip(tmp_path / "pets.zip", files(prefix="pets/") | companions)))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1"])
def test_images_of_any_mode_are_converted_to_rgb(tmp_path: Path, mode: str) -> None:
    assert read(write_folder(tmp_path, files() | {"cat/0.png": png(0, mode=mode)})).pool.images.shape == (10, 3, 8, 8)


def test_images_of_different_sizes_are_resized(tmp_path: Path) -> None:
    content = files() | {"cat/0.png": png(77, side=20)}
    source = read(write_folder(tmp_path, content))
    assert source.pool.images.shape == (10, 3, 8, 8)
    assert set(source.pool.images[0, 0].flatten().tolist()) == {77}


def test_a_folder_is_split_like_any_other_source(tmp_path: Path) -> None:
    write_folder(tmp_path, files(each=10))
    settings = ImageFolder(path=str(tmp_path), size=8, train_size=6, val_size=4, test_size=4)
    data = load_data(settings)
    sizes = [len(part) for part in (data.train, data.validation, data.unlabeled, load_test(settings))]
    assert sizes == [6, 4, 6, 4]
    assert data.train.labels.bincount().tolist() == [3, 3]


# --- splits ---


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("train", "val", "test", "unlabeled"),
    [
        ("train", "val", "test", "unlabeled"),
        ("train", "valid", "test", "unlabelled"),
        ("TRAIN", "Validation", "Test", "Unlabeled"),
        ("training", "dev", "testing", "unlabeled"),
        ("pets/train", "pets/val", "pets/test", "pets/unlabeled"),
    ],
)
def test_splits_are_found_under_their_usual_names(
    tmp_path: Path, zipped: bool, train: str, val: str, test: str, unlabeled: str
) -> None:
    content = files(prefix=f"{train}/") | files(2, f"{val}/") | files(1, f"{test}/")
    content |= {f"{unlabeled}/7.png": png(7), f"{unlabeled}/deep/8.png": png(8)}
    source = read(write_zip(tmp_path / "x.zip", content) if zipped else write_folder(tmp_path / "x", content))
    assert_whole(source)
    parts = (source.validation, source.test, source.unlabeled)
    assert [part.labels.tolist() for part in parts if part] == [[0, 0, 1, 1], [0, 1], [-1, -1]]
    assert source.unlabeled is not None
    assert source.unlabeled.images[:, 0, 0, 0].tolist() == [7, 8]


def test_splits_that_exist_in_the_source_are_not_drawn_again(tmp_path: Path) -> None:
    write_folder(tmp_path, files(prefix="train/") | files(2, "val/") | files(1, "test/"))
    settings = ImageFolder(path=str(tmp_path), size=8)
    data = load_data(settings)
    assert [len(part) for part in (data.train, data.validation, data.unlabeled, load_test(settings))] == [10, 4, 0, 2]
    assert data.own_validation


def test_a_size_setting_that_an_existing_split_overrides_causes_a_warning(tmp_path: Path) -> None:
    write_folder(tmp_path, files(prefix="train/") | files(2, "valid/"))
    assert ImageFolder(path=str(tmp_path), size=8)().warnings == ()
    (warning,) = ImageFolder(path=str(tmp_path), size=8, val_size=3)().warnings
    assert str(warning).startswith("data.val_size: is not used, got 3. The 4 images of valid/ are the validation")


def test_by_default_a_tenth_of_images_is_for_validation_and_a_tenth_for_test_and_the_rest_for_training(
    tmp_path: Path,
) -> None:
    settings = ImageFolder(path=str(write_folder(tmp_path, files(each=50))), size=8)
    data = load_data(settings)
    assert [len(part) for part in (data.train, data.validation, data.unlabeled, load_test(settings))] == [
        80,
        10,
        0,
        10,
    ]
    assert not data.own_validation


def test_a_class_may_have_the_name_of_a_split(tmp_path: Path) -> None:
    write_folder(tmp_path, {f"{name}/{n}.png": png(n) for name in ("train", "plane", "test") for n in range(3)})
    assert read(tmp_path).class_names == ("plane", "test", "train")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("train/a.png", "test/b.png"), "has test, train, but no class folders below train/"),
        (("val/cat/a.png", "test/cat/a.png"), "has test, val, but no class folders below train/"),
        (("train/cat/a.png", "val/cat/a.png", "valid/cat/a.png"), "val/ and valid/ are the same split"),
        (("train/cat/a.png", "Train/cat/a.png"), "Train/ and train/ are the same split"),
    ],
)
def test_ambiguous_splits_are_rejected(tmp_path: Path, names: tuple[str, ...], words: str) -> None:
    with pytest.raises(DataError, match=words):
        read(write_folder(tmp_path, {name: png(1) for name in names}))


@pytest.mark.parametrize(
    "names",
    [
        ("seg_train/seg_train/cat", "seg_train/seg_train/dog", "seg_test/seg_test/cat", "seg_test/seg_test/dog"),
        ("training_set/cats", "training_set/dogs", "test_set/cats", "test_set/dogs"),
        ("train2017/cat", "train2017/dog", "val2017/cat", "val2017/dog"),
        ("cat", "dog", "test/cat", "test/dog"),
        ("cat", "dog", "val/cat", "val/dog"),
    ],
    ids=lambda names: names[-1],
)
def test_folders_that_are_probably_splits_are_never_used_as_classes(tmp_path: Path, names: tuple[str, ...]) -> None:
    write_folder(tmp_path, {f"{name}/{n}.png": png(n) for name in names for n in range(2)})
    with pytest.raises(DataError, match="but no class folders below train/; give train/<class>/<image>"):
        read(tmp_path)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("top", ["", "pets/"])
def test_a_folder_of_unlabeled_images_is_allowed_next_to_the_class_folders(
    tmp_path: Path, zipped: bool, top: str
) -> None:
    content = files(prefix=top) | {f"{top}unlabeled/7.png": png(7)}
    source = read(write_zip(tmp_path / "x.zip", content) if zipped else write_folder(tmp_path / "x", content))
    assert_whole(source)
    assert source.unlabeled is not None
    assert source.unlabeled.images[:, 0, 0, 0].tolist() == [7]


@pytest.mark.parametrize("inside", [("train", "test"), ("cat", "dog")])
def test_a_warning_names_subfolders_that_may_be_splits_or_classes(tmp_path: Path, inside: tuple[str, ...]) -> None:
    write_folder(tmp_path, {f"{a}/{b}/{n}.png": png(n) for a in ("day", "night") for b in inside for n in range(2)})
    source = read(tmp_path)
    assert source.class_names == ("day", "night")
    names = ", ".join(sorted(inside))
    assert f"the classes are day, night; their subfolders {names} are not separate classes" in str(source.warnings)


def test_a_single_subfolder_in_each_class_causes_no_warning(tmp_path: Path) -> None:
    write_folder(tmp_path, {f"train/{a}/images/{n}.png": png(n) for a in ("day", "night") for n in range(2)})
    assert read(tmp_path).warnings == ()


def test_a_warning_names_classes_whose_names_differ_only_in_case(tmp_path: Path) -> None:
    write_folder(tmp_path, {f"{name}/{n}.png": png(n) for name in ("Cat", "cat", "dog") for n in range(2)})
    source = read(tmp_path)
    assert source.class_names == ("Cat", "cat", "dog")
    assert "class names differ only in case or spaces: Cat, cat" in str(source.warnings[0])


# --- invalid data ---


def test_a_missing_path_is_named_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        read(tmp_path / "nowhere")


def test_a_file_that_is_not_a_zip_file_is_named_in_the_error(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"no zip")
    with pytest.raises(DataError, match=r"x\.zip"):
        read(tmp_path / "x.zip")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "raw", [b"", b"no image", png(3)[:40], noise_png()[:-40]], ids=["empty", "text", "head", "cut"]
)
def test_a_broken_image_is_named_in_the_error(tmp_path: Path, raw: bytes, zipped: bool) -> None:
    content = files() | {"dog/broken.png": raw}
    place = write_zip(tmp_path / "x.zip", content) if zipped else write_folder(tmp_path, content)
    with pytest.raises(DataError, match=r"dog/broken\.png"):
        read(place)


def test_an_image_with_a_damaged_byte_is_either_read_or_named_in_the_error(tmp_path: Path) -> None:
    write_folder(tmp_path, files(each=2))
    raw = noise_png()[:80]
    others = []
    for n in range(len(raw)):
        damaged = bytearray(noise_png())
        damaged[n] ^= 1
        (tmp_path / "dog" / "damaged.png").write_bytes(bytes(damaged))
        try:
            read(tmp_path)
        except DataError as error:
            assert "dog/damaged.png" in str(error)  # noqa: PT017 - most bytes raise, some do not
        except Exception as error:
            others.append((n, repr(error)))
    assert not others


@pytest.mark.parametrize("raw", [b"P6\n8 x\n255\n", b"P6\n8 8\n255\nshort"])
def test_a_damaged_ppm_file_is_named_in_the_error(tmp_path: Path, raw: bytes) -> None:
    write_folder(tmp_path, files() | {"dog/broken.ppm": raw})
    with pytest.raises(DataError, match=r"dog/broken\.ppm"):
        read(tmp_path)


def test_a_damaged_image_inside_a_zip_file_is_named_in_the_error(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", files())
    raw = bytearray(path.read_bytes())
    raw[raw.find(b"IDAT") + 6] ^= 255
    path.write_bytes(bytes(raw))
    with pytest.raises(DataError, match=r"cat/0\.png"):
        read(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_folder_with_a_single_class_is_rejected(tmp_path: Path, zipped: bool) -> None:
    content = {name: raw for name, raw in files().items() if name.startswith("cat")}
    place = write_zip(tmp_path / "x.zip", content) if zipped else write_folder(tmp_path, content)
    with pytest.raises(DataError, match="1 class;"):
        read(place)


def test_an_empty_folder_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="0 classes"):
        read(tmp_path)


@pytest.mark.parametrize("part", ["test", "val"])
def test_the_error_names_a_class_without_training_images(tmp_path: Path, part: str) -> None:
    write_folder(tmp_path, files(prefix="train/") | {f"{part}/cow/1.png": png(1)})
    with pytest.raises(DataError, match="cow"):
        read(tmp_path)


def test_a_folder_named_like_an_image_file_is_not_read_as_an_image(tmp_path: Path) -> None:
    write_folder(tmp_path, files())
    (tmp_path / "cat" / "album.png").mkdir()
    assert_whole(read(tmp_path))


def test_too_few_images_for_the_requested_split_sizes_are_rejected(tmp_path: Path) -> None:
    write_folder(tmp_path, files())
    with pytest.raises(ConfigError, match=r"data\.val_size"):
        load_data(ImageFolder(path=str(tmp_path), size=8, train_size=4, val_size=40))
