"""Memory that a step frees is kept for the next one."""

import ctypes
from contextlib import suppress
from functools import cache

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of <malloc.h>
_NEVER = -1


@cache
def disable_malloc_trim() -> None:
    """Tells the C library to give no freed memory back to the system as long as this process lives.

    Otherwise every large tensor is mapped anew, page by page, which took a fifth of a step on a CPU. (On a GPU torch
    itself keeps what is freed.) Does nothing where the C library is not glibc.
    """
    with suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, _NEVER)
