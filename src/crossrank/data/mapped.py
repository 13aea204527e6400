"""Keeps memory small: arrays in files, made without being held and mapped without staying, and what is freed."""

import ctypes
import mmap
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa


def new_array(file: Path, length: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return a writable memory map of a new `.npy` file; its place on the disk is taken at once.

    Otherwise a full disk would kill the process that writes.
    """
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": (length,)}
    with file.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        start, size = stream.tell(), length * np.dtype(dtype).itemsize
        stream.truncate(start + size)
        if hasattr(os, "posix_fallocate") and size:
            os.posix_fallocate(stream.fileno(), start, size)
    mapped: npt.NDArray[Any] = np.load(file, mmap_mode="r+")
    return mapped


def let_go(arrays: Iterable[npt.NDArray[Any]]) -> None:
    """Take what has been read of memory-mapped arrays out of this process's memory; the system's cache keeps it."""
    for array in arrays:
        mapped = getattr(array, "_mmap", None)
        if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
            mapped.madvise(mmap.MADV_DONTNEED)


def give_back() -> None:
    """Hand memory that is free in this process back to the system, which glibc and Arrow keep otherwise."""
    pa.default_memory_pool().release_unused()
    if sys.platform.startswith("linux"):
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
