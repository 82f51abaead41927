"""Files that are either whole or not there."""

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ensdistill.errors import DataError
from ensdistill.runtime.secrets import cleaned


def user_path(name: str) -> Path:
    """The path that a user wrote, its `~` expanded; `~nobody/x` stays as it is, a folder of that name."""
    return Path(os.path.expanduser(name))


def stand_in(head: bytes) -> str:
    """What stands in the place of a file that was not fetched, with the fix; empty if it is not such a thing.

    head: the first bytes of the file, 100 or more.
    """
    text = head.lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    if text.startswith(b"version https://git-lfs.github.com/"):
        return "a Git LFS pointer, not the file itself; fetch it with `git lfs pull`"
    if text.startswith((b"<!doctype html", b"<html")):
        return "a web page, not the file itself; download it again"
    return ""


def head_of(path: Path) -> bytes:
    """The first bytes of a file."""
    with path.open("rb") as opened:
        return opened.read(200)


def atomic_write(path: str | Path, write: Callable[[Path], Any]) -> None:
    """Lets `write` fill a temporary file beside the path, then gives it its name in one move.

    A pipe or device that is there, such as /dev/stdout, is written to as it is.
    Raises DataError with the reason if the place cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            write(path)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())  # or the new name may outlive the power, and the content not
        os.replace(temporary, path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_directory_update(folder: Path) -> Iterator[Path]:
    """A temporary folder inside this one, whose files move into it when the block ends well; none of them otherwise."""
    temporary = folder / f".writing-{uuid.uuid4().hex[:8]}"
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for file in sorted(temporary.iterdir()):
            os.replace(file, folder / file.name)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror or error}); choose another folder") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: str | Path, text: str) -> None:
    """A text file, whole or not at all."""
    atomic_write(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: str | Path, value: Any) -> None:
    """A JSON file without secrets, whole or not at all; NaN and infinity are refused."""
    write_text(path, json.dumps(cleaned(value), indent=2, allow_nan=False) + "\n")


def ensure_writable_dir(path: str | Path) -> Path:
    """The folder, made if it is not there. Raises DataError if nothing can be written in it."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{uuid.uuid4().hex[:8]}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror or error}); choose another folder") from error
    return folder
