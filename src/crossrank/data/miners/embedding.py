"""Exact nearest neighbours under a SentenceTransformer's embeddings (static or not)."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt

from crossrank.data.fingerprint import file_fingerprint, fingerprint
from crossrank.data.mining import Candidates, top_k
from crossrank.hub import MODEL_FILES, Asset, resolve

log = logging.getLogger(__name__)

BLOCK = 1024  # questions compared at a time: one block of similarities is [1024, documents] float32


@dataclass(frozen=True)
class EmbeddingMiner:
    """Cosine similarity under the SentenceTransformer at `path`: a folder, `pypi:<distribution>` or a hub id."""

    path: str
    revision: str | None = None
    sha256: str | None = None
    device: str = "cpu"
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
        files = sorted(file for pattern in MODEL_FILES for file in folder.rglob(pattern))
        content = {str(file.relative_to(folder)): file_fingerprint(file) for file in files}
        return fingerprint("embedding", content or [self.path, self.revision], version("sentence-transformers"))

    def search(
        self, questions: Sequence[str], documents: Sequence[str], k: int, positives: Sequence[npt.NDArray[np.int32]]
    ) -> Iterator[Candidates]:
        """Yield the candidates of consecutive blocks of questions; see `crossrank.data.mining.Miner`."""
        from sentence_transformers import SentenceTransformer  # heavy, and not needed by every miner

        model = SentenceTransformer(
            str(resolve(self._asset())), device=self.device, trust_remote_code=False,
            model_kwargs={"use_safetensors": True},
        )  # fmt: skip
        corpus = self._embed(model.encode_document, documents)
        log.info("embedded %d documents with %s", len(documents), self.path)
        for start in range(0, len(questions), BLOCK):
            block = self._embed(model.encode_query, questions[start : start + BLOCK])
            similarities = block @ corpus.T
            ids, top = top_k(similarities, k)
            own = [similarities[row, positives[start + row]] for row in range(len(block))]
            yield Candidates(ids, top, own)

    def _embed(self, encode: Callable[..., Any], texts: Sequence[str]) -> npt.NDArray[np.float32]:
        options = {"normalize_embeddings": True, "show_progress_bar": False, "convert_to_numpy": True}
        return np.asarray(encode(list(texts), batch_size=self.texts_per_batch, **options), np.float32)

    def _asset(self) -> Asset:
        return Asset("model", self.path, self.revision, self.sha256)
