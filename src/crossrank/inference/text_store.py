"""Texts by their ids, in files: of a corpus of any size, only what is looked at is in memory."""

import mmap
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from crossrank.data.cache import cached, save_array
from crossrank.data.fingerprint import file_fingerprint, fingerprint
from crossrank.data.mapped import let_go
from crossrank.data.readers import SUFFIXES
from crossrank.data.texts import DIGEST_BYTES, TEXTS_PER_BLOCK, Texts, digests
from crossrank.errors import DataError
from crossrank.evaluation.formats import each_text, find, stands_twice

TEXTS, DIGESTS, ROWS = "texts.arrow", "digests.npy", "rows.npy"
SCHEMA = pa.schema([("text", pa.large_string())])
KEY = f"S{DIGEST_BYTES}"
UNKNOWN = -1


class TextStore:
    """A folder that `text_store` built, memory-mapped: an Arrow file of texts and the sorted digests of their ids."""

    def __init__(self, folder: Path) -> None:
        self.name = folder.name
        with (folder / TEXTS).open("rb") as stream:
            self._map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        table = pa.ipc.open_file(pa.BufferReader(pa.py_buffer(self._map))).read_all()
        self._texts = Texts(table["text"].chunks)
        self._digests = np.load(folder / DIGESTS, mmap_mode="r")
        self._rows = np.load(folder / ROWS, mmap_mode="r")

    def __len__(self) -> int:
        return len(self._texts)

    def rows(self, ids: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return the row of each id, -1 of an unknown one."""
        if not ids:
            return np.zeros(0, np.int64)
        keys = digests(ids).view(KEY)
        places = np.searchsorted(self._digests, keys).clip(max=len(self) - 1)
        return np.where(self._digests[places] == keys, self._rows[places], UNKNOWN)

    def texts(self, ids: Sequence[str]) -> list[str]:
        """Return the texts of some ids, all of them known."""
        return list(self._texts.take(self.rows(ids)))

    def let_go(self) -> None:
        """Take what was looked at out of this process's memory; the system's cache keeps it."""
        let_go([self._digests, self._rows])
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)


def text_store(place: Path, kind: str, with_titles: bool, cache_dir: Path) -> TextStore:
    """Return the texts of a file with `_id` and `text`, or of the file called `kind` in a folder of the BEIR shape.

    They are written into a cache once, named by the file's content.

    Raises:
        DataError: there is no such file, a row is broken, or an id stands twice.
    """
    file = _file(place, kind)
    named = fingerprint("text-store", file_fingerprint(file), with_titles)
    return TextStore(cached(cache_dir / "texts-by-id" / named, lambda to: _write(file, with_titles, to)))


def _file(place: Path, kind: str) -> Path:
    names = ", ".join(kind + suffix for suffix in SUFFIXES)
    if place.is_dir():
        found = find(place, kind)
        if found is None:
            raise DataError(f"{place}: a folder in the BEIR shape holds one of {names}; this one holds none of them")
        return found
    if not place.is_file():
        raise DataError(f"{place}: no such file or folder; give a {kind} file, or a folder with one of {names}")
    return place


def _write(file: Path, with_titles: bool, folder: Path) -> None:
    keys: list[npt.NDArray[np.bytes_]] = []
    rows = each_text(file, with_titles)
    with pa.OSFile(str(folder / TEXTS), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
        for ids, texts in _blocks(rows):
            writer.write(pa.record_batch([pa.array(texts, pa.large_string())], schema=SCHEMA))
            keys.append(digests(ids).view(KEY))
    unsorted = np.concatenate(keys)
    order = np.argsort(unsorted, kind="stable")
    ordered = unsorted[order]
    twice = np.flatnonzero(ordered[1:] == ordered[:-1])
    if len(twice):
        second = int(order[twice + 1].min())  # rows are numbered from 1, without gaps
        raise next(stands_twice(file, n, key) for n, key, _ in each_text(file) if n == second + 1)
    save_array(folder / DIGESTS, ordered)
    save_array(folder / ROWS, order)


def _blocks(rows: Iterator[tuple[int, str, str]]) -> Iterator[tuple[list[str], list[str]]]:
    while block := list(islice(rows, TEXTS_PER_BLOCK)):
        yield [key for _, key, _ in block], [text for _, _, text in block]
