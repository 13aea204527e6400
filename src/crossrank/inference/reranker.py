"""A trained reranker in its users' hands, called as `sentence_transformers.CrossEncoder` is."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from crossrank.data.progress import hidden
from crossrank.errors import DataError, ModelError
from crossrank.hub import PYPI, Asset, resolve
from crossrank.inference.activation import stated_activation
from crossrank.inference.given_pairs import Pair, given_pairs, query_pairs
from crossrank.inference.padded import PaddedScorer, Precision, load_scorer, place_of

log = logging.getLogger(__name__)

ORGANISATION = "cross-encoder"  # on the hub, of names without one, as sentence-transformers has it

Activation = Callable[[Tensor], Tensor]


class Scored(NamedTuple):
    """What a model found of some pairs."""

    logits: npt.NDArray[np.float32]  # [pairs], all finite
    cut: npt.NDArray[np.bool_]  # [pairs], those with more tokens than the model takes


class Reranker:
    """Loads a trained cross-encoder (an export, the folder of a run, `pypi:<distribution>`, a hub id) and scores pairs.

    `max_length` is in tokens of a pair and defaults to the model's own; longer pairs are cut and counted in
    `pairs_cut`. Scores are what `activation_fn` makes of the logits, by default what the model's files state, else the
    logistic function. `device` is torch's name of one, by default the GPU where there is one. A batch holds at most
    `tokens_per_batch` tokens. What a pair is scored with changes its logit by rounding alone: by 1e-5 at most in
    `fp32`, by some hundredths in `bf16`.

    A backbone that the packed path does not know is scored by sentence-transformers, with a warning.

    Raises:
        AssetError: the model is not to be had.
        ModelError: it is no cross-encoder with one label, or its weights are not finite.
    """

    def __init__(
        self,
        model_name_or_path: str,
        *,
        max_length: int | None = None,
        activation_fn: Activation | None = None,
        device: str | None = None,
        tokens_per_batch: int | None = None,
        precision: Precision = "fp32",
    ) -> None:
        place = _place(model_name_or_path)
        self.scorer = load_scorer(place, max_length, tokens_per_batch, precision, device)
        _refuse_broken(self.scorer.model, place)
        self.folder = resolve(Asset("model", place))
        stated: Any = stated_activation(self.folder)
        if isinstance(self.scorer, PaddedScorer):
            stated = self.scorer.model.activation_fn
        self.activation_fn: Activation = activation_fn or stated
        self.pairs_cut = 0

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.scorer.model.parameters()).device

    @property
    def max_length(self) -> int:
        """Tokens of a pair that the model takes."""
        return self.scorer.max_length if isinstance(self.scorer, PaddedScorer) else self.scorer.encoder.max_length

    def predict(
        self,
        inputs: Any,
        *,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        activation_fn: Activation | None = None,
        apply_softmax: bool = False,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
    ) -> Any:
        """Return the score of one pair, or of each pair of a list, as `CrossEncoder.predict` does.

        Args:
            inputs: A question with a document, or a sequence or an array [pairs, 2] of such.
            batch_size: Must be positive, and is not used: batches are made by tokens.
            show_progress_bar: By default where this module logs at level INFO.
            activation_fn: What makes scores of logits float32[pairs] in this call alone.
            apply_softmax: Changes nothing: there is one class.
            convert_to_numpy: float32[pairs] on the host, or else a list of tensors.
            convert_to_tensor: One tensor float32[pairs] on the model's device, whatever `convert_to_numpy` says.

        Returns:
            Scores in the order of the pairs; of a single pair its own, without a dimension; none of no pair.

        Raises:
            DataError: an input is not a pair of texts.
            ModelError: a score is not finite.
        """
        pairs, single = given_pairs(inputs)
        with hidden(not _shown(batch_size, show_progress_bar)):
            scores = self.activated(self._told(pairs), activation_fn)
        if convert_to_tensor:
            return scores[0] if single else scores
        if convert_to_numpy:
            return scores.cpu().numpy()[0] if single else scores.cpu().numpy()
        return scores[0] if single else list(scores)

    def rank(
        self,
        query: str,
        documents: Sequence[str],
        top_k: int | None = None,
        return_documents: bool = False,
        *,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        activation_fn: Activation | None = None,
    ) -> list[dict[str, Any]]:
        """Return `{corpus_id, score[, text]}` of the best `top_k` documents, as `CrossEncoder.rank` does.

        Equal scores stand in the order of their logits, which a saturated activation hides, then as they were given.

        Raises:
            DataError: the question is blank, there is no document, or one of them is no text.
        """
        found = self.rank_many(
            [query], [documents], top_k, return_documents,
            batch_size=batch_size, show_progress_bar=show_progress_bar, activation_fn=activation_fn,
        )  # fmt: skip
        return found[0]

    def rank_many(
        self,
        queries: Sequence[str],
        candidates: Sequence[Sequence[str]],
        top_k: int | None = None,
        return_documents: bool = False,
        *,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        activation_fn: Activation | None = None,
    ) -> list[list[dict[str, Any]]]:
        """Return what `rank` returns of each question with its own documents, from one pass over all pairs.

        Raises:
            DataError: there are not as many lists as questions, or one is as `rank` refuses it.
        """
        if isinstance(queries, str) or len(queries) != len(candidates):
            raise DataError(f"as many lists of candidates as queries are wanted, got {len(candidates)}: {len(queries)}")
        if top_k is not None and top_k < 1:
            raise DataError(f"top_k must be at least 1, or None for all documents, got {top_k}")
        where = (f" {number}" if len(queries) > 1 else "" for number in range(len(queries)))
        lists = [query_pairs(*one) for one in zip(queries, candidates, where, strict=True)]
        pairs = [pair for listed in lists for pair in listed]
        with hidden(not _shown(batch_size, show_progress_bar)):
            logits = self._told(pairs)
        scores = self.activated(logits, activation_fn).cpu().numpy()
        ends = np.cumsum([len(listed) for listed in lists])
        return [
            _ranked(scores[end - len(listed) : end], logits[end - len(listed) : end], listed, top_k, return_documents)
            for listed, end in zip(lists, ends, strict=True)
        ]

    def score(self, pairs: Sequence[Pair]) -> Scored:
        """Return the logit of each pair and whether it was cut; no text is kept for the next call.

        Raises:
            ModelError: a logit is not finite.
        """
        try:
            logits, cut = self.scorer(pairs), self.scorer.truncated(pairs)
        finally:
            self.scorer.forget()
        bad = np.flatnonzero(~np.isfinite(logits))
        if len(bad):
            raise ModelError(
                f"the model's score of {len(bad)} of {len(pairs)} pairs is not finite ({logits[bad[0]]} of pair "
                f"{bad[0]}); its weights are broken or overflow in this precision"
            )
        self.pairs_cut += int(cut.sum())
        return Scored(logits, cut)

    def activated(self, logits: npt.NDArray[np.float32], activation_fn: Activation | None = None) -> Tensor:
        """Return the scores of logits, float32[pairs] on the model's device."""
        with torch.inference_mode():
            return (activation_fn or self.activation_fn)(torch.from_numpy(logits).to(self.device))

    def _told(self, pairs: Sequence[Pair]) -> npt.NDArray[np.float32]:
        first = self.pairs_cut == 0
        logits, cut = self.score(pairs)
        if first and self.pairs_cut:
            log.warning(
                "%d of %d pairs have more than max_length = %d tokens and are cut; from now on they are only counted",
                self.pairs_cut, len(cut), self.max_length,
            )  # fmt: skip
        return logits


def _ranked(
    scores: npt.NDArray[np.float32], logits: npt.NDArray[np.float32], pairs: Sequence[Pair], top_k: int | None,
    with_texts: bool,
) -> list[dict[str, Any]]:  # fmt: skip
    order = np.lexsort((-logits, -scores))[:top_k]
    found: list[dict[str, Any]] = [{"corpus_id": int(i), "score": float(scores[i])} for i in order]
    for place, one in zip(order, found, strict=True):
        if with_texts:
            one["text"] = pairs[place][1]
    return found


def _shown(batch_size: int, asked: bool | None) -> bool:
    if batch_size < 1:
        raise DataError(f"batch_size must be at least 1, got {batch_size}")
    return log.isEnabledFor(logging.INFO) if asked is None else asked


def _place(named: str) -> str:
    is_short = "/" not in named and not named.startswith(PYPI) and not Path(named).is_dir()
    return f"{ORGANISATION}/{named}" if is_short and named else place_of(named)


def _refuse_broken(model: torch.nn.Module, place: str) -> None:
    for name, weights in model.named_parameters():
        if not bool(torch.isfinite(weights).all()):
            raise ModelError(
                f"{place} holds weights that are not finite numbers, the first in {name.removeprefix('classifier.')}: "
                "its training diverged or the file is damaged; take an earlier checkpoint"
            )
