"""Teachers that are not torch networks: a file stores their predictions for all images of a data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ensdistill.data.image_facts import image_hashes
from ensdistill.errors import DataError
from ensdistill.models.teacher_files import LoadedTeacher
from ensdistill.runtime.files import user_path
from ensdistill.runtime.text import counted
from ensdistill.runtime.weights import fingerprint

if TYPE_CHECKING:
    from ensdistill.data import RawData, Split

SETTING = "teachers.predictions"


class PredictionTable:
    """Logits of M teachers, indexed by image content."""

    def __init__(self, logits: Tensor, places: dict[bytes, int]) -> None:
        """Stores the table.

        Args:
            logits: Logits (M,N,classes).
            places: Index of each image in the table, 0 to N - 1, keyed by the hash of the image.
        """
        self.logits, self.places = logits, places

    def __deepcopy__(self, memo: dict[int, Any]) -> PredictionTable:
        return self  # immutable, so copies of networks can share the table

    def look_up(self, teacher: int, images: Tensor) -> Tensor:
        """Returns the logits (B,classes) of one teacher for images (B,C,H,W) in [0,1].

        Raises:
            DataError: An image is not part of the data set.
        """
        pixels = (images.detach().cpu() * 255).round().to(torch.uint8)
        found = [self.places.get(key) for key in image_hashes(pixels)]
        if missing := found.count(None):
            raise DataError(
                f"{SETTING}: no predictions for {counted(missing, 'image')} of {len(found)}, because the file covers "
                "only unmodified images of the data set; switch off perturbation, augmentation and corruptions"
            )
        return self.logits[teacher][torch.tensor(found, dtype=torch.long)].to(images.device)


class StoredTeacher(nn.Module):
    """One teacher from a prediction table: images (B,C,H,W) in [0,1] -> logits (B,classes)."""

    def __init__(self, table: PredictionTable, teacher: int) -> None:
        super().__init__()
        self.table, self.teacher = table, teacher

    def forward(self, x: Tensor) -> Tensor:
        return self.table.look_up(self.teacher, x)


def read_predictions(path: str, raw: RawData) -> list[LoadedTeacher]:
    """Returns the teachers whose predictions a .npz file contains.

    Args:
        path: The file. The array `train_logits` or `train_probabilities` (M,N,classes) contains the predictions
            of M teachers for the labeled images of the data source. The images are in the order of the source,
            before any split. Likewise, `validation_...`, `test_...` and `unlabeled_...` contain predictions for
            the other splits of the source.
        raw: The images.

    Raises:
        DataError: The file cannot be read, or an array is missing or invalid.
    """
    file, classes = user_path(path), len(raw.class_names)
    arrays = _read(file)
    parts = {"train": raw.pool, "validation": raw.validation, "test": raw.test, "unlabeled": raw.unlabeled}
    there = {name: part for name, part in parts.items() if part is not None}
    logits = {name: _part(arrays, name, part, classes) for name, part in there.items() if _wanted(arrays, name)}
    if unused := sorted(set(arrays) - {f"{name}_{kind}" for name in there for kind in _KINDS}):
        raise DataError(
            f"{SETTING}: {unused[0]} matches no split of this data set, which has {', '.join(there)}; remove the array"
        )
    counts = {name: len(array) for name, array in logits.items()}
    if len(set(counts.values())) > 1:
        raise DataError(
            f"{SETTING}: all splits must have the same number of teachers, but have {counts}; add the missing "
            "predictions"
        )
    keys = [key for name in logits for key in there[name].hashes]
    table = _table(torch.cat(list(logits.values()), 1), keys)
    origins = [{"predictions": fingerprint(file), "teacher": m} for m in range(counts["train"])]
    return [LoadedTeacher(StoredTeacher(table, m), origin) for m, origin in enumerate(origins)]


_KINDS = ("logits", "probabilities")


def _wanted(arrays: dict[str, np.ndarray], name: str) -> bool:
    """Returns whether predictions for a split are read; predictions for unlabeled images are optional."""
    return name != "unlabeled" or any(f"{name}_{kind}" in arrays for kind in _KINDS)


def _table(every: Tensor, keys: list[bytes]) -> PredictionTable:
    """Returns the table of logits (M,N,classes) for images with these N hashes; equal images share one entry.

    Raises:
        DataError: Equal images have different logits.
    """
    first = {key: n for n, key in reversed(list(enumerate(keys)))}
    places = {key: place for place, key in enumerate(first)}
    logits = every[:, list(first.values())]
    apart = (logits[:, [places[key] for key in keys]] - every).abs().amax((0, 2)) > 1e-3
    if apart.any():
        raise DataError(
            f"{SETTING}: identical images must have equal predictions, got different predictions for "
            f"{counted(int(apart.sum()), 'image')}; correct them"
        )
    return PredictionTable(logits, places)


def _read(file: Path) -> dict[str, np.ndarray]:
    """Returns the arrays of a .npz file; raises DataError if it is missing or damaged."""
    if not file.is_file():
        raise DataError(f"{SETTING}: no such file: {file}; give a .npz file with train_logits or train_probabilities")
    try:
        with np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # zip, zlib and NumPy raise a dozen different errors for a damaged file
        raise DataError(
            f"{SETTING}: {file} is not a readable .npz file of plain arrays ({error}); write it with numpy.savez"
        ) from error


def _part(arrays: dict[str, np.ndarray], name: str, part: Split, classes: int) -> Tensor:
    """Returns the logits (M,N,classes) for one split; raises DataError if they are missing or invalid."""
    found = [f"{name}_{kind}" for kind in _KINDS if f"{name}_{kind}" in arrays]
    if len(found) != 1:
        there = f"only {', '.join(arrays)}" if arrays else "no array"
        state = "both; remove one of them" if found else f"{there}; add one of them"
        rule = f"the file must contain either {name}_logits or {name}_probabilities"
        raise DataError(f"{SETTING}: {rule}, but contains {state}")
    array, wanted = arrays[found[0]], ("M", len(part), classes)
    if array.ndim != 3 or array.shape[1:] != wanted[1:] or not len(array) or array.dtype.kind != "f":
        rule = f"(M,{wanted[1]},{wanted[2]}) for M teachers, {wanted[1]} images and {classes} classes"
        raise DataError(f"{SETTING}: {found[0]} is {array.dtype} of shape {array.shape}; give floats of shape {rule}")
    if not np.isfinite(array).all():
        raise DataError(f"{SETTING}: {found[0]} contains NaN or infinite values; give finite numbers")
    values = torch.from_numpy(array.astype(np.float32))
    if found[0].endswith("_logits"):
        return values
    if array.min() < 0 or np.abs(array.sum(-1) - 1).max() > 1e-3:
        raise DataError(
            f"{SETTING}: the values of {found[0]} must be from 0 to 1, with a sum of 1 per image; "
            f"if the array contains logits, name it {name}_logits"
        )
    return values.clamp(min=1e-30).log()
