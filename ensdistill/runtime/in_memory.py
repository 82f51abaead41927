"""What a Python program gives instead of files: kept in this process under its content hash.

Settings are plain values, so that they can be stored, compared and searched. A setting that stands for an object in
memory holds the hash of its content, and this table has the object.
"""

from typing import Any

_KEPT: dict[str, Any] = {}  # for as long as the process lives: any settings may name it


def keep(content: str, value: Any) -> None:
    """Keeps an object under the hash of its content."""
    _KEPT.setdefault(content, value)


def kept(content: str) -> Any:
    """Returns the object with this content, or None if this process was not given it."""
    return _KEPT.get(content)
