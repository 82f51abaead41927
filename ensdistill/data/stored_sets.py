"""Lists and removes stores of decoded images, and returns the size of a store and whether it is in use."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from ensdistill.data.shared_images import IMAGES
from ensdistill.data.store import MANIFEST, read_manifest
from ensdistill.errors import DataError


def stored_sets(datasets: Path) -> list[Path]:
    """Returns the folders of all stores, including incomplete builds.

    Args:
        datasets: Folder of all stores.
    """
    folders = datasets.iterdir() if datasets.is_dir() else ()
    return sorted(path for path in folders if (path / MANIFEST).is_file() or ".writing-" in path.name)


def size_on_disk(folder: Path) -> int:
    """Returns the total size of all files below a folder, in bytes."""
    total = 0
    for file in folder.rglob("*"):
        with suppress(OSError):  # removed in the meantime
            total += file.stat().st_size if file.is_file() else 0
    return total


def describe(folder: Path) -> str:
    """Returns the number, the shape and the source of the images in a store, as text."""
    try:
        about = read_manifest(folder)
        return f"{about['images']:,} images of {'x'.join(map(str, about['shape']))} from {about['source']}"
    except (DataError, KeyError, TypeError):
        return "incomplete"


def is_used(folder: Path) -> bool:
    """Returns whether a process is reading or building the store."""
    try:
        with _exclusive(folder):
            return False
    except DataError:
        return True


def remove_store(folder: Path) -> None:
    """Removes a store.

    Raises:
        DataError: The store is in use, or it cannot be removed.
    """
    with _exclusive(folder):
        try:
            doomed = folder.with_name(f".{folder.name.strip('.')}.writing-removed")
            os.rename(folder, doomed)  # renamed first, so that no process finds a partial store
            shutil.rmtree(doomed)
        except OSError as error:
            raise DataError(f"{folder} cannot be removed ({error.strerror}); change its permissions") from error


@contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    """Locks a store against other processes inside the block; raises DataError if the store is in use."""
    key = folder.name.strip(".").partition(".")[0]
    try:
        with FileLock(folder.with_name(f".{key}.lock"), timeout=0):
            if not (folder / IMAGES).is_file():
                yield
                return
            with (folder / IMAGES).open("r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield
    except (Timeout, BlockingIOError):
        raise DataError(f"{folder} is in use by another process; wait until that process exits") from None
    except PermissionError as error:
        raise DataError(f"{folder} cannot be locked ({error.strerror}); its owner can remove it") from error
