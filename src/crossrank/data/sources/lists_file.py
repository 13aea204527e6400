"""Questions with their own negatives, labels or scores, from files or from a data set of the hub."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from crossrank.data.fingerprint import file_fingerprint
from crossrank.data.list_formats import Format, Layout, Role, UnusableRow, layout_of
from crossrank.data.pair_file import open_pairs, write_stream
from crossrank.data.pairs import Ingredients, QAPairs, Splits, check_counts, split_questions
from crossrank.data.readers import read_all, read_rows, shards
from crossrank.data.splits import streamed
from crossrank.errors import DataError
from crossrank.hub import Asset, resolve

ENCODED = (".csv", ".csv.gz", ".tsv", ".tsv.gz")  # where every value is text


@dataclass(frozen=True)
class ListsFile:
    """A file, a folder of shards or, with a `revision`, a hub data set, in one of the formats of docs/data.md.

    `files` is a glob that chooses among the files of a folder, such as "triplet/train-*". Columns are found by their
    names, or named. The dev split is `dev_path`, a file or folder, where given, otherwise `dev_size` random questions
    of `path` that have an answer. `limit` takes the first rows of `path` only. `bad_rows` says what happens to a row
    that cannot be used. `rescale` brings labels or scores between 0 and 1: "sigmoid" those of a teacher's logits,
    "largest" divides grades by their largest.
    """

    path: str
    revision: str | None = None
    files: str | None = None
    dev_path: str | None = None
    format: Format = "auto"
    question_column: str | None = None
    positive_column: str | None = None
    negative_column: str | None = None
    documents_column: str | None = None
    labels_column: str | None = None
    scores_column: str | None = None
    rescale: Literal["none", "sigmoid", "largest"] = "none"
    limit: int | None = None
    dev_size: int = 1000
    seed: int = 12
    bad_rows: Literal["error", "drop"] = "error"

    def __post_init__(self) -> None:
        check_counts(limit=("rows", self.limit), dev_size=("held-out questions", self.dev_size))
        if self.files is not None and (not self.files or self.files.startswith("/") or ".." in self.files):
            raise ValueError(f"files is a pattern inside the folder, such as 'train*', got {self.files!r}")

    def assets(self) -> Sequence[Asset]:
        """Return the hub data set at its pinned revision, if it is one."""
        return () if self.revision is None else (Asset("dataset", self.path, self.revision),)

    def ingredients(self) -> Ingredients:
        """Return the hashes of the files, or the hub's revision, the columns, what is done to labels, and the split.

        Raises:
            DataError: a file is not there.
        """
        hub = self.revision is not None and not Path(self.path).expanduser().is_dir()
        texts = {"path": self.path, "revision": self.revision, "files": self.files} if hub else {
            "content": [file_fingerprint(file) for file in shards(self._folder(), self.files)]
        }  # fmt: skip
        content = {
            "kind": "lists-file", **texts, "format": self.format, "columns": dict(self._named()),
            "rescale": self.rescale, "limit": self.limit, "bad_rows": self.bad_rows,
        }  # fmt: skip
        if dev := self._dev_files():
            return Ingredients(content, {"dev_content": [file_fingerprint(file) for file in dev]})
        return Ingredients(content, {"dev_size": self.dev_size, "seed": self.seed})

    def fingerprint(self) -> str:
        """Return an id of the files' content, or of the hub's revision, and of columns, labels and split."""
        return self.ingredients().fingerprint

    def load(self) -> Splits:
        """Read the files.

        Raises:
            AssetError: the data set cannot be fetched.
            DataError: a file is missing, empty or broken, its columns are of no known format, a row is not usable.
        """
        return streamed(self)

    def stream(self, scratch: Path) -> Splits:
        """Read the files into Arrow files in `scratch`; see `load`."""
        pairs = self._read(shards(self._folder(), self.files), scratch / "train.arrow", self.limit)
        dev_files = self._dev_files()
        if not dev_files:
            return split_questions(pairs, self.dev_size, self.seed)
        dev = self._read(dev_files, scratch / "dev.arrow", None)
        if (dev.labels is None, dev.scored) != (pairs.labels is None, pairs.scored):
            raise DataError(f"{self.dev_path}: is of another format than {self.path}; both must be labelled alike")
        return Splits(train=pairs, dev=dev)

    def _read(self, files: Sequence[Path], to: Path, limit: int | None) -> QAPairs:
        number, first = next(read_rows(files[0]))
        try:
            layout = layout_of(list(first), self.format, self._named())
        except DataError as error:
            raise DataError(f"{files[0]}, row {number}: {error}") from None
        labels: Literal["label", "score"] = "score" if layout.scored else "label"
        rows = self._rows(files, layout, limit)
        write_stream(to, rows, None if layout.format == "pairs" else labels)
        pairs = open_pairs(to)
        if not len(pairs):
            raise DataError(f"{files[0]}: no usable row among those read")
        return replace(pairs, labels=self._rescaled(pairs))

    def _rows(self, files: Sequence[Path], layout: Layout, limit: int | None) -> Iterator[tuple[str | float, ...]]:
        for bad, number, row in read_all(files, self.bad_rows, limit):
            try:
                question, documents, labels = layout.read(row, bad.path.name.endswith(ENCODED))
            except UnusableRow as error:
                bad.reject(number, str(error))
                continue
            except DataError as error:
                raise DataError(f"{bad.path}, row {number}: {error}") from None
            for document, label in zip(documents, labels, strict=True):
                yield (question, document) if layout.format == "pairs" else (question, document, label)

    def _rescaled(self, pairs: QAPairs) -> npt.NDArray[np.float32] | None:
        labels = pairs.labels
        if self.rescale == "none":
            return labels
        if labels is None:
            raise DataError(f"{self.path}: rescale={self.rescale} needs labels or scores, and pairs have none")
        low, high = labels.min(), labels.max()
        if self.rescale == "largest" and not (low >= 0 and high > 0):
            raise DataError(f"{self.path}: rescale=largest needs labels from 0 up, got {low:g} to {high:g}")
        scaled: npt.NDArray[np.float32] = expit(labels) if self.rescale == "sigmoid" else labels / high
        return scaled

    def _named(self) -> Mapping[Role, str | None]:
        return {
            "question": self.question_column, "positive": self.positive_column, "negative": self.negative_column,
            "documents": self.documents_column, "labels": self.labels_column, "scores": self.scores_column,
        }  # fmt: skip

    def _folder(self) -> Path:
        assets = self.assets()
        return resolve(assets[0]) if assets else Path(self.path).expanduser()

    def _dev_files(self) -> list[Path]:
        return shards(Path(self.dev_path).expanduser()) if self.dev_path else []
