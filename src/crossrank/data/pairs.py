"""Question-answer pairs, and the distinct questions and documents behind them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from crossrank.data.fingerprint import fingerprint
from crossrank.errors import DataError
from crossrank.hub import Asset


@dataclass(frozen=True)
class QAPairs:
    """Aligned texts: `answers[i]` answers `questions[i]`; neither is blank."""

    questions: Sequence[str]
    answers: Sequence[str]

    def __post_init__(self) -> None:
        if len(self.questions) != len(self.answers):
            raise DataError(f"{len(self.questions)} questions and {len(self.answers)} answers; each needs the other")

    def __len__(self) -> int:
        return len(self.questions)

    def take(self, rows: npt.NDArray[np.integer]) -> "QAPairs":
        """Return the given rows, in the given order."""
        return QAPairs([self.questions[i] for i in rows], [self.answers[i] for i in rows])


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


@dataclass(frozen=True)
class PairIndex:
    """Distinct texts in order of first appearance, and which documents answer each question.

    The positives of question i are `positives[positive_offsets[i]:positive_offsets[i + 1]]`, ids into `documents`.
    """

    questions: Sequence[str]
    documents: Sequence[str]
    positive_offsets: npt.NDArray[np.int64]  # [questions + 1]
    positives: npt.NDArray[np.int32]  # [distinct pairs]

    @classmethod
    def of(cls, pairs: QAPairs, extra_documents: Sequence[str] = ()) -> "PairIndex":
        """Index the pairs; `extra_documents` come after the answers and answer nothing."""
        question_ids: dict[str, int] = {}
        document_ids: dict[str, int] = {}
        answers_of: list[dict[int, None]] = []
        for question, answer in zip(pairs.questions, pairs.answers, strict=True):
            q = question_ids.setdefault(question, len(question_ids))
            d = document_ids.setdefault(answer, len(document_ids))
            if q == len(answers_of):
                answers_of.append({})
            answers_of[q][d] = None
        for document in extra_documents:
            document_ids.setdefault(document, len(document_ids))
        counts = np.fromiter(map(len, answers_of), np.int64, len(answers_of))
        return cls(
            questions=list(question_ids),
            documents=list(document_ids),
            positive_offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            positives=np.fromiter((d for answers in answers_of for d in answers), np.int32, int(counts.sum())),
        )

    def positives_of(self, question: int) -> npt.NDArray[np.int32]:
        """Return the ids of the documents that answer a question."""
        return self.positives[self.positive_offsets[question] : self.positive_offsets[question + 1]]
