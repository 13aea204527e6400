"""A process-wide setting of the C library's allocator."""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of glibc's malloc.h


def keep_freed_memory() -> bool:
    """Let glibc use freed memory again instead of handing it back to the system; return whether it could be told.

    torch asks for every activation and gradient anew, in pieces so large that glibc maps each one freshly, and the
    system then clears them page by page. The process keeps its peak instead. It does nothing without glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    tune = getattr(ctypes.CDLL(None), "mallopt", None)
    if tune is None:
        return False
    return bool(tune(_MMAP_MAX, 0)) and bool(tune(_TRIM_THRESHOLD, 2**31 - 1))
