"""Cache folders that are whole or absent: written under a temporary name, synced, then renamed."""

import errno
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from crossrank.data.fingerprint import file_fingerprints
from crossrank.data.progress import progress
from crossrank.errors import CacheError

FULL = (errno.ENOSPC, errno.EDQUOT)  # no room on the disk, or in what one may use of it
DENIED = (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EEXIST)  # a place that cannot be written
CONTENTS = "content.json"  # in each cache folder: the hashes of its other files when it was built


def cached(folder: Path, build: Callable[[Path], None], resumable: bool = False) -> Path:
    """Return `folder`, built by `build(temporary folder)` if it is not there yet.

    Two processes that want the same folder wait for each other; only one builds it. A `resumable` build finds in its
    temporary folder what an interrupted one left there, see `Unfinished`.

    Raises:
        CacheError: the disk is full or the place cannot be written; nothing is left behind but what a resumable build
            can use again.
    """
    if folder.is_dir():
        return folder
    with _disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            if not folder.is_dir():
                with _temporary(folder, resumable) as temporary:
                    build(temporary)
                    (temporary / CONTENTS).write_text(json.dumps(contents(temporary), indent=2) + "\n")
                    for file in temporary.rglob("*"):
                        sync(file)
                    temporary.rename(folder)
                    sync(folder.parent)
    return folder


def contents(folder: Path) -> dict[str, str]:
    """Return 16 hex digits of the content of each file in a cache folder, by its path in there."""
    files = (file for file in folder.rglob("*") if file.is_file() and file.name != CONTENTS)
    return file_fingerprints(folder, files)


def contents_when_built(folder: Path) -> dict[str, str]:
    """Return what `contents` was when the folder was built; nothing where that cannot be read."""
    try:
        return dict(json.loads((folder / CONTENTS).read_text()))
    except (OSError, ValueError, TypeError, RecursionError):
        return {}


class ArrayWriter:
    """Appends blocks of rows to a `.npy` file of known shape, so that the whole array is never in memory.

    Plain writes, not a memory map: a full disk is then an error, not a killed process. With `written` values the file
    is gone on with after so many of them.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: npt.DTypeLike, written: int = 0) -> None:
        self._stream = path.open("r+b" if written else "wb")
        self._dtype = np.dtype(dtype)
        self._left = int(np.prod(shape)) - written
        header = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._stream, header)
        if written:
            self._stream.seek(written * self._dtype.itemsize, os.SEEK_CUR)
            self._stream.truncate()

    def append(self, block: npt.NDArray[Any]) -> None:
        """Write the next rows, cast to the file's dtype."""
        self._left -= block.size
        self._stream.write(np.ascontiguousarray(block, dtype=self._dtype).tobytes())

    def sync(self) -> None:
        """Have what was written on the disk before going on."""
        self._stream.flush()
        os.fsync(self._stream.fileno())

    def __enter__(self) -> "ArrayWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stream.close()
        if kind is None and self._left:
            raise AssertionError(f"{self._left} values were promised and not written")


class Unfinished:
    """Remembers in a folder how much of a long build is safely on the disk, so that it can go on after a kill."""

    def __init__(self, folder: Path, every_seconds: float = 10.0) -> None:
        self._file = folder / "unfinished.json"
        self._every = every_seconds
        self._saved = time.monotonic()
        self.done = 0
        if self._file.is_file():
            self.done = int(json.loads(self._file.read_text(encoding="utf-8"))["done"])

    def add(self, more: int, files: Iterable[ArrayWriter]) -> None:
        """Count what has been appended to the files, and save the count now and then, once the files are synced."""
        self.done += more
        if time.monotonic() - self._saved >= self._every:
            for file in files:
                file.sync()
            new = self._file.with_suffix(".new")
            new.write_text(json.dumps({"done": self.done}), encoding="utf-8")
            sync(new)
            new.rename(self._file)
            self._saved = time.monotonic()

    def finish(self) -> None:
        """Forget the count: the build is whole."""
        self._file.unlink(missing_ok=True)


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
def growing_arrays(folder: Path, dtypes: Mapping[str, npt.DTypeLike]) -> Iterator[Callable[..., None]]:
    """Write `<name>.npy` files whose lengths only the end tells; no whole array is ever in memory.

    The function that is given appends a block to each of them, in the order of the names.
    """
    files = {folder / f"{name}.raw": np.dtype(dtype) for name, dtype in dtypes.items()}
    with ExitStack() as opened:
        streams = [opened.enter_context(file.open("wb")) for file in files]

        def append(*blocks: npt.NDArray[Any]) -> None:
            for stream, dtype, block in zip(streams, files.values(), blocks, strict=True):
                stream.write(np.ascontiguousarray(block, dtype).tobytes())

        yield append
    for file, dtype in files.items():
        length = file.stat().st_size // dtype.itemsize
        with ArrayWriter(file.with_suffix(".npy"), (length,), dtype) as array, file.open("rb") as stream:
            while block := stream.read(1 << 24):
                array.append(np.frombuffer(block, dtype))
        file.unlink()


def write_rows_in_blocks(
    file: Path, shape: tuple[int, int], rows_per_block: int, what: str, block: Callable[[int, int], npt.NDArray[Any]]
) -> None:
    """Write float32[shape] from `block(first row, row after the last)`; `what` is what the progress is called.

    What an interrupted call left in the file's folder is gone on with.
    """
    rows, width = shape
    unfinished = Unfinished(file.parent)
    with (
        ArrayWriter(file, shape, np.float32, unfinished.done * width) as array,
        progress(what, rows, unfinished.done) as advance,
    ):
        while unfinished.done < rows:
            made = block(unfinished.done, min(unfinished.done + rows_per_block, rows))
            array.append(made)
            unfinished.add(len(made), [array])
            advance(len(made))
    unfinished.finish()


@contextmanager
def _temporary(folder: Path, resumable: bool) -> Iterator[Path]:
    if resumable:
        unfinished = folder.with_name(f".{folder.name}.unfinished")
        unfinished.mkdir(exist_ok=True)
        yield unfinished
        return
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
        if error.errno in FULL:
            free = shutil.disk_usage(_existing(folder)).free / 1e9
            raise CacheError(
                f"the disk is full while writing {folder} ({free:.2f} GB free); free some space or choose another "
                "place with cache_dir=FOLDER"
            ) from error
        if error.errno in DENIED:
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
