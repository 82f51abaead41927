"""Decoded images in a store have the same pixels, splits, hashes and statistics as in memory, and are decoded once."""

import json
import os
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ensdistill.data import ImageFolder, Split, load_data, load_test
from ensdistill.data import store as stores
from ensdistill.data.entries import Entry
from ensdistill.data.entry_source import default_size
from ensdistill.data.image_files import ImageFile, Read
from ensdistill.data.shared_images import SharedImages
from ensdistill.errors import DataError
from ensdistill.runtime.files import atomic_write
from ensdistill.training.batch_images import batch_images

SIDE = 8


@pytest.fixture
def in_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores every data set, however small."""
    monkeypatch.setattr(stores, "IN_MEMORY", 0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    noise = np.random.default_rng(0)
    for part, count in (("train", 20), ("test", 6), ("unlabeled/x", 4)):
        for name in ("cat", "dog"):
            home = tmp_path / "images" / part / name
            home.mkdir(parents=True)
            for n in range(count):
                pixels = noise.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(home / f"{n:02d}.png")
    return tmp_path / "images"


def settings(folder: Path) -> ImageFolder:
    return ImageFolder(path=str(folder), size=SIDE, train_size=24, val_size=8)


def parts_of(folder: Path, studies: Path) -> list[Split]:
    data = load_data(settings(folder), studies)
    return [data.train, data.validation, data.unlabeled, load_test(settings(folder), studies)]


def stored(studies: Path) -> list[str]:
    return sorted(path.name for path in (studies / "datasets").iterdir() if not path.name.startswith("."))


def test_a_run_on_images_in_a_store_gives_the_same_metrics_as_on_images_in_memory(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_memory, identity = parts_of(folder, tmp_path), load_data(settings(folder)).identity
    monkeypatch.setattr(stores, "IN_MEMORY", 0)
    shared = parts_of(folder, tmp_path)
    assert load_data(settings(folder), tmp_path).identity == identity
    for one, other in zip(in_memory, shared, strict=True):
        assert isinstance(one.images, torch.Tensor)
        assert isinstance(other.images, SharedImages)
        assert torch.equal(one.images, other.images[:])
        assert torch.equal(one.labels, other.labels)
        assert (one.hashes, one.content) == (other.hashes, other.content)
        for mine, its in zip(one.channel_statistics(), other.channel_statistics(), strict=True):
            assert torch.equal(mine, its)


@pytest.mark.usefixtures("in_files")
def test_channel_statistics_of_a_store_agree_with_numpy(folder: Path, tmp_path: Path) -> None:
    train = load_data(settings(folder), tmp_path).train
    pixels = train.images[:].numpy() / 255
    mean, std = train.channel_statistics()
    np.testing.assert_allclose(mean, pixels.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(std, pixels.std((0, 2, 3)), rtol=1e-6)


@pytest.mark.usefixtures("in_files")
def test_images_are_decoded_once(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_data(settings(folder), tmp_path)
    monkeypatch.setattr(ImageFile, "read", lambda *_: pytest.fail("decoded again"))
    load_test(settings(folder), tmp_path)
    assert len(stored(tmp_path)) == 1


def _change(folder: Path) -> None:
    Image.new("RGB", (SIDE, SIDE), "red").save(folder / "train/cat/00.png")


def _touch(folder: Path) -> None:
    os.utime(folder / "train/cat/00.png", ns=(0, 0))


def _add(folder: Path) -> None:
    shutil.copy(folder / "train/cat/00.png", folder / "train/cat/99.png")


def _remove(folder: Path) -> None:
    (folder / "train/cat/00.png").unlink()


@pytest.mark.usefixtures("in_files")
@pytest.mark.parametrize(("edit", "same"), [(_change, False), (_touch, True), (_add, False), (_remove, False)])
def test_a_new_store_is_built_if_files_are_changed_or_added_or_removed(
    folder: Path, tmp_path: Path, edit: object, same: bool
) -> None:
    before = load_data(settings(folder), tmp_path).identity
    edit(folder)  # type: ignore[operator]
    assert (load_data(settings(folder), tmp_path).identity == before) is same
    assert len(stored(tmp_path)) == 2


@pytest.mark.usefixtures("in_files")
def test_a_failed_build_leaves_no_files_and_reports_every_damaged_file(folder: Path, tmp_path: Path) -> None:
    for name in ("cat/03.png", "dog/05.png"):
        (folder / "train" / name).write_bytes(b"\x89PNG")
    with pytest.raises(DataError, match=r"2 images cannot be read.*train/cat/03.png, train/dog/05.png"):
        load_data(settings(folder), tmp_path)
    assert stored(tmp_path) == []
    assert not list((tmp_path / "datasets").glob(".*writing*"))


@pytest.mark.usefixtures("in_files")
def test_files_left_by_a_killed_build_are_removed(folder: Path, tmp_path: Path) -> None:
    load_data(settings(folder), tmp_path)
    home = tmp_path / "datasets" / stored(tmp_path)[0]
    left = home.with_name(f".{home.name}.writing-0123")
    home.rename(left)
    load_data(settings(folder), tmp_path)
    assert home.is_dir()
    assert not left.exists()


@pytest.mark.usefixtures("in_files")
def test_a_full_disk_is_reported_before_images_are_decoded(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, 1 << 20))  # type: ignore[attr-defined]
    with pytest.raises(
        DataError, match=r"60 decoded images of 3x8x8 need .* but only 1 MiB is free; .*ENSDISTILL_DATASETS"
    ):
        load_data(settings(folder), tmp_path)


@pytest.mark.usefixtures("in_files")
def test_the_store_folder_can_be_set_by_an_environment_variable(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENSDISTILL_DATASETS", str(tmp_path / "fast disk"))
    load_data(settings(folder), tmp_path)
    assert not (tmp_path / "datasets").exists()
    assert len(list((tmp_path / "fast disk").glob("[!.]*"))) == 1


@pytest.mark.usefixtures("in_files")
def test_warnings_about_files_are_kept_in_the_store(folder: Path, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (SIDE, SIDE), color) for color in ("red", "green")]
    frames[0].save(folder / "train/cat/00.png", save_all=True, append_images=frames[1:])
    first, again = ([str(w) for w in load_data(settings(folder), tmp_path).warnings] for _ in range(2))
    assert first == again
    assert any("several frames" in warning for warning in first)


@pytest.mark.usefixtures("in_files")
def test_images_are_pickled_without_pixels_and_read_from_the_same_file(folder: Path, tmp_path: Path) -> None:
    images = load_data(settings(folder), tmp_path).train.images
    packed = pickle.dumps(images)
    assert len(packed) < images[:].nbytes
    assert torch.equal(pickle.loads(packed)[3:7], images[3:7])  # noqa: S301 - written above


@pytest.mark.usefixtures("in_files")
def test_the_arrays_of_a_store_are_plain_numpy_files(folder: Path, tmp_path: Path) -> None:
    data = load_data(settings(folder), tmp_path)
    home = tmp_path / "datasets" / stored(tmp_path)[0]
    array = np.load(home / "images.npy", mmap_mode="r")
    assert array.shape == (60, 3, 8, 8)
    assert json.loads((home / "manifest.json").read_text())["images"] == 60
    assert isinstance(data.train.images, SharedImages)
    np.testing.assert_array_equal(array[data.train.images.index], data.train.images[:])


@pytest.mark.usefixtures("in_files")
def test_a_removed_store_is_reported_and_rebuilt(folder: Path, tmp_path: Path) -> None:
    packed = pickle.dumps(load_data(settings(folder), tmp_path).train.images)
    shutil.rmtree(tmp_path / "datasets" / stored(tmp_path)[0])
    with pytest.raises(DataError, match="decoded images are missing"):
        pickle.loads(packed)[0]  # noqa: S301 - written above
    assert len(load_data(settings(folder), tmp_path).train) == 24


# --- batches ---


@pytest.mark.usefixtures("in_files")
def test_prefetched_batches_equal_those_in_memory(folder: Path, tmp_path: Path) -> None:
    data = load_data(settings(folder), tmp_path)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(0)).split(5)
    more = [torch.arange(n) for n in range(len(order))]  # none precedes the first batch
    ahead = batch_images([data.train.images, data.unlabeled.images], [order, more])
    for images, some, others in zip(ahead, order, more, strict=True):
        expected = torch.cat([data.train.images[:][some], data.unlabeled.images[:][others]])
        assert torch.equal(images, expected)


@pytest.mark.usefixtures("in_files")
def test_an_error_during_prefetching_is_raised_in_the_caller(folder: Path, tmp_path: Path) -> None:
    images = load_data(settings(folder), tmp_path).train.images
    atomic_write(tmp_path / "datasets" / stored(tmp_path)[0] / "images.npy", lambda file: file.write_bytes(b""))
    assert isinstance(images, SharedImages)
    os.truncate(images.file.folder / "images.npy", 0)
    fresh = pickle.loads(pickle.dumps(images))  # noqa: S301 - written above
    with pytest.raises(DataError, match="truncated"):
        list(batch_images([fresh], [[torch.tensor([1])]]))


# --- size and fitting ---


class Stub:
    """A replacement for an image file of a given size."""

    name = stamp = ""

    def __init__(self, width: int, height: int) -> None:
        self.size = width, height

    def sides(self) -> tuple[int, int]:
        return self.size

    def read(self, shape: tuple[int, int, int], resize: object) -> Read:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("sides", "expected"),
    [
        ([(32, 32)] * 3, 32),
        ([(500, 375), (300, 230), (256, 400)], 224),
        ([(200, 100), (96, 300), (90, 90)], 96),
        ([(28, 28)], 28),
        ([(4000, 3000)], 224),
        ([(0, 0), (64, 65)], 64),  # one unreadable file
        ([(2, 2)], 4),
    ],
)
def test_the_default_size_is_the_largest_standard_size_up_to_the_median_shorter_side(
    sides: list[tuple[int, int]], expected: int
) -> None:
    entries: list[Entry] = [Stub(*size) for size in sides]
    assert default_size(entries)[0] == expected


def test_the_default_size_is_printed(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (SIDE + 1, SIDE), "red").save(folder / "train/cat/00.png")
    data = load_data(settings(folder).model_copy(update={"size": None}), tmp_path)
    assert data.train.images.shape[2:] == (SIDE, SIDE)
    assert f"data.size: {SIDE} px" in capsys.readouterr().err


def stripes() -> Iterator[Image.Image]:
    """Yields a wide image that is red, green and blue from left to right, and a tall one, rotated by 90 degrees."""
    wide = Image.new("RGB", (24, 8), "lime")
    wide.paste("red", (0, 0, 8, 8))
    wide.paste("blue", (16, 0, 24, 8))
    yield wide
    yield wide.transpose(Image.Transpose.ROTATE_270)


RED, GREEN, BLUE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0)


@pytest.mark.parametrize(
    ("resize", "expected"),
    [
        ("center_crop", (GREEN, GREEN, GREEN)),
        ("squash", (RED, GREEN, BLUE)),
        ("pad", (BLACK, GREEN, BLACK)),
    ],
)
def test_wide_and_tall_images_become_square(tmp_path: Path, resize: str, expected: tuple[object, ...]) -> None:
    """With `pad`, the tested line runs along a stripe and the black at its ends; otherwise, it crosses all stripes."""
    for number, image in enumerate(stripes()):
        image.save(tmp_path / f"{number}.png")
        pixels = ImageFile(tmp_path, f"{number}.png").pixels((3, 24, 24), resize)  # type: ignore[arg-type]
        across = pixels.transpose(0, 2, 1) if number else pixels
        line = across[:, :, 12] if resize == "pad" else across[:, 12, :]
        assert tuple(tuple(line[:, n].tolist()) for n in (1, 12, 22)) == expected
