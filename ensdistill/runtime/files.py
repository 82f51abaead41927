"""Atomic writing of files: a file is either complete or missing."""

import errno
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ensdistill.errors import DataError, MachineError
from ensdistill.runtime.secrets import cleaned


def user_path(name: str) -> Path:
    """Returns the path that a user entered, with `~` expanded; `~name` is kept if no user has this name."""
    return Path(os.path.expanduser(name))


def stand_in(head: bytes) -> str:
    """Describes the placeholder that a file contains instead of its real content, and states the fix.

    Args:
        head: At least the first 100 bytes of the file.

    Returns:
        Description and fix if the content is a Git LFS pointer or a web page; otherwise empty.
    """
    text = head.lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    if text.startswith(b"version https://git-lfs.github.com/"):
        return "a Git LFS pointer, not the file itself; fetch it with `git lfs pull`"
    if text.startswith((b"<!doctype html", b"<html")):
        return "a web page, not the file itself; download it again"
    return ""


def head_of(path: Path) -> bytes:
    """Returns the first 200 bytes of a file."""
    with path.open("rb") as opened:
        return opened.read(200)


def atomic_write(path: str | Path, write: Callable[[Path], Any]) -> None:
    """Writes a file atomically: writes a temporary file in the same folder, then renames it.

    An existing pipe or device, such as /dev/stdout, is written to directly.

    Args:
        path: The file; missing folders are created.
        write: Function that writes the content to the path passed to it.

    Raises:
        DataError: The file cannot be written; the message states the reason.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            write(path)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        synchronize(temporary)  # otherwise the renamed file could be incomplete after a power failure
        os.replace(temporary, path)
        sync_directory(path.parent)  # otherwise a power failure could undo the rename
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_error(path: str | Path, error: OSError, fix: str = "") -> DataError:
    """Returns the error for a file or folder that cannot be written.

    Args:
        path: The file or folder.
        error: The error that was raised.
        fix: Fix to state in the message, unless the disk is full.

    Returns:
        A `MachineError` if the disk is full or a quota is reached, otherwise a plain `DataError`.
    """
    rule = f"{path}: cannot be written ({error.strerror or error})"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return MachineError(f"{rule}; free space on this disk")
    return DataError(f"{rule}; {fix}" if fix else rule)


def synchronize(file: Path) -> None:
    """Synchronizes the content of a file to disk, so that it survives a power failure."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())


def sync_directory(folder: Path) -> None:
    """Synchronizes the directory entries of a folder to disk, so that they survive a power failure.

    Has no effect on file systems that do not support this.
    """
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def atomic_directory_update(folder: Path) -> Iterator[Path]:
    """Provides a temporary folder whose files are moved into `folder` at the end of the block.

    If the block raises an exception, no file is moved.

    Args:
        folder: The folder; it is created if it is missing.

    Yields:
        The temporary folder, inside `folder`.

    Raises:
        DataError: The folder cannot be written; the message states the reason.
    """
    temporary = folder / f".writing-{uuid.uuid4().hex[:8]}"
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for file in sorted(temporary.iterdir()):
            os.replace(file, folder / file.name)
        sync_directory(folder)
    except OSError as error:
        raise write_error(folder, error, "choose another folder") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: str | Path, text: str) -> None:
    """Writes a UTF-8 text file atomically."""
    atomic_write(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: str | Path, value: Any) -> None:
    """Writes a JSON file atomically, with secrets masked; raises ValueError for NaN and infinity."""
    write_text(path, json.dumps(cleaned(value), indent=2, allow_nan=False) + "\n")


def ensure_writable_dir(path: str | Path) -> Path:
    """Creates a folder if it is missing, checks that it is writable, and returns it.

    Args:
        path: The folder.

    Raises:
        DataError: The folder is not writable; the message states the reason.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{uuid.uuid4().hex[:8]}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise write_error(folder, error, "choose another folder") from error
    return folder
