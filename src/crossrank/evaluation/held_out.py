"""The held-out questions of a source, with candidates that a miner finds among all its answers."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from crossrank.data.cache import cached
from crossrank.data.fingerprint import fingerprint
from crossrank.data.mining import NO_CANDIDATE, Miner, Pool, mine
from crossrank.data.pairs import PairIndex, Source
from crossrank.data.splits import load_splits
from crossrank.evaluation import Evaluation, Scorer
from crossrank.evaluation.reranking import RerankingTask
from crossrank.hub import Asset

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class HeldOut:
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

    def __post_init__(self) -> None:
        if self.depth < 2 or self.at_k < 1:
            raise ValueError(f"depth must be at least 2 and at_k at least 1, got {self.depth} and {self.at_k}")

    @property
    def datasets(self) -> Sequence[str]:
        """The one name."""
        return [self.name]

    def assets(self) -> Sequence[Asset]:
        """Return what the source and the miner need."""
        return (*self.source.assets(), *self.miner.assets())

    def prepare(self) -> None:
        """Mine the candidates, unless they are cached."""
        self._task  # noqa: B018 - mining is what the property does

    def __call__(self, score: Scorer) -> Evaluation:
        """Rerank the candidates."""
        return self._task.evaluate(score)

    @cached_property
    def _task(self) -> RerankingTask:
        splits = load_splits(self.source, Path(self.cache_dir))
        index = PairIndex.of(splits.dev, extra_documents=splits.train.answers)
        named = fingerprint("held-out", self.source.fingerprint(), self.miner.fingerprint(), self.depth)
        folder = cached(Path(self.cache_dir) / "pools" / named, lambda to: mine(index, self.miner, self.depth, to))
        pool = Pool.open(folder)
        ids = {f"{self.name}-{question}": question for question in range(len(index.questions))}
        return RerankingTask(
            name=self.name,
            queries={key: index.questions[question] for key, question in ids.items()},
            candidates={key: _texts(index, pool.candidates[question, : self.depth]) for key, question in ids.items()},
            positives={key: _texts(index, index.positives_of(question)) for key, question in ids.items()},
            at_k=self.at_k,
            always_rerank_positives=self.always_rerank_positives,
        )


def _texts(index: PairIndex, ids: npt.NDArray[np.int32]) -> list[str]:
    return [index.documents[d] for d in ids if d != NO_CANDIDATE]
