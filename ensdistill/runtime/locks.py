"""File locks between processes."""

from pathlib import Path

from filelock import FileLock, Timeout


def is_locked(lock: Path) -> bool:
    """Returns whether a process holds a lock.

    Args:
        lock: The lock file, which need not exist.
    """
    if not lock.exists():
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True
