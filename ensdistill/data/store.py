"""Decoded images of a data set: small sets in memory, larger sets in a file that all processes on a machine read.

A store is a folder with a manifest and three NumPy arrays: the images, their hashes, and sums of their values. The name
of a store is a hash of the names, sizes and modification times of all files, and of the shape of the decoded images. A
changed, added or removed file therefore results in a different store. A store is written under a temporary name and
then renamed, so it is either complete or missing.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from ensdistill.data.decoding import Findings, ImageForm, decode
from ensdistill.data.folders import VARIABLE
from ensdistill.data.image_facts import HASH_BYTES, facts_of
from ensdistill.data.shared_images import HASHES, IMAGES, LEVELS, SharedImages, StoreFile
from ensdistill.errors import DataError
from ensdistill.runtime.files import ensure_writable_dir, sync_directory, write_error, write_json
from ensdistill.runtime.formatting import memory_size
from ensdistill.runtime.lazy import np, torch
from ensdistill.runtime.progress_bar import note
from ensdistill.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from ensdistill.data.entries import Entry, FoundEntries

IN_MEMORY = 16 << 20  # bytes of decoded images; data sets up to this size are decoded into the memory of the process
FORMAT = 2  # version of the store format; included in the hash that names a store
MANIFEST = "manifest.json"
RESERVE = 1 << 28  # bytes of disk space that must remain free


def decoded(found: FoundEntries, form: ImageForm, datasets: Path) -> tuple[Tensor | SharedImages, Findings]:
    """Returns the decoded images of a source in the order of `FoundEntries.all`; uses an existing store if possible.

    Args:
        found: The images.
        form: Shape of the decoded images, and how images are resized to it.
        datasets: Folder of all stores.

    Raises:
        DataError: Images cannot be read, or the disk has too little space.
    """
    entries = found.all()
    if size_of(len(entries), form) <= IN_MEMORY:
        return _into_memory(entries, form)
    folder = datasets.absolute() / _key(entries, form, found.origin)
    if not (folder / MANIFEST).is_file():
        ensure_writable_dir(datasets)
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            if not (folder / MANIFEST).is_file():
                _build(entries, form, found.origin, folder)
    images = SharedImages(StoreFile(folder))
    with suppress(OSError):  # another user may own the store
        os.utime(folder)  # records the time of last use, which `ensdistill-tune clean` shows
    return images, Findings(remarks=read_manifest(folder)["remarks"])


def size_of(images: int, form: ImageForm) -> int:
    """Returns the size of decoded images in bytes."""
    return int(images * np.prod(form.shape, dtype=np.int64))


def read_manifest(folder: Path) -> dict[str, Any]:
    """Returns the manifest of a store.

    Raises:
        DataError: The manifest is missing or damaged.
    """
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{folder}: the manifest is damaged; remove this folder and start again") from error
    return manifest


def _into_memory(entries: Sequence[Entry], form: ImageForm) -> tuple[Tensor, Findings]:
    images = np.zeros((len(entries), *form.shape), dtype=np.uint8)
    found = decode(entries, form, images.__setitem__)
    found.refuse()
    return torch.from_numpy(images), found


def _key(entries: Sequence[Entry], form: ImageForm, origin: str) -> str:
    """Returns the name of the store: a hash of everything that determines its content."""
    digest = sha256(repr((FORMAT, origin, form.shape, form.resize)).encode())
    for entry in entries:
        digest.update(f"{entry.name}\0{entry.stamp}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


def _build(entries: Sequence[Entry], form: ImageForm, origin: str, folder: Path) -> None:
    """Decodes the images into a new store. The caller must hold the lock of the store."""
    for left in folder.parent.glob(f".{folder.name}.writing-*"):  # left by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    _check_space(entries, form, folder.parent)
    temporary = folder.with_name(f".{folder.name}.writing-{uuid.uuid4().hex[:8]}")
    try:
        temporary.mkdir()
        found = _decode_into(temporary, entries, form)
        about = {"format": FORMAT, "source": origin, "images": len(entries), "shape": form.shape, "resize": form.resize}
        versions = {"ensdistill": __version__, "pillow": _pillow()}
        write_json(temporary / MANIFEST, about | versions | {"remarks": found.remarks})
        os.rename(temporary, folder)
        sync_directory(folder.parent)
    except OSError as error:
        raise write_error(folder, error, f"set {VARIABLE} to another folder") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _decode_into(folder: Path, entries: Sequence[Entry], form: ImageForm) -> Findings:
    """Writes the three arrays; raises DataError if images cannot be read."""
    size = size_of(1, form)
    hashes = np.zeros((len(entries), HASH_BYTES), dtype=np.uint8)
    levels = np.zeros((len(entries), 2 * form.shape[0] + 1), dtype=np.int64)
    with (folder / IMAGES).open("wb") as file:
        np.lib.format.write_array_header_1_0(file, _header((len(entries), *form.shape)))
        file.flush()
        start, opened = file.tell(), file.fileno()

        def write(number: int, pixels: np.ndarray) -> None:
            pixels = np.ascontiguousarray(pixels)
            done = os.pwrite(opened, pixels.data, start + number * size)
            if done != size:
                raise OSError(f"wrote {done} of {size} bytes")
            own_hash, levels[number] = facts_of(pixels)
            hashes[number] = np.frombuffer(own_hash, dtype=np.uint8)

        found = decode(entries, form, write)
        found.refuse()
        os.fsync(opened)
    for name, array in ((HASHES, hashes), (LEVELS, levels)):
        with (folder / name).open("wb") as file:
            np.save(file, array)
            file.flush()
            os.fsync(file.fileno())
    return found


def _header(shape: tuple[int, ...]) -> dict[str, Any]:
    return {"descr": "|u1", "fortran_order": False, "shape": shape}


def _check_space(entries: Sequence[Entry], form: ImageForm, datasets: Path) -> None:
    need, free = size_of(len(entries), form), shutil.disk_usage(datasets).free
    words = "x".join(map(str, form.shape))
    what = f"{len(entries):,} decoded images of {words} need {memory_size(need)} in {datasets}"
    if need + RESERVE > free:
        fix = f"free disk space, lower data.size, or set {VARIABLE} to a folder on another disk"
        raise DataError(f"data: {what}, but only {memory_size(free)} is free; {fix}")
    note(f"data: {what} ({memory_size(free)} free); all trials read them there")


def _pillow() -> str:
    from PIL import __version__ as version

    return version
