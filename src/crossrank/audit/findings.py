"""A whole audit: what is sampled, judged and compared, and the page that says it."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from crossrank.analysis.sections import Section
from crossrank.analysis.systems import stored_rows
from crossrank.audit.leaks import find_leaks
from crossrank.audit.negatives import duplicates, judged, read_labels, sample, sections, write_sheet
from crossrank.audit.pool import pool_section
from crossrank.audit.untouched import section, with_and_without
from crossrank.data.mining import Pool
from crossrank.data.near_equal import SignedTexts, clusters
from crossrank.data.pairs import QAPairs
from crossrank.data.policy import Policy
from crossrank.data.prepared_pool import TrainingTexts
from crossrank.data.splits import load_splits
from crossrank.data.teacher import Teacher
from crossrank.data.texts import codes_by_appearance, digests
from crossrank.errors import DataError
from crossrank.evaluation.reranking import RerankingTask

MOST_CLUSTERED = 200_000  # documents: their index takes some 3.4 KB each

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Audit:
    """What is looked at: the pool of a training set, its policy, and the evaluation.

    The negatives of `sample` questions are looked at, of which `sheet` go into a labelling sheet; `labels` is such a
    sheet filled in. `run` is the folder of a run whose metrics are told with and without touched queries.
    """

    texts: TrainingTexts
    pool: Pool
    policy: Policy
    tasks: Sequence[RerankingTask]
    teacher: Teacher | None = None
    sample: int = 500
    sheet: int = 200
    seed: int = 12
    labels: Path | None = None
    run: Path | None = None


def audit(asked: Audit, folder: Path) -> list[Section]:
    """Look, and write audit.md, negatives.parquet, sheet.csv and, of the leaks, a table and the rows into `folder`.

    Raises:
        DataError: the sheet or the run is missing or broken.
    """
    labels = read_labels(asked.labels) if asked.labels else None
    run = _rows_of(asked.run) if asked.run else None
    folder.mkdir(parents=True, exist_ok=True)
    index = asked.texts.index
    found = sample(asked.pool, asked.policy, index, asked.sample, asked.seed)
    if asked.teacher is not None:
        found = judged(found, asked.pool, index, asked.teacher)
    found.rows.to_parquet(folder / "negatives.parquet", index=False)
    write_sheet(found, asked.sheet, asked.seed, folder / "sheet.csv")
    told = [
        pool_section(asked.pool, asked.policy),
        *sections(found, asked.policy.teacher_above, labels),
        duplicates(*_some_clusters(asked), index.documents),
    ]
    if asked.tasks:
        pairs = load_splits(asked.texts.source, asked.texts.cache_dir).train
        leaks = find_leaks(pairs.questions, answers_of(pairs), asked.tasks)
        leaks.write(folder)
        told += leaks.sections()
        if run is not None:
            told.append(section(with_and_without(run, leaks)))
    page = "\n\n".join(["# Audit", *(one.as_markdown(2) for one in told)])
    (folder / "audit.md").write_text(page + "\n", encoding="utf-8")
    return told


def answers_of(pairs: QAPairs) -> Sequence[str]:
    """Return the pairs' documents, and "" in the place of one that is labelled as no answer."""
    if pairs.labels is None:
        return pairs.answers
    relevant = pairs.relevant(codes_by_appearance(digests(pairs.questions))[0])
    return [answer if is_one else "" for answer, is_one in zip(pairs.answers, relevant, strict=True)]


def _some_clusters(asked: Audit) -> tuple[list[list[int]], int]:
    """Return groups of equal and nearly equal documents among all, or among MOST_CLUSTERED at random; and how many."""
    signed = asked.texts.signed
    if len(signed.texts) <= MOST_CLUSTERED:
        return clusters(signed), len(signed.texts)
    some = np.sort(np.random.default_rng(asked.seed).permutation(len(signed.texts))[:MOST_CLUSTERED])
    part = SignedTexts([signed.texts[d] for d in some], signed.signatures[some], signed.near)
    return [[int(some[d]) for d in group] for group in clusters(part)], len(some)


def _rows_of(run: Path) -> pd.DataFrame:
    rows = stored_rows(run)
    if rows is None:
        raise DataError(f"{run}: no evaluations/step=*.parquet; the folder of a run or of src.evaluate is wanted")
    return rows
