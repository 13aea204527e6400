"""What is set once in a process, before torch starts its threads."""

import ctypes
import sys

import torch

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of glibc's malloc.h


def prepare_process() -> None:
    """Set both, where the machine can."""
    keep_freed_memory()
    flush_denormals()


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


def flush_denormals() -> bool:
    """Have numbers too small for a float's exponent be 0; return whether the CPU can.

    A moment of AdamW that gets no gradient any more, such as that of a word that no later batch holds, shrinks by a
    constant factor a step. After some 700 steps it is such a number, which a CPU multiplies many times more slowly,
    for good. Threads take the setting over from the one that starts them.
    """
    return torch.set_flush_denormal(True)
