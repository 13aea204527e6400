"""The labelled pairs of a training set on disk: tokens, pool and rows, each cached by what it depends on."""

import dataclasses
import json
import logging
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from crossrank.data.cache import cached, save_array
from crossrank.data.fingerprint import fingerprint
from crossrank.data.mining import NO_CANDIDATE, Miner, Policy, Pool, mine
from crossrank.data.order import epoch_order
from crossrank.data.pairs import PairIndex, Source
from crossrank.data.splits import load_splits
from crossrank.data.tokens import PairEncoder, TokenStore, write_tokens
from crossrank.errors import DataError

log = logging.getLogger(__name__)

QUESTIONS_PER_BLOCK = 8192


@dataclass(frozen=True)
class TrainingRows:
    """Row i asks `questions[i]`, shows `documents[i]` and is labelled `labels[i]`; ids point into the token stores."""

    folder: Path
    questions: npt.NDArray[np.int32]
    documents: npt.NDArray[np.int32]
    labels: npt.NDArray[np.uint8]
    question_tokens: TokenStore
    document_tokens: TokenStore
    fingerprints: dict[str, str]

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def ranks(self) -> npt.NDArray[np.uint8]:
        """Of each row: 0 for a positive, else its place among its question's negatives, hardest first, from 1 to 255.

        The order of the rows says it, see `write_rows`.
        """
        negative = np.asarray(self.labels) == 0
        counted = np.cumsum(negative, dtype=np.int32)
        asked = np.asarray(self.questions)
        starts = np.flatnonzero(np.diff(asked, prepend=-1))
        before = np.repeat((counted - negative)[starts], np.diff(starts, append=len(asked)))
        return np.where(negative, np.minimum(counted - before, 255), 0).astype(np.uint8)

    def order(self, seed: int, epoch: int) -> npt.NDArray[np.int64]:
        """Return the memory-mapped order of one epoch, written beside the rows when first asked for."""

        def build(folder: Path) -> None:
            save_array(folder / "order.npy", epoch_order(len(self), seed, epoch))

        made = cached(self.folder.with_name(f"{self.folder.name}-order-{seed}-{epoch}"), build)
        mapped: npt.NDArray[np.int64] = np.load(made / "order.npy", mmap_mode="r")
        return mapped


def prepare_rows(
    source: Source, miner: Miner, policy: Policy, encoder: PairEncoder, cache_dir: Path, pool_depth: int | None = None
) -> TrainingRows:
    """Return the training rows, building what is not cached; texts are read only when something has to be built.

    `pool_depth` candidates are mined a question besides its positives, by default as many as the policy looks at.

    Raises:
        DataError: the source is broken, or the pool is not as deep as the policy wants.
        CacheError: the caches cannot be written.
    """
    built = _Builder(source, cache_dir)
    depth = pool_depth or policy.rank_max
    if depth < policy.rank_max:
        raise DataError(f"the pool holds {depth} candidates a question and the policy looks at {policy.rank_max}")
    texts_id = source.fingerprint()
    pool_id = fingerprint(texts_id, miner.fingerprint(), depth)
    tokens_id = fingerprint(texts_id, encoder.fingerprint)
    rows_id = fingerprint(pool_id, dataclasses.asdict(policy))

    pool_folder = cached(cache_dir / "pools" / pool_id, lambda to: mine(built.index, miner, depth, to))
    question_folder = cached(
        cache_dir / "tokens" / f"{tokens_id}-questions", lambda to: write_tokens(encoder, built.index.questions, to)
    )
    document_folder = cached(
        cache_dir / "tokens" / f"{tokens_id}-documents", lambda to: write_tokens(encoder, built.index.documents, to)
    )
    rows_folder = cached(cache_dir / "rows" / rows_id, lambda to: write_rows(Pool.open(pool_folder), policy, to))
    questions, documents, labels = (
        np.load(rows_folder / f"{name}.npy", mmap_mode="r") for name in ("questions", "documents", "labels")
    )
    return TrainingRows(
        rows_folder, questions, documents, labels, TokenStore.open(question_folder), TokenStore.open(document_folder),
        {"source": texts_id, "pool": pool_id, "tokens": tokens_id, "rows": rows_id},
    )  # fmt: skip


def write_rows(pool: Pool, policy: Policy, folder: Path) -> None:
    """Write the rows that a policy makes of a pool: per question its positives (label 1), then its negatives (0).

    A question with no surviving negative keeps its positives, and is counted in a warning.

    Raises:
        DataError: the pool holds no question.
    """
    if not len(pool):
        raise DataError("the pool holds no question; the source gave no training pair")
    without = rows = 0
    names = {"questions": np.int32, "documents": np.int32, "labels": np.uint8}
    with ExitStack() as opened:
        streams = {name: opened.enter_context((folder / f"{name}.raw").open("wb")) for name in names}
        for start in range(0, len(pool), QUESTIONS_PER_BLOCK):
            stop = min(start + QUESTIONS_PER_BLOCK, len(pool))
            block = _rows_of(pool, policy.select(pool, start, stop), start, stop)
            without += int((np.bincount(block[0] - start, block[2] == 0, stop - start) == 0).sum())
            rows += len(block[0])
            for (name, dtype), values in zip(names.items(), block, strict=True):
                streams[name].write(values.astype(dtype).tobytes())
    for name, dtype in names.items():
        save_array(folder / f"{name}.npy", np.memmap(folder / f"{name}.raw", dtype, "r"))
        (folder / f"{name}.raw").unlink()
    statistics = {"rows": rows, "questions": len(pool), "without_negatives": without}
    (folder / "rows.json").write_text(json.dumps(statistics))
    if without:
        log.warning(
            "%d of %d questions have no negative under this policy and train on their answer alone", without, len(pool)
        )


def _rows_of(
    pool: Pool, chosen: npt.NDArray[np.int32], start: int, stop: int
) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.integer], npt.NDArray[np.integer]]:
    """Return question ids, document ids and labels of questions [start, stop), question by question."""
    offsets = np.asarray(pool.positive_offsets[start : stop + 1])
    positives = np.asarray(pool.positives[offsets[0] : offsets[-1]])
    asked = np.repeat(np.arange(start, stop), np.diff(offsets))
    against, column = np.nonzero(chosen != NO_CANDIDATE)
    questions = np.concatenate([asked, against + start])
    documents = np.concatenate([positives, chosen[against, column]])
    labels = np.concatenate([np.ones(len(asked), np.uint8), np.zeros(len(against), np.uint8)])
    order = np.argsort(questions, kind="stable")  # positives stand first in each question: they were put in first
    return questions[order], documents[order], labels[order]


class _Builder:
    """Reads and indexes the texts once, when the first missing cache asks for them."""

    def __init__(self, source: Source, cache_dir: Path) -> None:
        self._source = source
        self._cache_dir = cache_dir
        self._index: PairIndex | None = None

    @property
    def index(self) -> PairIndex:
        if self._index is None:
            pairs = load_splits(self._source, self._cache_dir).train
            self._index = PairIndex.of(pairs)
            log.info(
                "read %d training pairs: %d questions, %d documents",
                len(pairs), len(self._index.questions), len(self._index.documents),
            )  # fmt: skip
        return self._index
