"""The held-out questions of a source, with candidates that a miner finds among all its answers."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from crossrank.data.cache import cached
from crossrank.data.fingerprint import fingerprint
from crossrank.data.miners.none import NoMiner
from crossrank.data.mining import Miner, Pool, mine
from crossrank.data.pairs import PairIndex, Source
from crossrank.data.search import NO_CANDIDATE
from crossrank.data.splits import load_splits
from crossrank.evaluation import Protocols
from crossrank.evaluation.reranking import OverTasks, RerankingTask
from crossrank.hub import Asset

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class HeldOut(OverTasks):
    """Reranks the miner's best `depth` of all train and dev answers for each dev question.

    Source: the gooaq-dev evaluation of sentence-transformers' training_gooaq_bce.py: the raw top 30 of the miner,
    positives among them or not, reranked as they are (`always_rerank_positives: false`).
    """

    name: str
    source: Source
    miner: Miner
    cache_dir: str
    depth: int = 30
    at_k: int = 10
    always_rerank_positives: bool = False
    protocol: Protocols = "st"

    def __post_init__(self) -> None:
        if self.depth < 2 or self.at_k < 1:
            raise ValueError(f"depth must be at least 2 and at_k at least 1, got {self.depth} and {self.at_k}")
        if isinstance(self.miner, NoMiner):
            raise ValueError("miner=none finds nothing to rerank; evaluators=held_out lets BM25 find it")

    @property
    def datasets(self) -> Sequence[str]:
        """The one name."""
        return [self.name]

    def assets(self) -> Sequence[Asset]:
        """Return what the source and the miner need."""
        return (*self.source.assets(), *self.miner.assets())

    @cached_property
    def tasks(self) -> Sequence[RerankingTask]:
        """The one task, its candidates mined unless they are cached."""
        splits = load_splits(self.source, Path(self.cache_dir))
        index = PairIndex.of(splits.dev, extra_documents=splits.train.answers)
        named = fingerprint("held-out", self.source.fingerprint(), self.miner.fingerprint(), self.depth)
        cache = Path(self.cache_dir)
        build = partial(mine, index, self.miner, self.depth, cache_dir=cache)
        folder = cached(cache / "pools" / named, build, resumable=True)
        pool = Pool.open(folder)
        names = {question: f"{self.name}-{question}" for question in range(len(index.questions))}
        shown = np.union1d(pool.candidates[:, : self.depth], index.positives)
        task = RerankingTask(
            name=self.name,
            queries={name: index.questions[question] for question, name in names.items()},
            documents={str(d): index.documents[d] for d in shown if d != NO_CANDIDATE},
            candidates={name: _ids(pool.candidates[question, : self.depth]) for question, name in names.items()},
            qrels={name: dict.fromkeys(_ids(index.positives_of(q)), 1) for q, name in names.items()},
            at_k=self.at_k,
            always_rerank_positives=self.always_rerank_positives,
            protocol=self.protocol,
        )
        return [task]


def _ids(documents: npt.NDArray[np.int32]) -> list[str]:
    return [str(d) for d in documents if d != NO_CANDIDATE]
