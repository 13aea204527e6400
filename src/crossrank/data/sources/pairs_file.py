"""Pairs from local files; columns are named by config."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from crossrank.data.fingerprint import file_fingerprint
from crossrank.data.pair_file import open_pairs, write_stream
from crossrank.data.pairs import Ingredients, QAPairs, Splits, check_counts, split_dev
from crossrank.data.readers import read_all, shards, text_column
from crossrank.data.splits import streamed
from crossrank.errors import DataError
from crossrank.hub import Asset


@dataclass(frozen=True)
class PairsFile:
    """A jsonl, csv, tsv (each also as gz), parquet or arrow file, or a folder of them, with a pair a row.

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
        check_counts(limit=("rows", self.limit), dev_size=("held-out pairs", self.dev_size))

    def assets(self) -> Sequence[Asset]:
        """Return nothing: the files are local."""
        return ()

    def ingredients(self) -> Ingredients:
        """Return the hashes of the files, the columns and the split.

        Raises:
            DataError: a file is not there.
        """
        content = {
            "kind": "pairs-file", "content": _hashes(self.path), "limit": self.limit,
            "question_column": self.question_column, "answer_column": self.answer_column, "bad_rows": self.bad_rows,
        }  # fmt: skip
        if self.dev_path:
            return Ingredients(content, {"dev_content": _hashes(self.dev_path)})
        return Ingredients(content, {"dev_size": self.dev_size, "seed": self.seed})

    def fingerprint(self) -> str:
        """Return an id of the files' content, columns and split."""
        return self.ingredients().fingerprint

    def load(self) -> Splits:
        """Read the file or files.

        Raises:
            DataError: a file is missing, empty or broken, a column is not there, a row is not usable.
        """
        return streamed(self)

    def stream(self, scratch: Path) -> Splits:
        """Read the files into Arrow files in `scratch`; see `load`."""
        pairs = self._read(self.path, self.limit, scratch / "train.arrow")
        if self.dev_path is None:
            return split_dev(pairs, self.dev_size, self.seed)
        return Splits(train=pairs, dev=self._read(self.dev_path, None, scratch / "dev.arrow"))

    def _read(self, path: str, limit: int | None, to: Path) -> QAPairs:
        write_stream(to, self._rows(_files(path), limit))
        pairs = open_pairs(to)
        if not len(pairs):
            raise DataError(f"{path}: no usable row among those read")
        return pairs

    def _rows(self, files: Sequence[Path], limit: int | None) -> Iterator[tuple[str, str]]:
        for bad, number, row in read_all(files, self.bad_rows, limit):
            question = text_column(row, self.question_column, bad.path, number)
            answer = text_column(row, self.answer_column, bad.path, number)
            if question is None or answer is None:
                column = self.question_column if question is None else self.answer_column
                bad.reject(number, f"{column!r} is empty or not a text; every row needs a question and an answer")
                continue
            yield question, answer


def _hashes(path: str) -> str | list[str]:
    found = [file_fingerprint(file) for file in _files(path)]
    return found[0] if len(found) == 1 else found


def _files(path: str) -> list[Path]:
    return shards(Path(path))
