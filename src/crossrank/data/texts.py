"""Texts that lie in Arrow arrays, memory-mapped as a rule, and not in Python's memory."""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Rows = npt.NDArray[np.int64]
TEXTS_PER_BLOCK = 8192
DIGEST_BYTES = 16  # two of 10^9 texts share one with a probability of 10^-21


class Texts(Sequence[str]):
    """A sequence of texts over Arrow arrays: all of them, one array after the other, or the given `rows` in that order.

    Nothing is copied: a slice or a choice of rows is another view of the same arrays. Equal to any sequence of the
    same texts.
    """

    def __init__(self, arrays: Sequence[Any], rows: Rows | None = None) -> None:
        self._arrays = [array for array in arrays if len(array)]
        self._starts = np.cumsum([0, *map(len, self._arrays)])
        self._rows = rows

    @classmethod
    def of(cls, texts: Sequence[str]) -> "Texts":
        """Return the texts as such a sequence; those that are one already come back as they are."""
        return texts if isinstance(texts, cls) else cls([pa.array(list(texts), pa.large_string())])

    @classmethod
    def joined(cls, parts: Sequence["Texts"]) -> "Texts":
        """Return several sequences as one, one after the other."""
        if all(part._rows is None for part in parts):
            return cls([array for part in parts for array in part._arrays])
        before = np.cumsum([0, *(part._starts[-1] for part in parts)])
        rows = [part._all_rows() + start for part, start in zip(parts, before[:-1], strict=True)]
        return cls([array for part in parts for array in part._arrays], np.concatenate(rows))

    def __len__(self) -> int:
        return int(self._starts[-1]) if self._rows is None else len(self._rows)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> "Texts": ...
    def __getitem__(self, index: int | slice) -> "str | Texts":
        if isinstance(index, slice):
            return self.take(np.arange(*index.indices(len(self))))
        if not -len(self) <= index < len(self):
            raise IndexError(f"there is no text {index} of {len(self)}")
        return next(self._at(np.array([index % len(self)])))

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), TEXTS_PER_BLOCK):
            yield from self._at(np.arange(start, min(start + TEXTS_PER_BLOCK, len(self))))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Texts({', '.join(map(repr, self[:3]))}{', ...' if len(self) > 3 else ''})"

    def take(self, rows: npt.NDArray[np.integer]) -> "Texts":
        """Return the texts of some rows, in that order."""
        own = rows.astype(np.int64) if self._rows is None else self._rows[rows]
        return Texts(self._arrays, own)

    def _all_rows(self) -> Rows:
        return np.arange(len(self)) if self._rows is None else self._rows

    def _at(self, places: Rows) -> Iterator[str]:
        rows = places if self._rows is None else self._rows[places]
        which = np.searchsorted(self._starts, rows, side="right") - 1
        arrays = self._arrays
        for array, row in zip(which.tolist(), (rows - self._starts[which]).tolist(), strict=True):
            yield arrays[array][row].as_py()


def taken(texts: Sequence[str], rows: npt.NDArray[np.integer]) -> Sequence[str]:
    """Return the texts of some rows, in that order."""
    return texts.take(rows) if isinstance(texts, Texts) else [texts[row] for row in rows]


def digests(*parts: Sequence[str]) -> npt.NDArray[np.void]:
    """Return the BLAKE2b digest of each text as void16[texts]: equal exactly where the texts are, and shorter.

    Source: RFC 7693.
    """
    held = bytearray(DIGEST_BYTES * sum(map(len, parts)))
    for start, text in zip(range(0, len(held), DIGEST_BYTES), chain(*parts), strict=True):
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).digest()
        held[start : start + DIGEST_BYTES] = digest
    return np.frombuffer(held, f"V{DIGEST_BYTES}")


def codes_by_appearance(keys: npt.NDArray[np.void]) -> tuple[npt.NDArray[np.int32], Rows]:
    """Number distinct digests in order of first appearance: the number of each, and where each number stands first."""
    array = pa.Array.from_buffers(pa.binary(keys.dtype.itemsize), len(keys), [None, pa.py_buffer(keys)])
    codes = array.dictionary_encode().indices.to_numpy()
    first = np.flatnonzero(np.diff(np.maximum.accumulate(codes), prepend=-1))
    return codes, first
