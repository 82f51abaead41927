"""What every data source promises: bytes and labels that split into disjoint parts."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from contract_pieces import pieces
from PIL import Image

from ensdistill.data import DataSettings, load_data, load_test

SIZES = {"train": 20, "validation": 20, "test": 10}
ROWS: dict[str, dict[str, Any]] = {"image_folder": {"size": 8}}  # and its path, a folder made by `source`


def _write_images(root: Path) -> None:
    generator = np.random.default_rng(0)
    for name in "ab":
        (root / name).mkdir()
        for n in range(30):
            pixels = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{n}.png")


@pytest.fixture(scope="module", params=pieces(DataSettings), ids=lambda piece: piece.model_fields["kind"].default)
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The settings of one source. A new source that must be given more than sizes needs a row above."""
    piece = request.param
    row = dict(ROWS.get(piece.model_fields["kind"].default, {}))
    if "path" in piece.model_fields:
        root = tmp_path_factory.mktemp("images")
        _write_images(root)
        row["path"] = str(root)
    missing = [name for name, field in piece.model_fields.items() if field.is_required() and name not in row]
    assert not missing, f"{piece.__name__} needs a row in ROWS for {missing}"
    return piece(**SIZES, **row)


def test_images_are_bytes_and_labels_are_classes(source: Any) -> None:
    data = load_data(source)
    for part in (data.train, data.validation, load_test(source)):
        assert part.images.dtype == torch.uint8
        assert part.images.dim() == 4
        assert part.labels.dtype == torch.int64
        assert part.labels.min() >= 0
        assert part.labels.max() < len(data.class_names)
    assert (data.unlabelled.labels == -1).all()


def test_parts_have_the_sizes_asked_for(source: Any) -> None:
    data = load_data(source)
    assert (len(data.train), len(data.validation), len(load_test(source))) == (20, 20, 10)


def test_no_image_is_in_two_parts(source: Any) -> None:
    data = load_data(source)
    parts = [data.train, data.validation, data.unlabelled, load_test(source)]
    images = [image.numpy().tobytes() for part in parts for image in part.images]
    assert len(images) == len(source().pool)
    assert len(set(images)) == len({image.numpy().tobytes() for image in source().pool.images}) == len(images)


def test_same_seed_gives_the_same_data_and_another_seed_others(source: Any) -> None:
    same, other = load_data(source.model_copy()), load_data(source.model_copy(update={"seed": 1}))
    data = load_data(source)
    assert same.identity == data.identity != other.identity
    assert torch.equal(same.train.images, data.train.images)
    assert not torch.equal(other.train.images, data.train.images)


def test_every_class_is_in_every_labelled_part(source: Any) -> None:
    data = load_data(source)
    for part in (data.train, data.validation, load_test(source)):
        assert set(part.labels.tolist()) == set(range(len(data.class_names)))


def test_settings_survive_json(source: Any) -> None:
    assert type(source).model_validate(json.loads(source.model_dump_json())) == source
