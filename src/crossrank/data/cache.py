"""Cache folders that are whole or absent: written under a temporary name, synced, then renamed."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from crossrank.errors import CacheError


def cached(folder: Path, build: Callable[[Path], None]) -> Path:
    """Return `folder`, built by `build(temporary folder)` if it is not there yet.

    Two processes that want the same folder wait for each other; only one builds it.

    Raises:
        CacheError: the disk is full or the place cannot be written; no part of the folder is left behind.
    """
    if folder.is_dir():
        return folder
    with _disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            if not folder.is_dir():
                with _temporary(folder) as temporary:
                    build(temporary)
                    for file in temporary.rglob("*"):
                        sync(file)
                    temporary.rename(folder)
                    sync(folder.parent)
    return folder


class ArrayWriter:
    """Appends blocks of rows to a `.npy` file of known shape, so that the whole array is never in memory.

    Plain writes, not a memory map: a full disk is then an error, not a killed process.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        self._stream = path.open("wb")
        self._dtype = np.dtype(dtype)
        self._left = int(np.prod(shape))
        header = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._stream, header)

    def append(self, block: npt.NDArray[Any]) -> None:
        """Write the next rows, cast to the file's dtype."""
        self._left -= block.size
        self._stream.write(np.ascontiguousarray(block, dtype=self._dtype).tobytes())

    def __enter__(self) -> "ArrayWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stream.close()
        if kind is None and self._left:
            raise AssertionError(f"{self._left} values were promised and not written")


def save_array(path: Path, array: npt.NDArray[Any]) -> None:
    """Write a `.npy` file; `np.save` would not say that the disk is full, only that bytes are missing."""
    with ArrayWriter(path, array.shape, array.dtype) as file:
        file.append(array)


def replace_text(file: Path, text: str) -> None:
    """Write a file, with its folder, whole or not at all: a kill leaves what was there."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    sync(temporary)
    temporary.replace(file)


@contextmanager
def _temporary(folder: Path) -> Iterator[Path]:
    temporary = folder.with_name(f".{folder.name}.tmp-{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = shutil.disk_usage(_existing(folder)).free / 1e9
            raise CacheError(
                f"the disk is full while writing {folder} ({free:.2f} GB free); free some space or choose another "
                "place with cache_dir=FOLDER"
            ) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EEXIST):
            raise CacheError(
                f"cannot write {folder}: {error.strerror}; choose another place with cache_dir=FOLDER"
            ) from error
        raise


def _existing(folder: Path) -> Path:
    return next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk before going on."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
