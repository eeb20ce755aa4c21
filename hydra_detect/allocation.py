"""How the process gets memory for large tensors: an explicit call, never made on import.

glibc maps every large block anew and gives it back at once, so that each layer of a network has its memory zeroed by
the kernel again and again: of a training's CPU time two thirds went there, and of a prediction's 8 to 25 %, when it was
measured. With higher thresholds freed memory is kept and used again; the process then stays as large as it ever was.
"""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's malloc.h
_KEPT_BELOW = 1 << 30
_GIVEN_BACK_FROM = 2**31 - 1  # mallopt takes an int


def keep_freed_memory() -> bool:
    """Have the allocator keep freed memory for the next tensors; for the whole process, once it is called.

    Returns:
        Whether the allocator took it: it is glibc's, on Linux. Elsewhere nothing is changed.

    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl has none
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _KEPT_BELOW)) and bool(mallopt(_TRIM_THRESHOLD, _GIVEN_BACK_FROM))
