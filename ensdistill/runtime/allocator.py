"""Configuration of the C memory allocator."""

import ctypes
from contextlib import suppress
from functools import cache

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # constants of <malloc.h>
_NEVER = -1


@cache
def disable_malloc_trim() -> None:
    """Configures glibc to keep freed memory for the lifetime of the process.

    By default, glibc returns the memory of large tensors to the system, so memory for each new tensor must be mapped
    again, page by page. On a CPU, this mapping took up a fifth of each training step. On a GPU, torch caches freed
    memory itself. With any other C library, the function does nothing. Only commands and workers call it, because a
    library must not reconfigure the process that imports it.
    """
    with suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, _NEVER)
