"""Candidates of a mined pool that say the same as a positive of their question, and so are no negatives of it."""

import logging
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from crossrank.data.cache import ArrayWriter
from crossrank.data.near_equal import SignedTexts, normalised
from crossrank.errors import DataError

log = logging.getLogger(__name__)

Flags = npt.NDArray[np.uint8]
Ids = npt.NDArray[np.int32]

EQUAL, NEAR, CONTAINS = 1, 2, 4  # bits; see `twins`
ITSELF = 128
QUESTIONS_PER_BLOCK = 1024
COMPARED_AT_ONCE = 2**15  # pairs of signatures: 16 MB at 128 minima
TEXTS_KEPT = 2**16  # normal forms


class MinedPool(NamedTuple):
    """The candidates and the positives of each question, as ids into the documents."""

    candidates: Ids  # [questions, depth]; -1 where there are fewer
    positive_offsets: npt.NDArray[np.int64]  # [questions + 1]
    positives: Ids


def twins(pool: MinedPool, documents: SignedTexts) -> Iterator[Flags]:
    """Yield for consecutive blocks of questions what each candidate is to the question's positives: [block, depth].

    EQUAL: equal to one once normalised; NEAR: near-equal to one; CONTAINS: has all words of one, in a row. An equal
    candidate with any word has all three bits. A positive itself, the lack of a candidate and texts without words are
    0. Equality and containment are exact: a text that holds all n-grams of another has no greater minimum, so only
    such candidates are read, and those of a positive shorter than one n-gram; at most TEXTS_KEPT normal forms are in
    memory. 100,000 questions with 101 of 100,000 documents: 3 seconds on one core, 60 if every positive is one word.

    Raises:
        DataError: an id is none of the documents.
    """
    for name, ids in (("candidates", pool.candidates), ("positives", pool.positives)):
        if ids.size and (ids.max() >= len(documents.texts) or ids.min() < -1):
            raise DataError(
                f"the pool's {name} are ids from {ids.min()} to {ids.max()}, and there are {len(documents.texts)} "
                "documents; it was mined from others"
            )

    @lru_cache(TEXTS_KEPT)
    def padded(document: int) -> str:
        return f" {normalised(documents.texts[document])} "

    for start in range(0, len(pool.candidates), QUESTIONS_PER_BLOCK):
        stop = min(start + QUESTIONS_PER_BLOCK, len(pool.candidates))
        yield _block(pool, start, stop, documents, padded)


def write_twins(pool: MinedPool, documents: SignedTexts, folder: Path) -> None:
    """Write `twins.npy` into `folder`: uint8[questions, depth], see `twins`."""
    counts = np.zeros(256, np.int64)
    with ArrayWriter(folder / "twins.npy", pool.candidates.shape, np.uint8) as file:
        for block in twins(pool, documents):
            file.append(block)
            counts += np.bincount(block.ravel(), minlength=256)
    equal, near, contain = (int(counts[np.arange(256) & bit > 0].sum()) for bit in (EQUAL, NEAR, CONTAINS))
    told = "of %d candidates %d equal a positive of their question, %d are near-equal to one, %d contain one"
    log.info(told, pool.candidates.size, equal, near, contain)


def _block(pool: MinedPool, start: int, stop: int, documents: SignedTexts, padded: Callable[[int], str]) -> Flags:
    candidates = np.asarray(pool.candidates[start:stop])
    offsets = np.asarray(pool.positive_offsets[start : stop + 1])
    positives = np.asarray(pool.positives[offsets[0] : offsets[-1]])
    asked = np.repeat(np.arange(stop - start), np.diff(offsets))
    flags = np.zeros(candidates.shape, np.uint8)
    rows = max(1, COMPARED_AT_ONCE // max(1, candidates.shape[1]))
    for first in range(0, len(positives), rows):  # a question may have thousands
        some = slice(first, first + rows)
        found = _compared(candidates[asked[some]], positives[some], documents, padded)
        np.bitwise_or.at(flags, asked[some], found)
    flags[flags >= ITSELF] = 0
    return flags


def _compared(ids: Ids, own: Ids, documents: SignedTexts, padded: Callable[[int], str]) -> Flags:
    """Return what the candidates `ids` [pairs, depth] are to one positive each, `own` [pairs]."""
    flags = np.where(ids == own[:, None], np.uint8(ITSELF), np.uint8(0))
    forms = [padded(document) for document in own.tolist()]
    words = np.asarray([len(form.split()) for form in forms])
    there = (ids >= 0) & (flags == 0) & (words > 0)[:, None]
    near, within = _by_signature(ids, own, documents, there)
    flags[near] = NEAR
    within |= there & (words < documents.near.words)[:, None]
    rows, columns = np.nonzero(within)
    for row, column, document in zip(rows.tolist(), columns.tolist(), ids[rows, columns].tolist(), strict=True):
        if forms[row] in (form := padded(document)):
            flags[row, column] |= CONTAINS | (EQUAL if forms[row] == form else 0)
    return flags


def _by_signature(
    ids: Ids, own: Ids, documents: SignedTexts, there: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Return which candidates are near-equal to the positive, and which may hold all its n-grams, both [pairs, depth].

    The first minima rule out nearly all of them, so that the rest is rarely read.
    """
    signatures, most = documents.signatures, documents.near.disagreements
    head = min(documents.near.permutations, 2 * (most + 1))
    theirs, ours = signatures[:, :head][ids], signatures[:, :head][own][:, None]
    near = there & (np.count_nonzero(theirs != ours, axis=2) <= most)
    within = there & (theirs <= ours).all(axis=2)
    rows, columns = np.nonzero(near | within)
    theirs, ours = signatures[ids[rows, columns]], signatures[own[rows]]
    near[rows, columns] &= np.count_nonzero(theirs != ours, axis=1) <= most
    within[rows, columns] &= (theirs <= ours).all(axis=1)
    return near, within
