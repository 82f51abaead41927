"""What every data source promises: bytes and labels that split into disjoint parts."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ensdistill.data import DataSettings, load_data, load_test
from tests.miniature_cifar import write_miniature
from tests.unit.contracts.contract_pieces import pieces

SIZES = {"train_size": 20, "val_size": 20, "test_size": 10}
ROWS: dict[str, dict[str, Any]] = {"image_folder": {"size": 8}}  # and its path, which `source` makes


def _write_folder(root: Path, patch: pytest.MonkeyPatch) -> Path:
    generator = np.random.default_rng(0)
    for name in "ab":
        (root / name).mkdir()
        for n in range(30):
            pixels = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{n}.png")
    return root


def _write_npz(root: Path, patch: pytest.MonkeyPatch) -> Path:
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)
    np.savez(root / "images.npz", images=images, labels=np.arange(60) % 3)
    return root / "images.npz"


FILES: dict[str, Callable[[Path, pytest.MonkeyPatch], Path]] = {  # kind -> writes what its path shall lead to
    "image_folder": _write_folder,
    "npz": _write_npz,
    "cifar10": lambda root, patch: write_miniature("CIFAR10", root, patch).parent,
    "cifar100": lambda root, patch: write_miniature("CIFAR100", root, patch).parent,
}


@pytest.fixture(scope="module", params=pieces(DataSettings), ids=lambda piece: piece.model_fields["kind"].default)
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The settings of one source. A new source that must be given more than sizes needs a row above."""
    piece = request.param
    kind = str(piece.model_fields["kind"].default)
    row = dict(ROWS.get(kind, {}))
    with pytest.MonkeyPatch.context() as patch:
        if kind in FILES:
            row["path"] = str(FILES[kind](tmp_path_factory.mktemp("images"), patch))
        missing = [name for name, field in piece.model_fields.items() if field.is_required() and name not in row]
        assert not missing, f"{piece.__name__} needs a row in ROWS or FILES for {missing}"
        yield piece(**SIZES, **row)


def test_images_are_bytes_and_labels_are_classes(source: Any) -> None:
    data = load_data(source)
    for part in (data.train, data.validation, load_test(source)):
        assert part.images.dtype == torch.uint8
        assert part.images.dim() == 4
        assert part.labels.dtype == torch.int64
        assert part.labels.min() >= 0
        assert part.labels.max() < len(data.class_names)
    assert (data.unlabeled.labels == -1).all()


def test_parts_have_the_sizes_asked_for(source: Any) -> None:
    data = load_data(source)
    assert (len(data.train), len(data.validation), len(load_test(source))) == (20, 20, 10)


def test_no_image_is_in_two_parts(source: Any) -> None:
    data = load_data(source)
    parts = [data.train, data.validation, data.unlabeled, load_test(source)]
    images = [image.numpy().tobytes() for part in parts for image in part.images]
    whole = source()
    own = (whole.pool, whole.test, whole.validation, whole.unlabeled)
    there = [image.numpy().tobytes() for part in own if part for image in part.images]
    assert len(images) == len(set(images)) == len(there)
    assert set(images) == set(there)


def test_same_seed_gives_the_same_data_and_another_seed_others(source: Any) -> None:
    same, other = load_data(source.model_copy()), load_data(source.model_copy(update={"seed": 1}))
    data = load_data(source)
    assert same.identity == data.identity != other.identity
    assert torch.equal(same.train.images, data.train.images)
    assert not torch.equal(other.train.images, data.train.images)


def test_every_class_is_in_every_labeled_part(source: Any) -> None:
    data = load_data(source)
    for part in (data.train, data.validation, load_test(source)):
        assert set(part.labels.tolist()) == set(range(len(data.class_names)))


def test_settings_survive_json(source: Any) -> None:
    assert type(source).model_validate(json.loads(source.model_dump_json())) == source
