"""Pairs from a local file; columns are named by config."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from crossrank.data.fingerprint import file_fingerprint
from crossrank.data.pairs import Ingredients, QAPairs, Splits, split_dev
from crossrank.data.readers import BadRows, read_rows, text_column
from crossrank.errors import DataError
from crossrank.hub import Asset


@dataclass(frozen=True)
class PairsFile:
    """A jsonl, jsonl.gz, csv or parquet file with a question and an answer a row.

    The dev split is `dev_path` where given, otherwise `dev_size` random rows of `path`. `limit` takes the first rows
    of `path` only. `bad_rows` says what happens to a row without question or answer.
    """

    path: str
    dev_path: str | None = None
    question_column: str = "question"
    answer_column: str = "answer"
    limit: int | None = None
    dev_size: int = 1000
    seed: int = 12
    bad_rows: Literal["error", "drop"] = "error"

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit counts rows and must be at least 1, got {self.limit}")
        if self.dev_size < 1:
            raise ValueError(f"dev_size counts held-out pairs and must be at least 1, got {self.dev_size}")

    def assets(self) -> Sequence[Asset]:
        """Return nothing: the files are local."""
        return ()

    def ingredients(self) -> Ingredients:
        """Return the hashes of the files, the columns and the split.

        Raises:
            DataError: a file is not there.
        """
        content = {
            "kind": "pairs-file", "content": file_fingerprint(_existing(self.path)), "limit": self.limit,
            "question_column": self.question_column, "answer_column": self.answer_column, "bad_rows": self.bad_rows,
        }  # fmt: skip
        if self.dev_path:
            return Ingredients(content, {"dev_content": file_fingerprint(_existing(self.dev_path))})
        return Ingredients(content, {"dev_size": self.dev_size, "seed": self.seed})

    def fingerprint(self) -> str:
        """Return an id of the files' content, columns and split."""
        return self.ingredients().fingerprint

    def load(self) -> Splits:
        """Read the file or files.

        Raises:
            DataError: a file is missing, empty or broken, a column is not there, a row is not usable.
        """
        pairs = self._read(Path(self.path), self.limit)
        if self.dev_path is None:
            return split_dev(pairs, self.dev_size, self.seed)
        return Splits(train=pairs, dev=self._read(Path(self.dev_path), None))

    def _read(self, path: Path, limit: int | None) -> QAPairs:
        bad = BadRows(path, self.bad_rows)
        questions: list[str] = []
        answers: list[str] = []
        for number, row in islice(read_rows(path), limit):
            question = text_column(row, self.question_column, path, number)
            answer = text_column(row, self.answer_column, path, number)
            if question is None or answer is None:
                column = self.question_column if question is None else self.answer_column
                bad.reject(number, f"{column!r} is empty or not a text; every row needs a question and an answer")
                continue
            questions.append(question)
            answers.append(answer)
        bad.warn()
        if not questions:
            raise DataError(f"{path}: no usable row among those read")
        return QAPairs(questions, answers)


def _existing(path: str) -> Path:
    if not Path(path).is_file():
        raise DataError(f"{path}: no such file")
    return Path(path)
