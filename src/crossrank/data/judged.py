"""The documents that a source itself labels, question by question."""

import logging
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Judged:
    """Question i's documents are `documents[offsets[i]:offsets[i + 1]]`, best first; `scored` as in `QAPairs`."""

    offsets: npt.NDArray[np.int64]  # [questions + 1]
    documents: npt.NDArray[np.int32]
    labels: npt.NDArray[np.float32]
    scored: bool

    @classmethod
    def of(cls, keys: npt.NDArray[np.int64], labels: npt.NDArray[np.float32], scored: bool, questions: int) -> "Judged":
        """Sort labelled pairs by question, falling label and first appearance.

        A pair's key is question << 32 | document. Of a pair that is labelled more than once the highest label counts.
        """
        order = np.lexsort((-labels, keys))
        starts = np.flatnonzero(np.diff(keys[order], prepend=-1))
        appeared = np.minimum.reduceat(order, starts) if len(starts) else starts
        keys, best = keys[order[starts]], labels[order[starts]]
        worst = labels[order[np.append(starts, len(order))[1:] - 1]]
        if unlike := int((best != worst).sum()):
            log.warning("%d pairs have several labels, of which the highest counts", unlike)
        questions_of = (keys >> 32).astype(np.int32)
        sorted_ = np.lexsort((appeared, -best, questions_of))
        return cls(offsets_of(questions_of, questions), keys[sorted_].astype(np.int32), best[sorted_], scored)


def offsets_of(questions: npt.NDArray[np.int32], count: int) -> npt.NDArray[np.int64]:
    """Return where each of `count` questions begins among sorted rows, int64[count + 1]."""
    return np.concatenate([[0], np.cumsum(np.bincount(questions, minlength=count))]).astype(np.int64)
