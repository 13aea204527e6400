"""Which of a question's candidates become its negatives: decided when the pool is read, never when it is mined."""

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from crossrank.data.mining import Pool
from crossrank.data.search import NO_CANDIDATE

Bools = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.integer]
Value = TypeVar("Value", np.int32, np.bool_)


class Negatives(NamedTuple):
    """What a policy took of each question's candidates, best first."""

    documents: npt.NDArray[np.int32]  # [questions, negatives]; -1 where there are fewer
    positive: Bools  # [questions, negatives]: one of the question's positives
    relevant: Bools  # [questions, negatives]: a positive, or relabelled as if it were one
    columns: npt.NDArray[np.int32]  # [questions, negatives]: where in the pool; -1 where there are fewer


@dataclass(frozen=True)
class Policy:
    """Takes `negatives` of those candidates that pass.

    The raw best `rank_max + most positives of any question` candidates are looked at. Left out are the question's
    positives (unless `include_positives`), its twins (`drop_twins`: documents equal, nearly equal to, or containing
    one of its positives), and, t being the lowest score among its positives, whatever scores s with
    s + `absolute_margin` > t, s > t - |t| * `relative_margin`, s > `max_score` or s < `min_score`. Of the rest the
    ranks [rank_min, rank_max) stay, and of those are taken by `sampling`: "top", the best; "random", any;
    "stratified", one at random of each of `negatives` equal ranges of ranks; "spread", every n-th from the best on.

    `fresh` draws anew in every epoch. What is drawn is a function of `seed`, epoch and question alone.

    Where a teacher has scored the pool, `teacher_above` is the probability above which a candidate counts as
    relevant: `denoise` "drop" leaves it out, "relabel" labels it 1. A candidate that the teacher has not seen is then
    not taken. Source: the denoising of RocketQA (arXiv:2010.08191), whose threshold was 0.9.

    Source of ranks, margins and scores: sentence_transformers.util.mine_hard_negatives 6.2, which takes `rank_min` for
    range_min and `rank_max` for range_max and knows no twins; where a data set repeats a row, it counts the repeats
    among a question's positives and looks deeper, which this does not.
    """

    negatives: int = 5
    rank_min: int = 0
    rank_max: int = 100
    absolute_margin: float | None = None
    relative_margin: float | None = None
    min_score: float | None = None
    max_score: float | None = None
    sampling: Literal["top", "random", "stratified", "spread"] = "top"
    fresh: bool = False
    seed: int = 12
    include_positives: bool = False
    drop_twins: bool = True
    denoise: Literal["drop", "relabel"] = "drop"
    teacher_above: float = 0.9

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
        if self.min_score is not None and self.max_score is not None and self.min_score > self.max_score:
            raise ValueError(f"no score is at least {self.min_score} and at most {self.max_score}")
        if not 0 < self.teacher_above < 1:
            raise ValueError(f"teacher_above is a probability between 0 and 1, got {self.teacher_above}")
        if self.fresh and self.sampling in ("top", "spread"):
            raise ValueError(f"sampling {self.sampling!r} draws nothing, so fresh negatives need random or stratified")
        if self.fresh and self.include_positives:
            raise ValueError("include_positives makes rows that depend on the draw, so it goes without fresh negatives")

    def select(self, pool: Pool, questions: Integers, epoch: int = 0) -> Negatives:
        """Return the negatives of the given questions; `epoch` matters for fresh negatives only."""
        seen = _Seen(pool, questions, self.rank_max)
        keep = self._surviving(seen)
        rows, columns = np.nonzero(keep)
        left = np.full((len(keep), self.rank_max - self.rank_min), keep.shape[1], np.int64)  # the last column is none
        left[rows, (np.cumsum(keep, axis=1) - 1)[rows, columns]] = columns
        places = self._places(keep.sum(axis=1), np.asarray(questions), epoch if self.fresh else 0)
        chosen = np.take_along_axis(left, places, axis=1)
        relevant = seen.is_positive | (self._relevant_to_teacher(seen) & (self.denoise == "relabel"))
        return Negatives(
            _at(seen.ids, chosen, NO_CANDIDATE),
            _at(seen.is_positive, chosen, False),
            _at(relevant, chosen, False),
            np.where(chosen == keep.shape[1], NO_CANDIDATE, chosen).astype(np.int32),
        )

    def surviving(self, pool: Pool, questions: Integers) -> Bools:
        """Return bool[questions, candidates looked at]: which of the pool's candidates `sampling` chooses among."""
        return self._surviving(_Seen(pool, questions, self.rank_max))

    def _surviving(self, seen: "_Seen") -> Bools:
        keep = self._passing(seen)
        rank = np.cumsum(keep, axis=1) - 1  # among those that pass
        keep &= (rank >= self.rank_min) & (rank < self.rank_max)
        return keep

    def _passing(self, seen: "_Seen") -> Bools:
        """Return bool[questions, candidates]: those that may be taken, at whatever rank."""
        scores, lowest = seen.scores, seen.lowest_positive
        keep: Bools = seen.ids != NO_CANDIDATE
        if not self.include_positives:
            keep &= ~seen.is_positive
        if self.absolute_margin is not None:
            keep &= scores + np.float32(self.absolute_margin) <= lowest
        if self.relative_margin is not None:
            keep &= scores <= lowest - np.abs(lowest) * np.float32(self.relative_margin)
        if self.max_score is not None:
            keep &= scores <= np.float32(self.max_score)
        if self.min_score is not None:
            keep &= scores >= np.float32(self.min_score)
        if self.drop_twins and seen.twins is not None:
            keep &= seen.twins == 0
        if seen.teacher is not None:
            keep &= ~np.isnan(seen.teacher)
            keep &= ~self._relevant_to_teacher(seen) | (self.denoise == "relabel")
        return keep

    def _relevant_to_teacher(self, seen: "_Seen") -> Bools:
        if seen.teacher is None:
            return np.zeros(seen.ids.shape, bool)
        above: Bools = np.greater(seen.teacher, self.teacher_above)
        return above

    def _places(self, left: Integers, questions: Integers, epoch: int) -> Integers:
        """Return which of the `left` candidates of each question are taken, ascending, as [questions, negatives]."""
        places = np.broadcast_to(np.arange(self.negatives), (len(left), self.negatives))
        if self.sampling == "top":
            return places
        if self.sampling == "random":
            wide = np.broadcast_to(np.arange(self.rank_max - self.rank_min), (len(left), self.rank_max - self.rank_min))
            keys = hashed(self.seed, epoch, questions, wide)
            keys[wide >= left[:, None]] = np.iinfo(np.uint64).max
            drawn = np.sort(np.argsort(keys, axis=1, kind="stable")[:, : self.negatives], axis=1)
        else:
            low, high = (edge * left[:, None] // self.negatives for edge in (places, places + 1))
            inside = hashed(self.seed, epoch, questions, places) % np.maximum(high - low, 1).astype(np.uint64)
            drawn = low + (inside.astype(np.int64) if self.sampling == "stratified" else 0)
        return np.where(left[:, None] > self.negatives, drawn, places)


class _Seen:
    """What a policy looks at of some questions' candidates, each [questions, candidates]."""

    def __init__(self, pool: Pool, questions: Integers, rank_max: int) -> None:
        columns = slice(rank_max + pool.most_positives)
        self.ids = np.array(pool.candidates[questions, columns])
        self.scores = np.array(pool.scores[questions, columns])
        self.twins = None if pool.twins is None else np.array(pool.twins[questions, columns])
        self.teacher = None if pool.teacher is None else np.array(pool.teacher[questions, columns])
        own, own_scores, rows = pool.positives_of(questions)
        asked = np.arange(len(self.ids), dtype=np.int64)[:, None] << 32
        self.is_positive: Bools = np.isin(asked + self.ids, (rows << 32) + own)
        self.lowest_positive = np.full((len(self.ids), 1), np.inf, np.float32)
        np.minimum.at(self.lowest_positive[:, 0], rows, own_scores)


def _at(values: npt.NDArray[Value], columns: Integers, none: int | bool) -> npt.NDArray[Value]:
    """Return values[i, columns[i, j]], and `none` where the column is the one after the last."""
    padded = np.concatenate([values, np.full((len(values), 1), none, values.dtype)], axis=1)
    return np.take_along_axis(padded, columns, axis=1)


def hashed(seed: int, epoch: int, questions: Integers, numbers: Integers) -> npt.NDArray[np.uint64]:
    """Return uint64[questions, numbers], as good as random and the same everywhere.

    Source: the finaliser of SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators").
    """
    state = np.zeros(numbers.shape, np.uint64)
    parts = (np.int64(seed), np.int64(epoch), questions.astype(np.int64)[:, None], numbers.astype(np.int64))
    with np.errstate(over="ignore"):
        for part in parts:
            state = state + np.asarray(part).astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state = state ^ (state >> np.uint64(31))
    return state
