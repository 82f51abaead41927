"""The built-in data sources satisfy the contract."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ensdistill.data import SOURCES, Data, DatasetCall
from ensdistill.settings.pieces import kind_of
from ensdistill.testing import DataSourceContract
from tests.miniature_cifar import write_miniature

SIZES = {"train_size": 20, "val_size": 20, "test_size": 10}
ROWS: dict[str, dict[str, Any]] = {  # and the path, which `piece` creates
    **{kind: {"size": 8} for kind in ("image_folder", "table", "hub_dataset")},
    "torch_dataset": {"size": 8, "train": DatasetCall(path=f"{__name__}:noise_dataset", arguments={"count": 60})},
}


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


def _write_table(root: Path, patch: pytest.MonkeyPatch) -> Path:
    files = sorted(_write_folder(root, patch).rglob("*.png"))
    rows = [f"{file.relative_to(root)},{file.parent.name}" for file in files]
    (root / "images.csv").write_text("\n".join(["path,label", *rows]))
    return root / "images.csv"


def _write_hub(root: Path, patch: pytest.MonkeyPatch) -> Path:
    datasets = pytest.importorskip("datasets")
    noise = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)
    rows = {"image": [Image.fromarray(pixels) for pixels in noise], "label": [n % 2 for n in range(60)]}
    kinds = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    datasets.Dataset.from_dict(rows, kinds).save_to_disk(str(root / "saved"))
    return root / "saved"


def noise_dataset(count: int) -> list[tuple[np.ndarray, int]]:
    noise = np.random.default_rng(0).integers(0, 256, (count, 3, 8, 8), dtype=np.uint8)
    return [(pixels, n % 3) for n, pixels in enumerate(noise)]


FILES: dict[str, Callable[[Path, pytest.MonkeyPatch], Path]] = {  # kind -> function that writes the content of the path
    "image_folder": _write_folder,
    "table": _write_table,
    "hub_dataset": _write_hub,
    "npz": _write_npz,
    "cifar10": lambda root, patch: write_miniature("CIFAR10", root, patch).parent,
    "cifar100": lambda root, patch: write_miniature("CIFAR100", root, patch).parent,
}


@pytest.fixture(scope="module", params=SOURCES.built_in.values(), ids=kind_of)
def piece(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Returns the settings of one source. A new source with required settings other than sizes needs a row above."""
    source = request.param
    kind = kind_of(source)
    row = dict(ROWS.get(kind, {}))
    with pytest.MonkeyPatch.context() as patch:
        if kind in FILES:
            row["path"] = str(FILES[kind](tmp_path_factory.mktemp("images"), patch))
        if source is Data:
            images = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)
            row["content"] = Data.from_arrays(images, np.arange(60) % 3).content
        missing = [name for name, field in source.model_fields.items() if field.is_required() and name not in row]
        assert not missing, f"{source.__name__} needs a row in ROWS or FILES for {missing}"
        yield source(**SIZES, **row)


class TestSources(DataSourceContract):
    pass
