"""Which reranker a program uses, described before it is loaded."""

from dataclasses import dataclass
from typing import Any

from crossrank.data.fingerprint import file_fingerprints, fingerprint
from crossrank.hub import MODEL_FILES, Asset, resolve
from crossrank.inference.padded import Precision, place_of
from crossrank.inference.reranker import Reranker


@dataclass(frozen=True)
class RerankerSpec:
    """A reranker's path and the settings of `Reranker` that its scores depend on."""

    path: str
    max_length: int | None = None
    tokens_per_batch: int | None = None
    precision: Precision = "fp32"

    @property
    def asset(self) -> Asset:
        """The model; of a run's folder, its export."""
        return Asset("model", place_of(self.path))

    def identity(self) -> dict[str, Any]:
        """Return by name what the scores depend on, to the last bit.

        Raises:
            AssetError: the model is not to be had.
        """
        folder = resolve(self.asset)
        files = (file for pattern in MODEL_FILES for file in folder.rglob(pattern))
        return {
            "reranker": fingerprint(file_fingerprints(folder, files)),
            "max_length": self.max_length,
            "tokens_per_batch": self.tokens_per_batch,
            "precision": self.precision,
        }

    def load(self) -> Reranker:
        """Load it, see `Reranker`."""
        return Reranker(
            self.path, max_length=self.max_length, tokens_per_batch=self.tokens_per_batch, precision=self.precision
        )
