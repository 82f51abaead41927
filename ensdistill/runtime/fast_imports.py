"""Imports of large libraries with fewer garbage collections."""

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

RARELY = (50_000, 100, 100)  # thresholds of the garbage collector inside `fast_imports`

_lock = threading.Lock()
_open: list[tuple[int, int, int]] = []  # for each block that has not ended: the thresholds outside all blocks


@contextmanager
def fast_imports() -> Iterator[None]:
    """Collects garbage rarely, in all threads, until the block and all overlapping blocks in other threads have ended.

    An import creates hundreds of thousands of objects that the process keeps. The garbage collector checks them again
    and again, which takes a quarter of the time of importing PyTorch. Networks must not be trained inside the block,
    because tensors in reference cycles would be freed late.
    """
    with _lock:
        _open.append(_open[0] if _open else gc.get_threshold())
        gc.set_threshold(*RARELY)
    try:
        yield
    finally:
        with _lock:
            before = _open.pop()
            if not _open:
                gc.set_threshold(*before)
