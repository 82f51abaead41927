"""Objects that a Python program passes instead of files, stored in this process by content hash.

Settings are plain values, so that they can be stored, compared and searched. A setting that refers to an object in
memory contains the hash of the object's content; this module maps the hash to the object.
"""

from typing import Any

_KEPT: dict[str, Any] = {}  # never cleared, because settings in use may refer to any of the objects


def keep(content: str, value: Any) -> None:
    """Stores an object.

    Args:
        content: Hash of the object's content. If an object is already stored under this hash, the new one is ignored.
        value: The object.
    """
    _KEPT.setdefault(content, value)


def kept(content: str) -> Any:
    """Returns the object with the given content hash, or None if this process has not stored it."""
    return _KEPT.get(content)
