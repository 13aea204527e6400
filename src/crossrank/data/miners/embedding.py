"""Exact nearest neighbours under a SentenceTransformer's embeddings (static or not)."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from crossrank.data.cache import cached, write_rows_in_blocks
from crossrank.data.fingerprint import file_fingerprints, fingerprint, texts_fingerprint
from crossrank.data.mining import Candidates
from crossrank.data.search import ExactSearch, Library, Vectors
from crossrank.errors import DataError
from crossrank.hub import MODEL_FILES, Asset, resolve

log = logging.getLogger(__name__)

QUESTIONS_PER_BLOCK = 1024  # compared at a time
TEXTS_PER_CALL = 8192  # embedded at a time; what an interrupted call loses at most

Side = Literal["query", "document"]


@dataclass(frozen=True)
class EmbeddingMiner:
    """Cosine similarity under the SentenceTransformer at `path`: a folder, `pypi:<distribution>` or a hub id.

    Questions and documents are embedded with the model's own prompts for queries and documents where it has any.
    `device` None is the GPU where there is one; `library` multiplies: FAISS, where it is installed, or torch. Neither
    changes which documents are found.
    """

    path: str
    revision: str | None = None
    sha256: str | None = None
    device: str | None = None
    library: Library = "auto"
    texts_per_batch: int = 1024

    def __post_init__(self) -> None:
        if self.texts_per_batch < 1:
            raise ValueError(f"texts_per_batch must be at least 1, got {self.texts_per_batch}")

    def assets(self) -> Sequence[Asset]:
        """Return the embedder at its pinned revision."""
        return (self._asset(),)

    def fingerprint(self) -> str:
        """Return an id of the embedder: the content of its weights, tokenizer and settings."""
        folder = resolve(self._asset())
        content = file_fingerprints(folder, (file for pattern in MODEL_FILES for file in folder.rglob(pattern)))
        return fingerprint("embedding", content or [self.path, self.revision], version("sentence-transformers"))

    def search(
        self,
        questions: Sequence[str],
        documents: Sequence[str],
        k: int,
        positives: Sequence[npt.NDArray[np.int32]],
        start: int = 0,
        cache_dir: Path | None = None,
    ) -> Iterator[Candidates]:
        """Yield the candidates of consecutive blocks of questions; see `crossrank.data.mining.Miner`.

        Raises:
            DataError: an embedding is not finite, or those cached are not this embedder's.
        """
        embedder = _Embedder(self, cache_dir)
        vectors = embedder.embed("document", documents)
        asked = embedder.embed("query", questions)
        if vectors.shape[1] != asked.shape[1]:
            raise DataError(
                f"{self.path} gives documents {vectors.shape[1]} dimensions and questions {asked.shape[1]}; a miner "
                "needs one embedder whose two sides agree, or an empty cache_dir"
            )
        search = ExactSearch(vectors, self.library, self.on)
        del vectors  # FAISS has its own copy
        for first in range(start, len(questions), QUESTIONS_PER_BLOCK):
            block = np.array(asked[first : first + QUESTIONS_PER_BLOCK])
            found = search.nearest(block, k)
            own = [search.scores(vector, positives[first + row]) for row, vector in enumerate(block)]
            yield Candidates(found.ids, found.scores, own)

    @property
    def on(self) -> str:
        """The device that embeds and multiplies."""
        return self.device or ("cuda" if torch.cuda.is_available() else "cpu")

    def model(self) -> Any:  # sentence-transformers' classes take seconds to import, and not every miner needs them
        """Return the SentenceTransformer."""
        from sentence_transformers import SentenceTransformer

        return SentenceTransformer(
            str(resolve(self._asset())), device=self.on, trust_remote_code=False,
            model_kwargs={"use_safetensors": True},
        )  # fmt: skip

    def _asset(self) -> Asset:
        return Asset("model", self.path, self.revision, self.sha256)


class _Embedder:
    """Embeds texts once: the vectors lie in the cache, named by model, side and texts, and are mapped from there."""

    def __init__(self, miner: EmbeddingMiner, cache_dir: Path | None) -> None:
        self._miner, self._cache_dir = miner, cache_dir
        self._model: Any = None

    @cached_property
    def _embedder(self) -> str:
        return self._miner.fingerprint()  # which hashes the weights

    def embed(self, side: Side, texts: Sequence[str]) -> Vectors:
        """Return the vectors of the texts, float32[texts, dimensions], each of length 1."""
        if self._cache_dir is None:
            return np.concatenate([self._encode(side, texts[at : at + TEXTS_PER_CALL]) for at in _starts(texts)])
        named = fingerprint("embeddings", self._embedder, side, texts_fingerprint(texts))
        folder = cached(self._cache_dir / "embeddings" / named, lambda to: self._write(side, texts, to), resumable=True)
        vectors: Vectors = np.load(folder / "embeddings.npy", mmap_mode="r")
        if vectors.ndim != 2 or len(vectors) != len(texts) or vectors.dtype != np.float32:
            raise DataError(
                f"{folder} holds {vectors.dtype} of shape {vectors.shape}, not the vectors of {len(texts)} texts; "
                "remove the folder"
            )
        return vectors

    def _write(self, side: Side, texts: Sequence[str], folder: Path) -> None:
        write_rows_in_blocks(
            folder / "embeddings.npy",
            (len(texts), self._dimensions()),
            TEXTS_PER_CALL,
            f"embedding {'questions' if side == 'query' else 'documents'}",
            lambda start, stop: self._encode(side, texts[start:stop]),
        )
        log.info("embedded %d texts with %s", len(texts), self._miner.path)

    def _dimensions(self) -> int:
        return len(self._encode("document", ["."])[0])

    def _encode(self, side: Side, texts: Sequence[str]) -> Vectors:
        self._model = self._model or self._miner.model()
        encode = self._model.encode_query if side == "query" else self._model.encode_document
        options = {"normalize_embeddings": True, "show_progress_bar": False, "convert_to_numpy": True}
        vectors = np.asarray(encode(list(texts), batch_size=self._miner.texts_per_batch, **options), np.float32)
        finite = np.isfinite(vectors).all(axis=1)
        if not finite.all():
            broken = texts[int(np.argmin(finite))]
            raise DataError(f"{self._miner.path} gives a vector that is not finite for the {side} {broken[:80]!r}")
        return vectors


def _starts(texts: Sequence[str]) -> range:
    return range(0, len(texts), TEXTS_PER_CALL)
