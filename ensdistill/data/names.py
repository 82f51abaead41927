"""Names of files and classes: readable by every tool, and comparable between systems."""

import unicodedata
from pathlib import Path

from ensdistill.errors import DataError
from ensdistill.runtime.files import user_path
from ensdistill.runtime.text import printable, storable


def class_name(folder: str) -> str:
    """The name of a class in Unicode's composed form: macOS stores `e` and its accent as two letters."""
    return unicodedata.normalize("NFC", folder)


def is_text(name: str) -> bool:
    """Whether UTF-8 can hold this name: files, MLflow and exported models require it."""
    return storable(name) == name


def own_path(text: str) -> Path:
    """The path of a setting, `~` expanded. Raises DataError with the cause if nothing can be read there."""
    try:
        path = user_path(text)
        path.stat()
    except FileNotFoundError:
        raise DataError(f"data.path: {printable(text)} does not exist") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte
        cause = getattr(error, "strerror", None) or error
        raise DataError(f"data.path: {printable(text)} cannot be read: {cause}") from error
    return path
