"""Normalization of file and class names, so that they are identical on all operating systems."""

import unicodedata
from pathlib import Path

from ensdistill.errors import DataError
from ensdistill.runtime.files import user_path
from ensdistill.runtime.text import printable, storable


def class_name(folder: str) -> str:
    """Returns a class name in Unicode's composed form, because macOS stores letters and accents separately."""
    return unicodedata.normalize("NFC", folder)


def is_text(name: str) -> bool:
    """Returns whether UTF-8 can encode a name, as files, MLflow and exported models require."""
    return storable(name) == name


def own_path(text: str) -> Path:
    """Returns the path in the `data.path` setting, with `~` expanded.

    Args:
        text: Value of the setting.

    Raises:
        DataError: The path does not exist or cannot be read; the message states the cause.
    """
    try:
        path = user_path(text)
        path.stat()
    except FileNotFoundError:
        raise DataError(f"data.path: {printable(text)} does not exist") from None
    except (OSError, ValueError) as error:  # ValueError: the path contains a null byte
        cause = getattr(error, "strerror", None) or error
        raise DataError(f"data.path: {printable(text)} cannot be read: {cause}") from error
    return path
