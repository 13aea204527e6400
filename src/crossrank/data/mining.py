"""Hard negatives in two steps: mine a pool of scored candidates once, choose negatives from it at read time."""

import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from crossrank.data.cache import ArrayWriter, save_array
from crossrank.data.pairs import PairIndex
from crossrank.errors import DataError
from crossrank.hub import Asset

log = logging.getLogger(__name__)

NO_CANDIDATE = -1


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
        self, questions: Sequence[str], documents: Sequence[str], k: int, positives: Sequence[npt.NDArray[np.int32]]
    ) -> Iterator[Candidates]:
        """Yield the k best documents of consecutive blocks of questions, and the scores of their `positives`."""
        ...


@dataclass(frozen=True)
class Pool:
    """Per question the best candidates and their scores, memory-mapped; positives are among the candidates or not."""

    candidates: npt.NDArray[np.int32]  # [questions, depth]
    scores: npt.NDArray[np.float32]  # [questions, depth], descending
    positive_offsets: npt.NDArray[np.int64]  # [questions + 1]
    positives: npt.NDArray[np.int32]
    positive_scores: npt.NDArray[np.float32]

    @classmethod
    def open(cls, folder: Path) -> "Pool":
        """Map a pool that `mine` wrote."""
        names = ("candidates", "scores", "positive_offsets", "positives", "positive_scores")
        return cls(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in names))

    def __len__(self) -> int:
        return len(self.candidates)


@dataclass(frozen=True)
class Policy:
    """Which candidates become negatives: the best `negatives` of those that pass.

    The raw best `rank_max + most positives of any question` candidates are looked at; the question's positives are
    taken out; with a `margin`, a candidate is dropped when its score + margin exceeds the lowest score among the
    question's positives (equality is kept); of the rest the ranks [rank_min, rank_max) stay. `sampling` "spread"
    takes, instead of the best, every n-th of those that stay, from the best on: from hard to easy.

    Source: sentence_transformers.util.mine_hard_negatives 6.2, sampling_strategy="top", format "labeled-pair"; where a
    dataset repeats a row, it counts the repeats among a question's positives and looks deeper, which this does not.
    """

    negatives: int = 5
    rank_min: int = 0
    rank_max: int = 100
    margin: float | None = None
    sampling: Literal["top", "spread"] = "top"

    def __post_init__(self) -> None:
        if self.negatives < 1:
            raise ValueError(f"negatives counts documents a question and must be at least 1, got {self.negatives}")
        if not 0 <= self.rank_min < self.rank_max:
            raise ValueError(f"ranks need 0 <= rank_min < rank_max, got {self.rank_min} and {self.rank_max}")
        if self.negatives > self.rank_max - self.rank_min:
            raise ValueError(
                f"the pool holds {self.rank_max - self.rank_min} candidates a question (ranks {self.rank_min} to "
                f"{self.rank_max}), fewer than the {self.negatives} negatives wanted"
            )

    def select(self, pool: Pool, start: int, stop: int) -> npt.NDArray[np.int32]:
        """Return the negatives of questions [start, stop) as int32[questions, negatives], -1 where there are fewer."""
        most = int(np.diff(pool.positive_offsets).max(initial=1))
        ids = np.array(pool.candidates[start:stop, : self.rank_max + most])
        scores = np.array(pool.scores[start:stop, : self.rank_max + most])
        keep = ids != NO_CANDIDATE
        for row, question in enumerate(range(start, stop)):
            own = slice(pool.positive_offsets[question], pool.positive_offsets[question + 1])
            keep[row] &= ~np.isin(ids[row], pool.positives[own])
            if self.margin is not None:
                keep[row] &= scores[row] + np.float32(self.margin) <= pool.positive_scores[own].min()
        rank = np.cumsum(keep, axis=1) - 1  # among those kept
        keep &= (rank >= self.rank_min) & (rank < self.rank_max)
        rows, columns = np.nonzero(keep)
        left = np.full((stop - start, self.rank_max - self.rank_min), NO_CANDIDATE, np.int32)
        left[rows, rank[rows, columns] - self.rank_min] = ids[rows, columns]
        return np.take_along_axis(left, self._places(keep.sum(axis=1)), axis=1)

    def _places(self, left: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return which of the `left` candidates of each question are taken, as [questions, negatives]."""
        places = np.broadcast_to(np.arange(self.negatives), (len(left), self.negatives))
        if self.sampling == "top":
            return places
        return np.where(left[:, None] > self.negatives, places * left[:, None] // self.negatives, places)


def mine(index: PairIndex, miner: Miner, depth: int, folder: Path) -> None:
    """Write a pool into `folder`: the `depth` best documents of each question and room for its positives.

    That is `depth + most positives of any question` candidates, so that `depth` are left once the positives are out.

    Raises:
        DataError: the miner gave a score that is not a number.
    """
    started = time.monotonic()
    questions = len(index.questions)
    most = int(np.diff(index.positive_offsets).max(initial=1))
    depth = min(depth + most, len(index.documents))
    positives = [index.positives_of(question) for question in range(questions)]
    done = 0
    with (
        ArrayWriter(folder / "candidates.npy", (questions, depth), np.int32) as candidates,
        ArrayWriter(folder / "scores.npy", (questions, depth), np.float32) as scores,
        ArrayWriter(folder / "positive_scores.npy", index.positives.shape, np.float32) as positive_scores,
    ):
        for block in miner.search(index.questions, index.documents, depth, positives):
            own = np.concatenate(block.positive_scores)
            if np.isnan(block.scores).any() or np.isnan(own).any():
                raise DataError(f"{type(miner).__name__} gave NaN scores near question {done}; its model is broken")
            candidates.append(block.ids)
            scores.append(block.scores)
            positive_scores.append(own)
            done += len(block.ids)
            log.debug("mined %d of %d questions", done, questions)
    save_array(folder / "positive_offsets.npy", index.positive_offsets)
    save_array(folder / "positives.npy", index.positives)
    seconds = time.monotonic() - started
    (folder / "pool.json").write_text(
        json.dumps({"questions": questions, "depth": depth, "seconds": round(seconds, 1)})
    )
    log.info(
        "mined the %d best of %d documents for %d questions in %.1f s", depth, len(index.documents), questions, seconds
    )


def top_k(scores: npt.NDArray[np.float32], k: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Return ids and scores of each row's k largest, descending, ties in the order of the ids, also at the cut.

    `scores` is [questions, documents]; where k exceeds the documents, the rest is filled with -1 and -inf.

    Raises:
        DataError: a score is not a number.
    """
    if np.isnan(scores.min(initial=np.inf)):  # the minimum of anything with a NaN in it is NaN; needs no memory
        raise DataError("NaN scores among those of the candidates: the model or the texts behind them are broken")
    documents = scores.shape[1]
    wanted = min(k, documents)
    if wanted == documents:
        ids = np.argsort(-scores, axis=1, kind="stable")
    else:
        kth = -np.partition(-scores, wanted - 1, axis=1)[:, wanted - 1]
        above, ties = scores > kth[:, None], scores == kth[:, None]
        room = wanted - above.sum(axis=1)
        chosen = above | (ties & (np.cumsum(ties, axis=1) <= room[:, None]))
        ids = np.nonzero(chosen)[1].reshape(len(scores), wanted)
        order = np.argsort(-np.take_along_axis(scores, ids, 1), axis=1, kind="stable")
        ids = np.take_along_axis(ids, order, 1)
    top = np.take_along_axis(scores, ids, 1)
    if wanted < k:
        ids = np.pad(ids, ((0, 0), (0, k - wanted)), constant_values=NO_CANDIDATE)
        top = np.pad(top, ((0, 0), (0, k - wanted)), constant_values=-np.inf)
    return ids.astype(np.int32), top.astype(np.float32)
