"""One question asked of a file of documents: reads them and finds the ones worth reranking."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from crossrank.data.miners.bm25 import BM25Miner
from crossrank.data.readers import read_rows
from crossrank.errors import ConfigError, DataError
from crossrank.inference.reranker_spec import RerankerSpec

SHOWN = 200  # characters of a document


@dataclass(frozen=True)
class Question:
    """A question, the file of its documents, how many of them BM25 hands to the model and how many are kept then.

    Raises:
        ConfigError: there is no file.
    """

    query: str
    documents: Path | None
    rerank_k: int
    top_k: int

    def __post_init__(self) -> None:
        if self.documents is None:
            raise ConfigError(["documents: required and missing beside query: the file with the documents"])


def answer(question: Question, model: RerankerSpec) -> list[dict[str, Any]]:
    """Return `{score, first_stage, document}` of the best documents; `first_stage` is a place from 1.

    Raises:
        CrossrankError: the file, the question or the model is wrong.
    """
    documents = read_documents(question.documents or Path())
    candidates = [documents[i] for i in first_stage(question.query, documents, question.rerank_k)]
    ranked = model.load().rank(question.query, candidates, question.top_k, return_documents=True)
    return [{"score": f["score"], "first_stage": f["corpus_id"] + 1, "document": f["text"]} for f in ranked]


def as_table(query: str, ranking: Sequence[Mapping[str, Any]]) -> Table:
    """Return what `answer` found as a table for a terminal."""
    table = Table("rank", "score", "first stage", "document", title=query)
    for rank, found in enumerate(ranking, start=1):
        text = " ".join(found["document"].split())
        shown = text[:SHOWN] + ("..." if len(text) > SHOWN else "")
        table.add_row(str(rank), f"{found['score']:.4f}", str(found["first_stage"]), shown)
    return table


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
