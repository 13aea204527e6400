"""A pool: the best candidates of every question and their scores, mined once and kept."""

import json
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from crossrank.data.cache import ArrayWriter, Unfinished, save_array
from crossrank.data.pairs import PairIndex
from crossrank.data.progress import progress
from crossrank.errors import DataError
from crossrank.hub import Asset

log = logging.getLogger(__name__)


class Candidates(NamedTuple):
    """What a miner found for a block of questions, best first; ties stand in the order of the ids."""

    ids: npt.NDArray[np.int32]  # [questions, k]; -1 where there are fewer than k documents
    scores: npt.NDArray[np.float32]  # [questions, k]; -inf beside -1
    positive_scores: Sequence[npt.NDArray[np.float32]]  # per question, its own positives


class Miner(Protocol):
    """Who finds candidates for a question."""

    def assets(self) -> Sequence[Asset]:
        """Return what may have to be fetched."""
        ...

    def fingerprint(self) -> str:
        """Return an id of everything the scores depend on but the texts."""
        ...

    def search(
        self,
        questions: Sequence[str],
        documents: Sequence[str],
        k: int,
        positives: Sequence[npt.NDArray[np.int32]],
        start: int = 0,
        cache_dir: Path | None = None,
    ) -> Iterator[Candidates]:
        """Yield the k best documents of consecutive blocks of questions, and the scores of their `positives`.

        The first block begins with question `start`. What is worth keeping of the documents goes into `cache_dir`.
        """
        ...


@dataclass(frozen=True)
class Pool:
    """Per question the best candidates and their scores, memory-mapped; positives are among the candidates or not."""

    candidates: npt.NDArray[np.int32]  # [questions, depth]
    scores: npt.NDArray[np.float32]  # [questions, depth], descending
    positive_offsets: npt.NDArray[np.int64]  # [questions + 1]
    positives: npt.NDArray[np.int32]
    positive_scores: npt.NDArray[np.float32]
    twins: npt.NDArray[np.uint8] | None = None  # [questions, depth]: not 0 for a document much like a positive
    teacher: npt.NDArray[np.float32] | None = None  # [questions, depth]: a teacher's probability; NaN: not asked

    @classmethod
    def open(cls, folder: Path) -> "Pool":
        """Map a pool that `mine` wrote."""
        names = ("candidates", "scores", "positive_offsets", "positives", "positive_scores")
        return cls(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in names))

    def __len__(self) -> int:
        return len(self.candidates)

    @cached_property
    def most_positives(self) -> int:
        """How many positives the question with the most has."""
        return int(np.diff(self.positive_offsets).max(initial=1))

    def positives_of(
        self, questions: npt.NDArray[np.integer]
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Return the ids and scores of the questions' positives, and for each the place of its question."""
        first = np.asarray(self.positive_offsets[questions])
        counts = np.asarray(self.positive_offsets[np.asarray(questions) + 1]) - first
        rows = np.repeat(np.arange(len(counts)), counts)
        flat = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(first, counts)
        return np.asarray(self.positives[flat]), np.asarray(self.positive_scores[flat]), rows


def mine(index: PairIndex, miner: Miner, depth: int, folder: Path, cache_dir: Path | None = None) -> None:
    """Write a pool into `folder`: the `depth` best documents of each question and room for its positives.

    That is `depth + most positives of any question` candidates, so that `depth` are left once the positives are out.
    What an interrupted call left in `folder` is gone on with.

    Raises:
        DataError: the miner gave a score that is not a number, or as many candidates as there are not.
    """
    started = time.monotonic()
    questions, documents = len(index.questions), len(index.documents)
    width = _width(index, depth)
    positives = [index.positives_of(question) for question in range(questions)]
    unfinished = Unfinished(folder)
    done = unfinished.done
    with ExitStack() as opened:
        candidates, scores = (
            opened.enter_context(ArrayWriter(folder / f"{name}.npy", (questions, width), dtype, done * width))
            for name, dtype in (("candidates", np.int32), ("scores", np.float32))
        )
        before = int(index.positive_offsets[done])
        positive_scores = opened.enter_context(
            ArrayWriter(folder / "positive_scores.npy", index.positives.shape, np.float32, before)
        )
        advance = opened.enter_context(progress("mining", questions, done))
        for block in miner.search(index.questions, index.documents, width, positives, done, cache_dir):
            _check(block, miner, unfinished.done)
            candidates.append(block.ids)
            scores.append(block.scores)
            positive_scores.append(np.concatenate(block.positive_scores))
            unfinished.add(len(block.ids), (candidates, scores, positive_scores))
            advance(len(block.ids))
    save_array(folder / "positive_offsets.npy", index.positive_offsets)
    save_array(folder / "positives.npy", index.positives)
    seconds = time.monotonic() - started
    facts = {"questions": questions, "documents": documents, "depth": width}
    (folder / "pool.json").write_text(json.dumps(facts))
    unfinished.finish()
    log.info("mined the %d best of %d documents for %d questions in %.1f s", width, documents, questions, seconds)


def _width(index: PairIndex, depth: int) -> int:
    """Return how many candidates a question gets; say so where there are fewer documents than wanted."""
    wanted, documents = depth + int(np.diff(index.positive_offsets).max(initial=1)), len(index.documents)
    if documents < wanted:
        log.warning("%d candidates a question are wanted of %d documents: all of them are candidates", depth, documents)
    return min(wanted, documents)


def _check(block: Candidates, miner: Miner, done: int) -> None:
    if np.isnan(block.scores).any() or any(np.isnan(scores).any() for scores in block.positive_scores):
        raise DataError(f"{type(miner).__name__} gave NaN scores near question {done}; its model is broken")
