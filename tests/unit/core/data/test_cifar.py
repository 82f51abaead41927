"""CIFAR from miniature copies of its original files: complete, packed, damaged and manipulated."""

import os
import pickle
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision.datasets
import torchvision.datasets.utils

from ensdistill.data import Cifar10, Cifar100, RawData, load_data, load_test
from ensdistill.errors import DataError
from tests.miniature_cifar import NAMES, pack, pixels, write_miniature

ALL = pytest.mark.parametrize(("settings", "dataset"), [(Cifar10, "CIFAR10"), (Cifar100, "CIFAR100")])


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replaces downloads so that no test uses the network; records the requested URLs."""
    asked: list[str] = []

    def refuse(url: str, *_: Any, **__: Any) -> None:
        asked.append(url)
        raise OSError("no network in tests")

    for name in ("_get_redirect_url", "_urlretrieve"):
        monkeypatch.setattr(torchvision.datasets.utils, name, refuse)
    return asked


def assert_whole(source: RawData) -> None:
    assert source.class_names == NAMES
    assert source.pool.images.dtype == torch.uint8
    assert torch.equal(source.pool.images, torch.from_numpy(pixels(50, seed=0)))
    assert source.pool.labels.tolist() == [0, 1] * 25
    assert source.test is not None
    assert torch.equal(source.test.images, torch.from_numpy(pixels(10, seed=1)))
    assert source.test.labels.tolist() == [0, 1] * 5


@ALL
def test_the_original_files_give_both_splits_in_the_order_of_the_files(
    settings: Any, dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_miniature(dataset, tmp_path, monkeypatch)
    assert_whole(settings(path=str(tmp_path))())


def test_the_path_may_be_the_folder_that_contains_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_miniature("CIFAR10", tmp_path, monkeypatch)
    assert_whole(Cifar10(path=str(folder))())


@ALL
@pytest.mark.parametrize("given", ["folder", "archive"])
@pytest.mark.parametrize("left", ["nothing", "half a file"])
def test_an_archive_is_unpacked_without_network_access(
    settings: Any,
    dataset: str,
    given: str,
    left: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    no_network: list[str],
) -> None:
    folder = write_miniature(dataset, tmp_path, monkeypatch)
    archive = pack(dataset, tmp_path, monkeypatch)
    if left == "nothing":
        shutil.rmtree(folder)
    else:
        file = sorted(folder.iterdir())[-1]
        file.write_bytes(file.read_bytes()[:1000])
    assert_whole(settings(path=str(archive if given == "archive" else tmp_path))())
    assert no_network == []


def test_the_original_2009_files_are_read_without_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_miniature("CIFAR10", tmp_path, monkeypatch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_whole(Cifar10(path=str(tmp_path))())


def test_the_test_split_of_the_data_set_is_kept_for_any_training_and_validation_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_miniature("CIFAR10", tmp_path, monkeypatch)
    settings = Cifar10(path=str(tmp_path), train_size=30, val_size=10, test_size=4)
    data = load_data(settings)
    assert (len(data.train), len(data.validation), len(data.unlabeled)) == (30, 10, 10)
    assert torch.equal(load_test(settings).images, torch.from_numpy(pixels(10, seed=1)))


@ALL
def test_the_default_split_sizes_are_45000_and_5000(settings: Any, dataset: str) -> None:
    assert (settings(path="x").train_size, settings(path="x").val_size) == (45_000, 5_000)


# --- invalid data ---


@ALL
def test_missing_files_are_not_downloaded_by_default(
    settings: Any, dataset: str, tmp_path: Path, no_network: list[str]
) -> None:
    with pytest.raises(DataError, match=r"^data\.path: .*nowhere.*tar\.gz.*data\.download") as caught:
        settings(path=str(tmp_path / "nowhere"))()
    assert getattr(torchvision.datasets, dataset).url in str(caught.value)
    assert no_network == []
    assert not (tmp_path / "nowhere").exists()


@ALL
def test_missing_files_are_downloaded_from_the_site_of_the_authors_on_request(
    settings: Any, dataset: str, tmp_path: Path, no_network: list[str]
) -> None:
    with pytest.raises(DataError, match=r"^data\.download: .*no network in tests"):
        settings(path=str(tmp_path), download=True)()
    assert set(no_network) <= {getattr(torchvision.datasets, dataset).url}
    assert no_network


@pytest.mark.parametrize("file", ["data_batch_3", "test_batch", "batches.meta"])
def test_a_file_with_an_unexpected_md5_sum_is_rejected_before_it_is_unpickled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    folder = write_miniature("CIFAR10", tmp_path, monkeypatch)
    (folder / file).write_bytes(pickle.dumps(_Marker(str(tmp_path / "marker"))))
    with pytest.raises(DataError, match=r"data\.path"):
        Cifar10(path=str(tmp_path))()
    assert not (tmp_path / "marker").exists()


class _Marker:
    """Creates a folder when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (self.path,)


def test_unpickling_the_marker_used_in_these_tests_creates_a_folder(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(_Marker(str(tmp_path / "marker"))))  # noqa: S301 - our own bytes
    assert (tmp_path / "marker").exists()


@pytest.mark.parametrize("download", [False, True])
def test_a_damaged_archive_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: list[str], download: bool
) -> None:
    folder = write_miniature("CIFAR10", tmp_path, monkeypatch)
    archive = pack("CIFAR10", tmp_path, monkeypatch)
    shutil.rmtree(folder)
    archive.write_bytes(archive.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"cifar-10-python\.tar\.gz"):
        Cifar10(path=str(tmp_path), download=download)()
    assert bool(no_network) == download
    assert not folder.exists()


def test_the_path_is_required_and_has_no_default() -> None:
    with pytest.raises(ValueError, match="path"):
        Cifar10()  # type: ignore[call-arg]
