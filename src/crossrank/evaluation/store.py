"""Evaluations as parquet files, query by query, with what a person needs to look into them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from crossrank.evaluation import Evaluation
from crossrank.evaluation.reranking import RerankingTask


@dataclass(frozen=True)
class EvaluationStore:
    """`<folder>/step=NNNNNN-<evaluator>.parquet` holds the rows of an `Evaluation`, `scores/` beside it its scores.

    `queries/<evaluator>.parquet` has a row a query: dataset, query_id, question, positives (relevant documents),
    candidates (how many the first stage gave) and recall (the share of the relevant documents among them);
    `documents/<evaluator>.parquet` has the texts of all scored documents: dataset, document_id, text. Every file is
    written whole or not at all.
    """

    folder: Path

    def write(self, evaluator: str, step: int, evaluation: Evaluation) -> None:
        """Write what was found at an optimizer step.

        Raises:
            ValueError: the evaluator's name is no part of a file's name.
        """
        refuse_path(evaluator)
        name = f"step={step:06d}-{evaluator}.parquet"
        _write(evaluation.rows.assign(evaluator=evaluator, step=step), self.folder / name)
        _write(evaluation.scores.assign(evaluator=evaluator, step=step), self.folder / "scores" / name)

    def describe(self, evaluator: str, tasks: Sequence[RerankingTask]) -> None:
        """Write the questions and the texts, unless they are there; ValueError as from `write`."""
        refuse_path(evaluator)
        for kind, table in (("queries", _queries), ("documents", _documents)):
            file = self.folder / kind / f"{evaluator}.parquet"
            if not file.is_file():
                _write(pd.concat([table(task) for task in tasks], ignore_index=True).assign(evaluator=evaluator), file)


def refuse_path(name: str) -> None:
    """Refuse an evaluator's name that would lead out of the folder whose files are called after it.

    Raises:
        ValueError: the name is not 1 to 100 letters, digits and `_ . @ + -`, or begins with a dot.
    """
    if not re.fullmatch(r"(?!\.)[\w.@+-]{1,100}", name):
        raise ValueError(f"files are called after an evaluator, so its name is a word without slashes, got {name!r}")


def _queries(task: RerankingTask) -> pd.DataFrame:
    rows = []
    for query, question in task.queries.items():
        grades, candidates = task.qrels.get(query, {}), set(task.candidates[query])
        positives = [d for d, grade in grades.items() if grade >= task.relevant_from]
        recall = sum(d in candidates for d in positives) / len(positives) if positives else float("nan")
        rows.append((task.name, query, question, len(positives), len(task.candidates[query]), recall))
    return pd.DataFrame(rows, columns=["dataset", "query_id", "question", "positives", "candidates", "recall"])


def _documents(task: RerankingTask) -> pd.DataFrame:
    used = list(dict.fromkeys(d for ids in task.candidates.values() for d in ids))
    used += [d for d in dict.fromkeys(d for grades in task.qrels.values() for d in grades) if d in task.documents]
    texts = {d: task.documents[d] for d in used}
    return pd.DataFrame({"dataset": task.name, "document_id": list(texts), "text": list(texts.values())})


def _write(table: pd.DataFrame, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}")
    table.to_parquet(temporary, index=False)
    temporary.replace(file)
