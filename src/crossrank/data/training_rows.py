"""The labelled pairs of a training set on disk: tokens, pool and rows, each cached by what it depends on."""

import json
import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from crossrank.data.cache import cached, growing_arrays
from crossrank.data.description import write_description
from crossrank.data.given import Given
from crossrank.data.lineage import Lineage, given_lineage, pool_lineage, with_rows
from crossrank.data.mapped import let_go, new_array
from crossrank.data.miners.none import NoMiner
from crossrank.data.mining import Miner, Pool
from crossrank.data.near_equal import Signatures
from crossrank.data.order import permute
from crossrank.data.pairs import Source
from crossrank.data.policy import Negatives, Policy
from crossrank.data.prepared_pool import TrainingTexts, build_pool, depth_for, refuse_other_texts
from crossrank.data.ranks import ROWS_PER_BLOCK, write_ranks
from crossrank.data.search import NO_CANDIDATE
from crossrank.data.teacher import Teacher
from crossrank.data.tokens import PairEncoder, TokenStore, write_tokens
from crossrank.errors import DataError

log = logging.getLogger(__name__)

QUESTIONS_PER_BLOCK = 8192


@dataclass(frozen=True)
class TrainingRows:
    """Row i asks `questions[i]`, shows `documents[i]` and is labelled `labels[i]`; ids point into the token stores.

    A question's rows stand together, its positives first. Where negatives are drawn anew each epoch, `documents` and
    `labels` are those of epoch 0: read rows with `at`.
    """

    folder: Path
    questions: npt.NDArray[np.int32]
    documents: npt.NDArray[np.int32]
    labels: npt.NDArray[np.uint8] | npt.NDArray[np.float32]
    question_tokens: TokenStore
    document_tokens: TokenStore
    lineage: Lineage
    fresh: tuple[Pool, Policy] | None = None  # what draws anew each epoch, if anything does
    again: npt.NDArray[np.int64] | None = None  # rows that an epoch visits once more, one entry a visit
    signatures: Signatures | None = None  # of the documents, where asked for

    @property
    def fingerprints(self) -> dict[str, str]:
        """The ids of the steps that made the rows."""
        return self.lineage.ids

    def __len__(self) -> int:
        """How many rows an epoch visits."""
        return len(self.labels) + (0 if self.again is None else len(self.again))

    def at(
        self, rows: npt.NDArray[np.integer], epoch: int
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[Any]]:
        """Return the questions, documents and labels of some rows in an epoch (from 0)."""
        questions, documents, labels = (np.array(x[rows]) for x in (self.questions, self.documents, self.labels))
        if self.fresh is None or epoch == 0:
            return questions, documents, labels
        pool, policy = self.fresh
        asked, which = np.unique(questions, return_inverse=True)
        own = np.asarray(pool.positive_offsets[asked + 1] - pool.positive_offsets[asked])[which]
        place = rows - np.searchsorted(self.questions, questions) - own  # among the question's negatives
        drawn = policy.select(pool, asked, epoch)
        negative = place >= 0
        documents[negative] = drawn.documents[which[negative], place[negative]]
        labels[negative] = drawn.relevant[which[negative], place[negative]]
        return questions, documents, labels

    @cached_property
    def ranks(self) -> npt.NDArray[np.uint8]:
        """Of each row, memory-mapped: 0 for a positive, else its place among its question's negatives, hardest first.

        The order of the rows says it, see `write_ranks`; it is written beside the rows when first asked for.
        """
        made = cached(
            self.folder.with_name(f"{self.folder.name}-ranks"),
            lambda to: write_ranks(self.questions, self.labels, to / "ranks.npy"),
        )
        mapped: npt.NDArray[np.uint8] = np.load(made / "ranks.npy", mmap_mode="r")
        return mapped

    def order(self, seed: int, epoch: int) -> npt.NDArray[np.int64]:
        """Return the memory-mapped order of one epoch, written beside the rows when first asked for."""

        def build(folder: Path) -> None:
            order = permute(new_array(folder / "order.npy", len(self), np.int64), seed, epoch)
            if self.again is not None:
                for start in range(0, len(order), ROWS_PER_BLOCK):
                    block = order[start : start + ROWS_PER_BLOCK]
                    more = block >= len(self.labels)
                    block[more] = self.again[block[more] - len(self.labels)]

        made = cached(self.folder.with_name(f"{self.folder.name}-order-{seed}-{epoch}"), build)
        mapped: npt.NDArray[np.int64] = np.load(made / "order.npy", mmap_mode="r")
        return mapped

    def let_go(self, *others: npt.NDArray[Any]) -> None:
        """Take what has been read of the rows, their tokens and `others` out of this process's memory."""
        stores = (self.question_tokens, self.document_tokens)
        tokens = (array for store in stores for array in (store.ids, store.offsets))
        signed = () if self.signatures is None else (self.signatures,)
        let_go([self.questions, self.documents, self.labels, self.ranks, *tokens, *signed, *others])


def prepare_rows(
    source: Source,
    miner: Miner,
    policy: Policy,
    encoder: PairEncoder,
    cache_dir: Path,
    pool_depth: int | None = None,
    teacher: Teacher | None = None,
    signed: bool = False,
) -> TrainingRows:
    """Return the training rows, building what is not cached; texts are read only when something has to be built.

    `pool_depth` candidates are mined a question besides its positives, by default as many as the policy looks at.
    `signed` rows know what tells near-equal documents, so that those of other questions can be drawn.

    Raises:
        DataError: the source is broken, or the pool is not as deep as the policy wants.
        CacheError: the caches cannot be written.
    """
    texts, depth = TrainingTexts(source, cache_dir), depth_for(policy, pool_depth)
    mined = not isinstance(miner, NoMiner)
    made = pool_lineage(source, miner, policy, depth, teacher) if mined else given_lineage(source, miner)
    given = Given.prepare(lambda: texts.index, made.ids["given"], cache_dir)
    made = with_rows(made, encoder)
    folders = made.folders(cache_dir)
    if signed:
        given.allow_in_batch()
    if mined:
        given.allow_mining(policy.fresh)
        pool = build_pool(texts, miner, policy, depth, teacher, folders)
    else:
        rows_folder = given.alone()
    asked = TokenStore.open(
        cached(folders["question tokens"], lambda to: write_tokens(encoder, texts.index.questions, to))
    )
    shown = TokenStore.open(
        cached(folders["document tokens"], lambda to: write_tokens(encoder, texts.index.documents, to))
    )
    if mined:
        refuse_other_texts(folders["pool"], len(asked), len(shown))
        rows_folder = given.beside(cached(folders["rows"], lambda to: write_rows(pool, policy, to)))
    signatures = texts.signatures() if signed else None
    cached(folders["description"], lambda to: write_description(texts.index, rows_folder, to))
    texts.close()
    questions, documents, labels = (
        np.load(rows_folder / f"{name}.npy", mmap_mode="r") for name in ("questions", "documents", "labels")
    )
    fresh = (pool, policy) if mined and policy.fresh else None
    return TrainingRows(
        rows_folder, questions, documents, labels, asked, shown, made, fresh, given.again(rows_folder),
        signatures,
    )  # fmt: skip


def write_rows(pool: Pool, policy: Policy, folder: Path) -> None:
    """Write the rows that a policy makes of a pool: per question its positives (label 1), then its negatives (0).

    A negative that is taken to be relevant is labelled 1. A question with no surviving negative keeps its positives,
    and is counted in a warning.

    Raises:
        DataError: the pool holds no question.
    """
    if not len(pool):
        raise DataError("the pool holds no question; the source gave no training pair")
    without = rows = relabelled = 0
    with growing_arrays(folder, {"questions": np.int32, "documents": np.int32, "labels": np.uint8}) as append:
        for start in range(0, len(pool), QUESTIONS_PER_BLOCK):
            stop = min(start + QUESTIONS_PER_BLOCK, len(pool))
            block = _rows_of(pool, policy.select(pool, np.arange(start, stop)), start, stop)
            without += int((np.bincount(block[0] - start, block[2] == 0, stop - start) == 0).sum())
            relabelled += int(block[2].sum()) - int(pool.positive_offsets[stop] - pool.positive_offsets[start])
            rows += len(block[0])
            append(*block)
    statistics = {
        "rows": rows, "questions": len(pool), "without_negatives": without, "relabelled": relabelled,
    }  # fmt: skip
    (folder / "rows.json").write_text(json.dumps(statistics))
    if without:
        log.warning(
            "%d of %d questions have no negative under this policy and train on their answer alone", without, len(pool)
        )


def _rows_of(
    pool: Pool, chosen: Negatives, start: int, stop: int
) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.integer], npt.NDArray[np.integer]]:
    """Return question ids, document ids and labels of questions [start, stop), question by question."""
    positives, _, asked = pool.positives_of(np.arange(start, stop))
    against, column = np.nonzero((chosen.documents != NO_CANDIDATE) & ~chosen.positive)
    questions = np.concatenate([asked, against]) + start
    documents = np.concatenate([positives, chosen.documents[against, column]])
    labels = np.concatenate([np.ones(len(asked), bool), chosen.relevant[against, column]])
    order = np.argsort(questions, kind="stable")  # positives stand first in each question: they were put in first
    return questions[order], documents[order], labels[order]
