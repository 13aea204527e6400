"""Whether an export scores as the model that it was written from, in each library that its users load it by."""

import importlib.metadata
import io
import json
import logging
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import kendalltau

from crossrank.data.cache import replace_text
from crossrank.data.tokens import PairEncoder
from crossrank.errors import ExportError
from crossrank.inference import consumer
from crossrank.inference.elsewhere import by_interpreter
from crossrank.inference.in_memory import InMemory, Logits
from crossrank.inference.reranker import Reranker
from crossrank.inference.scorer import PairScorer
from crossrank.models.backbones import quiet_transformers
from crossrank.models.cross_encoder import CrossEncoder
from crossrank.models.onnx_export import FP32, INT8, in_words

log = logging.getLogger(__name__)

PARITY = "parity.json"
# Of a logit, or as a share of the largest where that is beyond 1. float32 rounds by 6e-8 of a number, which grows to
# 1e-6 over the 22 layers of ModernBERT-base (measured: 5e-7 of the largest logit, fused and padded); another pooling,
# weight or cut moves a logit by 1e-3 at least.
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Agreement:
    """How far a consumer's logits are from those of the model in memory.

    Without a `tolerance` the gap is told and refuses nothing. Without a `largest_gap` nothing came out that could be
    compared, and the note says what did.
    """

    consumer: str
    version: str
    pairs: int
    largest_gap: float | None
    tolerance: float | None = TOLERANCE
    note: str = ""

    @property
    def refused(self) -> bool:
        """Whether it speaks against the export."""
        return self.tolerance is not None and (self.largest_gap is None or self.largest_gap > self.tolerance)

    def __str__(self) -> str:
        """Return the finding in words."""
        gap = "does not score as it should" if self.largest_gap is None else f"differs by {self.largest_gap:.2g}"
        return " ".join(filter(None, [self.consumer, self.version, gap, self.note and f"({self.note})"]))


@dataclass(frozen=True)
class ParityGate:
    """Reloads an export in every consumer, writes `parity.json` into it, and refuses it where one scores otherwise.

    Consumers are crossrank itself, sentence-transformers, transformers, onnxruntime where there is an ONNX file, and
    what `interpreters`, the Pythons of other environments, hold of transformers and sentence-transformers.
    """

    model: CrossEncoder
    encoder: PairEncoder
    interpreters: tuple[str, ...] = ()

    def __call__(self, folder: Path) -> None:
        """Check the export in a folder.

        Raises:
            ExportError: logits, scores or tokens of a consumer differ, or it cannot load the folder; each is named.
        """
        rows = agreements(InMemory(self.model, self.encoder), folder, self.interpreters)
        replace_text(folder / PARITY, json.dumps([asdict(row) for row in rows], indent=2) + "\n")
        for row in rows:
            log.debug("parity: %s", row)
        if wrong := [str(row) for row in rows if row.refused]:
            raise ExportError(
                "the export does not score as the model in memory, of whose logits it may be "
                f"{TOLERANCE:g} off: {'; '.join(wrong)}"
            )
        gap = max(row.largest_gap or 0.0 for row in rows if row.tolerance is not None)
        log.info("the export scores the same in %d consumers (largest gap of a logit %.1g)", len(rows) - 1, gap)


def agreements(memory: InMemory, folder: Path, interpreters: Sequence[str] = ()) -> list[Agreement]:
    """Return a row for the way that the model in memory is set to, and one for each consumer of its export."""
    place, probe, ours = str(folder), memory.probe, importlib.metadata.version("crossrank")
    in_use = {"consumer": f"crossrank, in memory, {memory.model.attention}", "version": ours}
    ways: dict[str, Callable[[], dict[str, Any]]] = {
        "crossrank": lambda: {"version": ours, **_by_reranker(folder, memory)},
        "sentence-transformers": partial(
            consumer.by_sentence_transformers, place, probe.groups, memory.encoder.max_length
        ),
        "transformers": partial(consumer.by_transformers, place, probe.groups, probe.longest),
    }
    for file in (FP32, INT8):
        if (folder / file).is_file():
            ways[f"onnxruntime, {file}"] = partial(consumer.by_onnxruntime, place, probe.groups, file)
    rows = [_judged(in_use | {"logits": memory.in_use}, memory)]
    rows += [_tried(name, way, memory) for name, way in ways.items()]
    rows = [replace(row, note=_of_onnx(row, folder)) if row.consumer.startswith("onnx") else row for row in rows]
    answers = [answer for python in interpreters for answer in by_interpreter(python, folder, probe)]
    return [*rows, *(_judged(answer, memory) for answer in answers)]


def _by_reranker(folder: Path, memory: InMemory) -> dict[str, Any]:
    reranker = Reranker(str(folder), device="cpu")
    if isinstance(reranker.scorer, PairScorer):
        reranker.scorer.alone = True  # the other processes of a training have ended
    logits = reranker.score(memory.probe.pairs).logits
    return {"consumer": "crossrank", "logits": logits, "scores": reranker.activated(logits)}


def _tried(name: str, way: Callable[[], dict[str, Any]], memory: InMemory) -> Agreement:
    try:
        # once imported, sentence-transformers has transformers print that W&B is offline
        with quiet_transformers(), redirect_stdout(io.StringIO()):
            return _judged(way(), memory)
    except Exception as error:  # whatever a library raises of files that it does not take
        said = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return Agreement(name, "", len(memory.padded), None, note=said)


def _judged(answer: dict[str, Any], memory: InMemory) -> Agreement:
    """Compare an answer's logits, and where it has them its tokens, its scores and where it cuts."""
    found, max_length = np.asarray(answer["logits"], np.float32), memory.encoder.max_length
    row = Agreement(answer["consumer"], answer["version"], len(memory.padded), largest_gap(found, memory.padded))
    if INT8 in row.consumer:
        tau = kendalltau(found, memory.padded).statistic
        return replace(row, tolerance=None, note=f"told, not gated; Kendall's tau of the order is {tau:.3f}")
    for place, (ids, expected) in enumerate(zip(answer.get("ids", ()), memory.ids, strict="ids" in answer)):
        if list(ids) != expected:
            said = f"it makes other tokens of pair {place}, {len(ids)} for the {len(expected)} in training"
            return replace(row, largest_gap=None, note=said)
    if "scores" in answer and (largest_gap(np.asarray(answer["scores"]), _logistic(found)) or 0.0) > TOLERANCE:
        return replace(row, largest_gap=None, note="what it makes of a logit is not the logistic function")
    cuts_at = answer.get("cuts_at", max_length)
    said = "" if cuts_at == max_length else f"given max_length={max_length}; by itself it cuts at {cuts_at} tokens"
    return replace(row, note=said)


def largest_gap(found: npt.NDArray[Any], expected: npt.NDArray[Any]) -> float | None:
    """Return the largest difference, as a share of the largest number expected where that is beyond 1."""
    if found.shape != expected.shape or not np.isfinite(found).all():
        return None
    return float(np.abs(found - expected).max() / max(1.0, np.abs(expected).max()))


def _logistic(logits: Logits) -> npt.NDArray[np.float64]:
    scores: npt.NDArray[np.float64] = 1 / (1 + np.exp(-logits.astype(np.float64)))
    return scores


def _of_onnx(row: Agreement, folder: Path) -> str:
    return "; ".join(filter(None, [in_words(folder / row.consumer.partition(", ")[2]), row.note]))
