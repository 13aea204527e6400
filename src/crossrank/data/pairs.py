"""Question-answer pairs, and the distinct questions and documents behind them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from crossrank.data.fingerprint import fingerprint
from crossrank.data.judged import Judged, offsets_of
from crossrank.data.texts import Rows, Texts, codes_by_appearance, digests, taken
from crossrank.errors import DataError
from crossrank.hub import Asset


@dataclass(frozen=True, eq=False)
class QAPairs:
    """Aligned texts, none of them blank: `answers[i]` answers `questions[i]`, or is labelled as to how well it does.

    A label is 0 for a document that does not answer and above 0 for one that does. Labels that are `scored` are what a
    teacher gave, on any scale: the best of a question's counts as its answer. An epoch visits a pair's question
    `copies[i]` times.
    """

    questions: Sequence[str]
    answers: Sequence[str]
    labels: npt.NDArray[np.float32] | None = None  # [pairs]; without them every answer is one
    scored: bool = False
    copies: npt.NDArray[np.int32] | None = None  # [pairs], the same for all pairs of a question; without them 1

    def __post_init__(self) -> None:
        if len(self.questions) != len(self.answers):
            raise DataError(f"{len(self.questions)} questions and {len(self.answers)} answers; each needs the other")

    def __len__(self) -> int:
        return len(self.questions)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, QAPairs):
            return NotImplemented
        columns = ((self.labels, other.labels), (self.copies, other.copies))
        return (
            (self.questions, self.answers, self.scored) == (other.questions, other.answers, other.scored)
            and all((a is None) == (b is None) for a, b in columns)
            and all(np.array_equal(a, b) for a, b in columns if a is not None and b is not None)
        )

    __hash__ = None  # type: ignore[assignment]

    def take(self, rows: npt.NDArray[np.integer]) -> "QAPairs":
        """Return the given rows, in the given order."""
        labels, copies = (column if column is None else column[rows] for column in (self.labels, self.copies))
        return QAPairs(taken(self.questions, rows), taken(self.answers, rows), labels, self.scored, copies)

    def relevant(self, questions: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
        """Return which pairs hold an answer, bool[pairs]; `questions` numbers the pairs' questions."""
        if self.labels is None:
            return np.ones(len(self), bool)
        if not self.scored:
            return self.labels > 0
        best = np.full(questions.max(initial=-1) + 1, -np.inf, np.float32)
        np.maximum.at(best, questions, self.labels)
        is_best: npt.NDArray[np.bool_] = self.labels == best[questions]
        return is_best


@dataclass(frozen=True)
class Splits:
    """A source's pairs; `dev` is never trained on."""

    train: QAPairs
    dev: QAPairs


class Ingredients(NamedTuple):
    """What a source's pairs depend on, as plain values by name: a hash, a version, a setting."""

    content: dict[str, Any]  # what the texts depend on
    split: dict[str, Any]  # what else decides which of them train

    @property
    def fingerprint(self) -> str:
        """An id of both."""
        return fingerprint(self.content, self.split)


@runtime_checkable
class Source(Protocol):
    """Where question-answer pairs come from."""

    def assets(self) -> Sequence[Asset]:
        """Return what may have to be fetched."""
        ...

    def ingredients(self) -> Ingredients:
        """Return what the pairs depend on, without loading them.

        Raises:
            DataError: the data is not there.
        """
        ...

    def fingerprint(self) -> str:
        """Return the id of the ingredients."""
        ...

    def load(self) -> Splits:
        """Return the pairs.

        Raises:
            DataError: the data is missing or broken.
        """
        ...


@runtime_checkable
class StreamingSource(Source, Protocol):
    """A source that is read without being held in memory."""

    def stream(self, scratch: Path) -> Splits:
        """Return what `load` does, its texts memory-mapped from files that are written into `scratch`."""
        ...


def check_counts(**counts: tuple[str, int | None]) -> None:
    """Refuse settings below 1; each comes with what it counts, and None is no bound.

    Raises:
        ValueError: names the first of them, what it counts and what it was.
    """
    for name, (counted, value) in counts.items():
        if value is not None and value < 1:
            raise ValueError(f"{name} counts {counted} and must be at least 1, got {value}")


def split_dev(pairs: QAPairs, dev_size: int, seed: int) -> Splits:
    """Hold out `dev_size` random pairs.

    The same rows as `datasets.Dataset.train_test_split(test_size=dev_size, seed=seed)`: the first `dev_size` of
    numpy's `default_rng(seed).permutation`, the rest trains, both in permuted order.

    Raises:
        DataError: fewer pairs than are to be held out.
    """
    if dev_size >= len(pairs):
        raise DataError(f"{len(pairs)} pairs, of which {dev_size} were to be held out: none would be left to train on")
    permutation = np.random.default_rng(seed).permutation(len(pairs))
    return Splits(train=pairs.take(permutation[dev_size:]), dev=pairs.take(permutation[:dev_size]))


def split_questions(pairs: QAPairs, dev_size: int, seed: int) -> Splits:
    """Hold out `dev_size` random questions that have an answer, each with all of its pairs.

    Where every question stands in one pair, these are the rows of `split_dev`.

    Raises:
        DataError: fewer questions than are to be held out.
    """
    keys = digests(pairs.questions)
    questions, first = codes_by_appearance(keys)
    answered = np.zeros(len(first), bool)
    answered[questions[pairs.relevant(questions)]] = True
    count = int(answered.sum())
    if dev_size >= count:
        raise DataError(
            f"{count} questions with an answer, of which {dev_size} were to be held out: none would be left to train on"
        )
    permutation = np.random.default_rng(seed).permutation(count)
    place = np.empty(len(first), np.int64)  # of each question; those without an answer come last
    place[np.flatnonzero(answered)[permutation]] = np.arange(count)
    place[~answered] = np.arange(count, len(first))
    rows = np.argsort(place[questions], kind="stable")
    held_out = int((place[questions] < dev_size).sum())
    return Splits(train=pairs.take(rows[held_out:]), dev=pairs.take(rows[:held_out]))


@dataclass(frozen=True)
class PairIndex:
    """Distinct texts in order of first appearance, and which documents answer each question.

    The positives of question i are `positives[positive_offsets[i]:positive_offsets[i + 1]]`, ids into `documents`.
    Questions that have one come before those that have none, and documents that are one before the others.
    """

    questions: Sequence[str]
    documents: Sequence[str]
    positive_offsets: npt.NDArray[np.int64]  # [questions + 1]
    positives: npt.NDArray[np.int32]  # [distinct pairs]
    judged: Judged | None = None  # where the source labels its documents
    copies: npt.NDArray[np.int32] | None = None  # [questions]: how often an epoch visits each, if not once

    @classmethod
    def of(cls, pairs: QAPairs, extra_documents: Sequence[str] = ()) -> "PairIndex":
        """Index the pairs; `extra_documents` come after the answers and answer nothing.

        Texts are told apart by their digests, so that it takes some 200 bytes a pair, however long the texts. Of a
        pair that is labelled more than once the highest label counts.
        """
        keys = digests(pairs.questions)
        relevant = pairs.relevant(codes_by_appearance(keys)[0] if pairs.scored else np.empty(0, np.int32))
        q, first_questions = _numbered(keys, relevant)
        keys = digests(pairs.answers, extra_documents)
        d, first_documents = _numbered(keys, np.concatenate([relevant, np.zeros(len(keys) - len(pairs), bool)]))
        documents = Texts.joined([Texts.of(pairs.answers), Texts.of(extra_documents)])
        both = (q.astype(np.int64) << 32) + d[: len(pairs)]
        first = np.flatnonzero(relevant)[np.unique(both[relevant], return_index=True)[1]]
        rows = first[np.lexsort((first, q[first]))]
        copies = None
        if pairs.copies is not None:
            copies = np.ones(len(first_questions), np.int32)
            np.maximum.at(copies, q, pairs.copies)
        return cls(
            questions=Texts.of(pairs.questions).take(first_questions),
            documents=documents.take(first_documents),
            positive_offsets=offsets_of(q[rows], len(first_questions)),
            positives=d[rows],
            judged=None if pairs.labels is None else Judged.of(both, pairs.labels, pairs.scored, len(first_questions)),
            copies=copies,
        )

    def positives_of(self, question: int) -> npt.NDArray[np.int32]:
        """Return the ids of the documents that answer a question."""
        return self.positives[self.positive_offsets[question] : self.positive_offsets[question + 1]]

    def answered(self) -> "PairIndex":
        """Return what can be mined: the questions that have an answer and the documents that are one, ids unchanged."""
        if self.judged is None:
            return self
        questions = int(np.count_nonzero(np.diff(self.positive_offsets)))
        documents = int(self.positives.max(initial=-1)) + 1
        return PairIndex(
            self.questions[:questions], self.documents[:documents], self.positive_offsets[: questions + 1],
            self.positives,
        )  # fmt: skip


def _numbered(keys: npt.NDArray[np.void], relevant: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.int32], Rows]:
    """Number texts in order of first appearance, those that stand in a relevant pair before the others."""
    if relevant.all():
        return codes_by_appearance(keys)
    order = np.argsort(~relevant, kind="stable")
    numbers, first = codes_by_appearance(keys[order])
    back = np.empty_like(numbers)
    back[order] = numbers
    return back, order[first]
