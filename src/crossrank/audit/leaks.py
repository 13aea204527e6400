"""Which queries of the evaluation a training set has seen: their question, or a document that is relevant to them."""

import json
import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas import DataFrame

from crossrank.analysis.failures import short
from crossrank.analysis.sections import Section
from crossrank.data.cache import replace_text, save_array
from crossrank.data.near_equal import NearEqual, NearIndex, Signatures, normalised
from crossrank.errors import DataError
from crossrank.evaluation.reranking import RerankingTask

log = logging.getLogger(__name__)

QUESTIONS = NearEqual(words=1, threshold=0.8)  # a question is too short for longer n-grams: one word changes three
ANSWERS = NearEqual(words=3, threshold=0.75)  # other versions of the same paragraph lie from 0.65 on
QUERIES = "queries.json"  # how many queries of each dataset were looked at
SLACK = 0.05  # what is looked at beyond the threshold, because MinHash only estimates
TEXTS_PER_BLOCK = 4096

QUERY = ["dataset", "query_id"]
KINDS = ("question", "relevant", "other")  # the last is not counted as touched
TOUCHED_COLUMNS = [
    *QUERY, "kind", "match", "similarity", "texts", "of", "document_id", "text", "training_row", "training_text"
]  # fmt: skip
TABLE_COLUMNS = [
    "dataset", "queries", *(f"{kind}_{match}" for kind in KINDS for match in ("equal", "near")), "touched"
]  # fmt: skip
NOTE = (
    "Queries whose question, or one of whose relevant documents, stands in the training set: equal once normalised, or "
    "near-equal in word n-grams. Touched is the number of queries with any of the four. Other candidates count as "
    "irrelevant in the evaluation and were answers in the training: that teaches against the judgements, and tells "
    "the model nothing of what is relevant."
)


@dataclass(frozen=True)
class Leaks:
    """What a training set shares with the evaluation.

    `touched` has TOUCHED_COLUMNS, one row a query and kind: "question", "relevant" (documents that the evaluation
    counts as relevant) or "other" (its other candidates). `match` is "equal" or "near", `similarity` the exact Jaccard
    similarity of the n-grams; `texts` of `of` texts of that kind match, and the best of them is shown beside the first
    training row, from 0, that is as much like it; `document_id` is "" for a question. `training_rows` are all rows that
    match a question or a relevant document, ascending: what to leave out.
    """

    queries: dict[str, int]  # dataset -> number of queries
    touched: DataFrame
    training_rows: npt.NDArray[np.int64]

    @property
    def keys(self) -> set[tuple[str, str]]:
        """(dataset, query id) of every query whose question or relevant document was trained on."""
        return set(self.touched.loc[self.touched["kind"] != "other", QUERY].itertuples(index=False, name=None))

    def table(self) -> DataFrame:
        """Return TABLE_COLUMNS, a row a dataset: how many of its queries are touched, by kind and match, and in all.

        A query with equal and near-equal texts of a kind counts as equal.
        """
        found = (self.touched["kind"] + "_" + self.touched["match"]).groupby(self.touched["dataset"]).value_counts()
        touched = DataFrame(sorted(self.keys), columns=QUERY)["dataset"].value_counts()
        rows = [
            (name, queries, *(int(found.get((name, column), 0)) for column in TABLE_COLUMNS[2:-1]),
             int(touched.get(name, 0)))
            for name, queries in self.queries.items()
        ]  # fmt: skip
        return DataFrame(rows, columns=TABLE_COLUMNS)

    def write(self, folder: Path) -> None:
        """Write `touched` as leaks.parquet and leaks.csv, training_rows.npy and queries.json, each whole or not at all.

        The last is written last: a folder that has it can be read back.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.touched.to_parquet(folder / ".leaks.parquet", index=False)
        self.touched.to_csv(folder / ".leaks.csv", index=False)
        save_array(folder / ".training_rows.npy", self.training_rows)
        for name in ("leaks.parquet", "leaks.csv", "training_rows.npy"):
            (folder / f".{name}").replace(folder / name)
        replace_text(folder / QUERIES, json.dumps(self.queries, indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path) -> "Leaks | None":
        """Return what was written into a folder, None where nothing was.

        Raises:
            DataError: a file is missing or damaged.
        """
        if not (folder / QUERIES).is_file():
            return None
        try:
            queries = json.loads((folder / QUERIES).read_text(encoding="utf-8"))
            touched, rows = pd.read_parquet(folder / "leaks.parquet"), np.load(folder / "training_rows.npy")
            return cls({str(name): int(count) for name, count in queries.items()}, touched[TOUCHED_COLUMNS], rows)
        except Exception as error:  # a damaged file may raise anything
            raise DataError(f"{folder} holds no record of leaks ({error}); remove the folder") from error

    def sections(self, examples: int = 10) -> list[Section]:
        """Return the table and the closest matches as sections of a page."""
        header = [name.replace("_", " ") for name in TABLE_COLUMNS]
        cells = [[str(cell) for cell in row] for row in self.table().itertuples(index=False)]
        found = [Section("Leaks", NOTE, header, cells)]
        worst = self.touched[self.touched["kind"] != "other"].head(examples)
        if not worst.empty:
            note = f"{len(worst)} of {(self.touched['kind'] != 'other').sum()}, equal and most alike first."
            header = ["dataset", "query", "kind", "match", "texts", "evaluation", "training row", "training"]
            lines = [
                [r.dataset, r.query_id, r.kind, f"{r.match} ({r.similarity:.2f})", f"{r.texts} of {r.of}",
                 short(r.text), str(r.training_row), short(r.training_text)]
                for r in worst.itertuples()
            ]  # fmt: skip
            found.append(Section("Touched queries", note, header, lines))
        return found


def find_leaks(
    questions: Sequence[str],
    answers: Sequence[str],
    tasks: Sequence[RerankingTask],
    near_questions: NearEqual = QUESTIONS,
    near_answers: NearEqual = ANSWERS,
) -> Leaks:
    """Look for the texts of the evaluation in a training set, which is read a block at a time.

    Memory holds the evaluation's queries, relevant documents and candidates and an index of them, and a byte for each
    training pair. 100,000 pairs take 20 seconds on one core, 3 million 10 minutes. MinHash finds the near-equal texts,
    their exact similarity decides: one just at the threshold may be missed, one 0.05 above it hardly ever.

    Raises:
        DataError: questions and answers are not equally many, or two datasets have the same name.
    """
    names = [task.name for task in tasks]
    if len(questions) != len(answers):
        raise DataError(f"{len(questions)} training questions and {len(answers)} answers; each needs the other")
    if len(set(names)) < len(names):
        raise DataError(f"touched queries are called after their dataset, whose names must differ, got {names}")
    started = time.monotonic()
    asked, trained_on = _search(questions, [use for task in tasks for use in _questions(task)], near_questions)
    found, touching = _search(answers, [use for task in tasks for use in _documents(task)], near_answers)
    leaks = Leaks(
        queries={task.name: len(task.queries) for task in tasks},
        touched=_best_of_each(DataFrame([*asked, *found], columns=TOUCHED_COLUMNS)),
        training_rows=np.flatnonzero(trained_on | touching),
    )
    log.info(
        "compared %d training pairs with %d queries in %.1f s: %d touched",
        len(questions), sum(leaks.queries.values()), time.monotonic() - started, len(leaks.keys),
    )  # fmt: skip
    return leaks


class _Use(NamedTuple):
    """A text of the evaluation and what it is there for."""

    dataset: str
    query_id: str
    kind: str
    document_id: str
    text: str


class _Match(NamedTuple):
    """The training text that is most like one of the evaluation; equal ones have no difference."""

    difference: float
    similarity: float
    row: int
    text: str


def _questions(task: RerankingTask) -> Iterator[_Use]:
    for query, question in task.queries.items():
        yield _Use(task.name, query, "question", "", question)


def _documents(task: RerankingTask) -> Iterator[_Use]:
    for query in task.queries:
        grades = task.qrels.get(query, {})
        relevant = [d for d, grade in grades.items() if grade >= task.relevant_from and d in task.documents]
        kinds = dict.fromkeys(task.candidates[query], "other") | dict.fromkeys(relevant, "relevant")
        for document, kind in kinds.items():
            yield _Use(task.name, query, kind, document, task.documents[document])


def _search(
    texts: Sequence[str], uses: Sequence[_Use], near: NearEqual
) -> tuple[list[tuple[object, ...]], npt.NDArray[np.bool_]]:
    """Return a row of TOUCHED_COLUMNS for each use that any text matches, and which texts match one that counts."""
    form_of = {text: normalised(text) for text in {use.text for use in uses}}
    forms = sorted(set(form_of.values()))
    counted = {form_of[use.text] for use in uses if use.kind != "other"}
    index = NearIndex(near.sign(forms), replace(near, threshold=max(0.51, near.threshold - SLACK)))
    best: dict[str, _Match] = {}
    touching = np.zeros(len(texts), np.bool_)
    for row, text, form, signature in _signed(texts, near):
        for other in map(forms.__getitem__, index.search(signature)):
            similarity = near.jaccard(form, other)
            if similarity >= near.threshold:
                touching[row] |= other in counted
                match = _Match(0.0 if form == other else 1 - similarity / 2, similarity, row, text)
                best[other] = min(match, best.get(other, match))
    matching = [(use, best[form_of[use.text]]) for use in uses if form_of[use.text] in best]
    of, found = Counter(use[:3] for use in uses), Counter(use[:3] for use, _ in matching)
    rows: list[tuple[object, ...]] = [
        (*use[:3], "equal" if match.difference == 0 else "near", match.similarity, found[use[:3]], of[use[:3]],
         use.document_id, use.text, match.row, match.text)
        for use, match in matching
    ]  # fmt: skip
    return rows, touching


def _signed(texts: Sequence[str], near: NearEqual) -> Iterator[tuple[int, str, str, Signatures]]:
    """Yield number, text, normal form and signature of each text."""
    for start in range(0, len(texts), TEXTS_PER_BLOCK):
        block = texts[start : start + TEXTS_PER_BLOCK]
        forms = [normalised(text) for text in block]
        yield from zip(range(start, start + len(block)), block, forms, near.sign(forms), strict=True)
        log.debug("looked at %d of %d training texts", start + len(block), len(texts))


def _best_of_each(rows: DataFrame) -> DataFrame:
    """Return the best row of each query and kind, those that are equal and most alike first."""
    order = {"match": True, "similarity": False, **dict.fromkeys([*QUERY, "kind", "document_id"], True)}
    numbers = {"similarity": float, "texts": int, "of": int, "training_row": int}
    typed = rows.astype({name: numbers.get(name, str) for name in TOUCHED_COLUMNS})  # an empty table has no types
    ordered = typed.sort_values(list(order), ascending=list(order.values()))
    return ordered.drop_duplicates([*QUERY, "kind"]).reset_index(drop=True)
