"""A pool with all that a policy reads of it, each part cached by what it depends on."""

import dataclasses
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from crossrank.data.cache import cached
from crossrank.data.fingerprint import fingerprint
from crossrank.data.lineage import NEAR, Lineage, pool_lineage
from crossrank.data.mapped import give_back
from crossrank.data.mining import Miner, Pool, mine
from crossrank.data.near_equal import Signatures, SignedTexts, write_signatures
from crossrank.data.pairs import PairIndex, Source
from crossrank.data.policy import Policy
from crossrank.data.splits import load_splits
from crossrank.data.teacher import Teacher, ask
from crossrank.data.twins import MinedPool, write_twins
from crossrank.errors import DataError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingTexts:
    """The distinct texts of a source's training split, read and indexed when something first asks for them."""

    source: Source
    cache_dir: Path

    @cached_property
    def fingerprint(self) -> str:
        """An id of the texts, known without reading them."""
        return self.source.fingerprint()

    @cached_property
    def index(self) -> PairIndex:
        """The distinct texts, and which documents answer which question."""
        pairs = load_splits(self.source, self.cache_dir).train
        index = PairIndex.of(pairs)
        log.info(
            "read %d training pairs: %d questions, %d documents",
            len(pairs), len(index.questions), len(index.documents),
        )  # fmt: skip
        return index

    def close(self) -> None:
        """Let go of the texts and of the memory that they took; they are read again when asked for."""
        if self.__dict__.pop("index", None) is not None:
            self.__dict__.pop("signed", None)
            give_back()

    @cached_property
    def signed(self) -> SignedTexts:
        """The documents with their MinHash signatures."""
        return SignedTexts.open(self._signed_in(), self.index.documents, NEAR)

    def signatures(self) -> Signatures:
        """Return the documents' MinHash signatures, memory-mapped; no text is read where they are cached."""
        mapped: Signatures = np.load(self._signed_in() / "signatures.npy", mmap_mode="r")
        return mapped

    def _signed_in(self) -> Path:
        named = fingerprint(self.fingerprint, NEAR.signature_fingerprint)
        return cached(
            self.cache_dir / "signatures" / named, lambda to: write_signatures(self.index.documents, NEAR, to)
        )


@dataclass(frozen=True)
class PreparedPool:
    """A pool, where it lies, and the steps that made it and what a policy reads of it."""

    pool: Pool
    folder: Path
    lineage: Lineage


def prepare_pool(
    texts: TrainingTexts, miner: Miner, policy: Policy, depth: int | None = None, teacher: Teacher | None = None
) -> PreparedPool:
    """Return the pool, mined unless it is cached, with twins and a teacher's answers where the policy wants them.

    `depth` candidates are mined a question besides its positives, by default as many as the policy looks at.

    Raises:
        DataError: the source is broken, or the pool is less deep than the policy looks or of other texts.
        CacheError: the caches cannot be written.
    """
    depth = depth_for(policy, depth)
    made = pool_lineage(texts.source, miner, policy, depth, teacher)
    folders = made.folders(texts.cache_dir)
    return PreparedPool(build_pool(texts, miner, policy, depth, teacher, folders), folders["pool"], made)


def build_pool(
    texts: TrainingTexts,
    miner: Miner,
    policy: Policy,
    depth: int,
    teacher: Teacher | None,
    folders: Mapping[str, Path],
) -> Pool:
    """Return what `prepare_pool` does; `folders` are those of its lineage."""
    cache = texts.cache_dir
    cached(folders["pool"], lambda to: mine(texts.index.answered(), miner, depth, to, cache), resumable=True)
    pool = Pool.open(folders["pool"])
    if policy.drop_twins:
        at = cached(folders["twins"], lambda to: write_twins(_ids(pool), texts.signed, to))
        pool = dataclasses.replace(pool, twins=np.load(at / "twins.npy", mmap_mode="r"))
    if teacher is not None:
        at = cached(folders["answers"], partial(_ask, teacher, pool, policy, texts), resumable=True)
        pool = dataclasses.replace(pool, teacher=np.load(at / "teacher.npy", mmap_mode="r"))
    return pool


def refuse_other_texts(pool: Path, questions: int, documents: int) -> None:
    """Check that a pool's ids can be those of so many texts, which a folder put there by hand may not be.

    Raises:
        DataError: the pool was mined of other texts.
    """
    facts = json.loads((pool / "pool.json").read_text(encoding="utf-8"))
    if facts["questions"] > questions or facts["documents"] > documents:
        raise DataError(
            f"{pool} holds a pool of {facts['questions']} questions and {facts['documents']} documents, and there are "
            f"{questions} and {documents}: it was mined of other texts; remove the folder"
        )


def depth_for(policy: Policy, depth: int | None) -> int:
    """Return how many candidates are mined a question: `depth`, or as many as the policy looks at.

    Raises:
        DataError: the policy looks at more.
    """
    if depth is not None and depth < policy.rank_max:
        raise DataError(f"the pool holds {depth} candidates a question and the policy looks at {policy.rank_max}")
    return depth or policy.rank_max


def _ask(teacher: Teacher, pool: Pool, policy: Policy, texts: TrainingTexts, folder: Path) -> None:
    ask(teacher, pool, policy, texts.index, folder)


def _ids(pool: Pool) -> MinedPool:
    return MinedPool(pool.candidates, pool.positive_offsets, pool.positives)
