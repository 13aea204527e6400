"""A trained cross-encoder as the teacher that judges mined negatives."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from crossrank.data.fingerprint import file_fingerprints, fingerprint
from crossrank.hub import MODEL_FILES, Asset, resolve
from crossrank.inference.padded import PaddedScorer, Precision, load_scorer, place_of
from crossrank.inference.scorer import PairScorer


@dataclass(frozen=True)
class CrossEncoderTeacher:
    """The cross-encoder at `path`: an export, the folder of a run, `pypi:<distribution>` or a hub id.

    It is asked about a question's best `candidates`; `max_length` in tokens of a pair defaults to the model's own.
    """

    path: str
    candidates: int = 20
    max_length: int | None = None
    tokens_per_batch: int | None = None
    precision: Precision = "fp32"

    def __post_init__(self) -> None:
        if self.candidates < 1:
            raise ValueError(f"candidates counts documents a question and must be at least 1, got {self.candidates}")

    def assets(self) -> Sequence[Asset]:
        """Return the model."""
        return (Asset("model", place_of(self.path)),)

    def fingerprint(self) -> str:
        """Return an id of the model's files and of the settings that its answers depend on."""
        folder = resolve(self.assets()[0])
        content = file_fingerprints(folder, (file for pattern in MODEL_FILES for file in folder.rglob(pattern)))
        return fingerprint("cross-encoder", content, self.candidates, self.max_length, self.precision)

    def probabilities(self, pairs: Sequence[tuple[str, str]]) -> npt.NDArray[np.float32]:
        """Return for each (question, document) the logistic function of the model's logit, float32[pairs]."""
        return np.asarray(expit(self._scorer(pairs).astype(np.float64)), np.float32)

    @cached_property
    def _scorer(self) -> PairScorer | PaddedScorer:
        return load_scorer(place_of(self.path), self.max_length, self.tokens_per_batch, self.precision)
