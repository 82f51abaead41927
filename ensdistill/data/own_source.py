"""Validation of the data that a user-defined data source returns."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from ensdistill.data.entry_source import EntrySource
from ensdistill.data.folders import datasets_folder
from ensdistill.data.shared_images import SharedImages
from ensdistill.data.sizes import SplitSizes
from ensdistill.data.source import DataSource
from ensdistill.data.splits import RawData, Split
from ensdistill.errors import DataError, EnsdistillError
from ensdistill.runtime.boundary import cause_of
from ensdistill.runtime.lazy import torch
from ensdistill.settings.pieces import is_own

PARTS = ("pool", "test", "validation", "unlabeled")


def read(source: DataSource, studies: str | Path = "studies") -> tuple[RawData, SplitSizes]:
    """Returns the images of a source and the sizes of its splits.

    Args:
        source: The data source, built-in or user-defined.
        studies: Folder of all results; decoded images are stored in its `datasets` subfolder.

    Raises:
        DataError: The images cannot be read, or a user-defined source raises an exception or returns invalid data.
    """
    load = partial(source.load, datasets_folder(studies)) if isinstance(source, EntrySource) else source
    if not is_own(source):
        return load(), source.sizes()
    try:
        raw, sizes = load(), source.sizes()
    except EnsdistillError:
        raise
    except Exception as error:  # user code can raise any exception
        raise DataError(f"data: {source.kind} fails ({cause_of(error)}); fix this piece") from error
    for rule in _broken(raw, sizes):
        raise DataError(f"data: {source.kind}: {rule}; fix this piece")
    return raw, sizes


def _broken(raw: Any, sizes: Any) -> list[str]:
    """Returns the violated rules, of which only the first is reported."""
    if not isinstance(raw, RawData):
        return [f"must return RawData, not a {type(raw).__name__}"]
    if not isinstance(sizes, SplitSizes):
        return [f"sizes() must return SplitSizes, not a {type(sizes).__name__}"]
    parts = {name: getattr(raw, name) for name in PARTS}
    return [rule for name, part in parts.items() if part is not None for rule in _of_part(name, part, raw)]


def _of_part(name: str, part: Split, raw: RawData) -> list[str]:
    images, labels, classes = part.images, part.labels, len(raw.class_names)
    if not isinstance(images, torch.Tensor | SharedImages) or images.dtype != torch.uint8 or images.dim() != 4:
        found = f"{images.dtype} {tuple(images.shape)}" if isinstance(images, torch.Tensor) else type(images).__name__
        return [f"images of {name} must be uint8 (N,C,H,W), not {found}"]
    if not isinstance(labels, torch.Tensor) or labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
        found = f"{labels.dtype} {tuple(labels.shape)}" if isinstance(labels, torch.Tensor) else type(labels).__name__
        return [f"labels of {name} must be int64 ({len(images)},), not {found}"]
    least = -1 if name == "unlabeled" else 0
    low, high = (int(labels.min()), int(labels.max())) if len(labels) else (least, least)
    if low < least or high >= classes:
        return [f"labels of {name} must be from {least} to {classes - 1}, not from {low} to {high}"]
    if images.shape[1:] != raw.pool.images.shape[1:]:
        return [f"images of {name} must have the same shape as the images of pool"]
    return []
