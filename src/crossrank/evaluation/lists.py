"""Reranking lists: questions with their positives and with other documents, as sentence-transformers and MTEB write."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from crossrank.data.readers import Row, is_unicode, read_rows
from crossrank.errors import DataError
from crossrank.evaluation import Protocols, refuse_below_one
from crossrank.evaluation.reranking import OverTasks, RerankingTask
from crossrank.hub import Asset

OTHERS = ("documents", "negative")


@dataclass(frozen=True)
class RerankingLists(OverTasks):
    """Files (jsonl, csv or parquet) whose rows have `query`, `positive` (a text or a list of texts) and others.

    The others are `documents`, a first stage's list, best first, with or without the positives in it; or `negative`,
    documents that are not relevant, without an order: then there is no first stage to compare with. All rows of a file
    are of one kind. Texts are compared by equality. A row with no positive counts as 0. A dataset is called after its
    file.

    Source: the samples of sentence_transformers.cross_encoder.evaluation.CrossEncoderRerankingEvaluator, 6.2.
    """

    paths: list[str]
    at_k: int = 10
    always_rerank_positives: bool = True
    protocol: Protocols = "st"

    def __post_init__(self) -> None:
        if not self.paths:
            raise ValueError("paths must name at least one file of reranking lists, got none")
        refuse_below_one(at_k=self.at_k)
        if len(set(self.datasets)) < len(self.paths):
            raise ValueError(f"datasets are called after their files, which must differ, got {self.datasets}")

    @property
    def datasets(self) -> Sequence[str]:
        """The files' names without suffixes."""
        return [Path(path).name.partition(".")[0] for path in self.paths]

    def assets(self) -> Sequence[Asset]:
        """Return nothing: the files are local."""
        return ()

    @cached_property
    def tasks(self) -> Sequence[RerankingTask]:
        """One a file.

        Raises:
            DataError: a row has no question, neither documents nor negatives, or both.
        """
        return [self._read(name, Path(path)) for name, path in zip(self.datasets, self.paths, strict=True)]

    def _read(self, name: str, file: Path) -> RerankingTask:
        ids: dict[str, str] = {}  # text -> document id
        queries, candidates, qrels, kinds = {}, {}, {}, set()
        for number, row in read_rows(file):
            question = row.get("query")
            if not isinstance(question, str) or not question.strip() or not is_unicode(question):
                raise DataError(f"{file}, row {number}: 'query' must be a text, got {question!r}")
            kind = _kind(row, file, number)
            kinds.add(kind)
            positives = _texts(row, "positive", file, number)
            others = _texts(row, kind, file, number)
            for text in (*positives, *others):
                ids.setdefault(text, f"d{len(ids) + 1}")
            query = f"{name}-{number}"
            queries[query] = question
            candidates[query] = [ids[text] for text in (others if kind == "documents" else [*positives, *others])]
            qrels[query] = dict.fromkeys((ids[text] for text in positives), 1)
        if len(kinds) > 1:
            raise DataError(f"{file}: some rows have 'documents' and some 'negative'; a file must be of one kind")
        return RerankingTask(
            name, queries, {key: text for text, key in ids.items()}, candidates, qrels, self.at_k,
            self.always_rerank_positives or kinds == {"negative"}, self.protocol, ranked=kinds == {"documents"},
        )  # fmt: skip


def _kind(row: Row, file: Path, number: int) -> str:
    given = [kind for kind in OTHERS if row.get(kind) is not None]
    if len(given) != 1 or row.get("positive") is None:
        columns = ", ".join(map(str, row))
        raise DataError(
            f"{file}, row {number}: 'positive' and one of 'documents' and 'negative' are wanted; "
            f"the columns are: {columns}"
        )
    return given[0]


def _texts(row: Row, column: str, file: Path, number: int) -> list[str]:
    value = row[column]
    texts = value if isinstance(value, list) else [value]
    if not all(isinstance(text, str) and is_unicode(text) for text in texts):
        raise DataError(f"{file}, row {number}: {column!r} must be a text or a list of texts, got {value!r}")
    return list(texts)
