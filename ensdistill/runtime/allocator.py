"""Memory that a step frees is kept for the next one."""

import ctypes
from contextlib import suppress
from functools import cache

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of <malloc.h>
_NEVER = -1


@cache
def disable_malloc_trim() -> None:
    """Configures the C library to keep freed memory for the lifetime of this process.

    Otherwise every large tensor is mapped again, page by page, which took a fifth of a step on a CPU. (On a GPU torch
    itself keeps what is freed.) Does nothing where the C library is not glibc. A library call must not change the
    process that it runs in: commands and workers call this.
    """
    with suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, _NEVER)
