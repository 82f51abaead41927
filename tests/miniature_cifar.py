"""CIFAR in miniature: files in the original format, whose MD5 sums torchvision is configured to expect."""

import hashlib
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision.datasets

NAMES = ("airplane", "automobile")
POOL, TEST = 50, 10  # images


def pixels(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)


def as_in_2009(value: Any) -> bytes:
    """Returns a pickle as written by Python 2 and NumPy of 2009: old module name, integers instead of booleans."""
    raw = pickle.dumps(value, protocol=2)
    return raw.replace(b"cnumpy._core.multiarray", b"cnumpy.core.multiarray").replace(
        b"\x89\x88\x87", b"K\x00K\x01\x87"
    )


def write_miniature(dataset: str, root: Path, patch: pytest.MonkeyPatch) -> Path:
    """Writes `CIFAR10` or `CIFAR100` below the folder: pixels(50, seed 0), pixels(10, seed 1), and labels in turn."""
    original: Any = getattr(torchvision.datasets, dataset)
    folder = root / original.base_folder
    folder.mkdir(parents=True)
    images, test = pixels(POOL, seed=0), pixels(TEST, seed=1)
    names = [name for name, _ in original.train_list]
    each = POOL // len(names)
    patch.setattr(
        original,
        "train_list",
        [
            [name, _write_batch(folder / name, dataset, images[n * each : (n + 1) * each])]
            for n, name in enumerate(names)
        ],
    )
    test_name = original.test_list[0][0]
    patch.setattr(original, "test_list", [[test_name, _write_batch(folder / test_name, dataset, test)]])
    sum_of_meta = _write(folder / original.meta["filename"], {original.meta["key"]: list(NAMES)})
    patch.setattr(original, "meta", {**original.meta, "md5": sum_of_meta})
    return folder


def pack(dataset: str, root: Path, patch: pytest.MonkeyPatch) -> Path:
    """Writes the folder as a .tar.gz next to it, whose MD5 sum is then expected."""
    original: Any = getattr(torchvision.datasets, dataset)
    archive = root / original.filename
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(root / original.base_folder, original.base_folder)
    patch.setattr(original, "tgz_md5", _md5(archive.read_bytes()))
    return archive


def _write_batch(file: Path, dataset: str, images: np.ndarray) -> str:
    labels = [n % len(NAMES) for n in range(len(images))]
    key = "labels" if dataset == "CIFAR10" else "fine_labels"
    return _write(file, {"data": images.reshape(len(images), -1), key: labels})


def _write(file: Path, value: Any) -> str:
    file.write_bytes(as_in_2009(value))
    return _md5(file.read_bytes())


def _md5(raw: bytes) -> str:
    return hashlib.md5(raw, usedforsecurity=False).hexdigest()
