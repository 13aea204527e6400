"""The nearest documents by inner product, exactly: the same ids and scores whoever multiplies.

A fast product of float32 rounds in an order of its own, so two libraries disagree about scores that are nearly equal.
Here FAISS or torch only propose more documents than are wanted; their products are computed anew in float64, ordered,
and taken when nothing that was not proposed can belong among them. Otherwise more are proposed.
"""

import importlib.util
from collections.abc import Iterator
from typing import Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch

from crossrank.errors import DataError

Vectors = npt.NDArray[np.float32]  # [texts, dimensions]
Library = Literal["auto", "faiss", "torch"]

NO_CANDIDATE = -1
DOCUMENTS_PER_BLOCK = 32_768  # of torch's products: one block of them is [questions, 32768] float32
MAPPED_PER_BLOCK = 65_536  # vectors handed to FAISS at a time
VALUES_PER_BLOCK = 1 << 23  # of the products in float64: 64 MB
SPARE = 28  # documents proposed beyond those wanted
UNIT = {"highest": 2.0**-24, "high": 2.0**-11, "medium": 2.0**-8}  # a product's rounding under torch's setting


class Nearest(NamedTuple):
    """The best documents of some questions, by descending score; ties stand in the order of the ids."""

    ids: npt.NDArray[np.int32]  # [questions, k]; -1 where there are fewer than k documents
    scores: npt.NDArray[np.float32]  # [questions, k]; -inf beside -1


class _Proposals(Protocol):
    vectors: Vectors

    def propose(self, questions: Vectors, k: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Return the scores, descending, and ids of each question's k best by the library's own products."""
        ...


class ExactSearch:
    """Searches `vectors` [documents, dimensions]; FAISS holds a copy of them, torch reads them where they lie.

    `library` "auto" is FAISS where it is installed and `device` is the CPU.

    Raises:
        DataError: FAISS is asked for and is not there, or a vector is not finite.
    """

    def __init__(self, vectors: Vectors, library: Library = "auto", device: str = "cpu") -> None:
        self._proposals: _Proposals
        if library == "faiss" and not faiss_installed():
            raise DataError("the search is to be FAISS's, which is not installed: pip install faiss-cpu, or take torch")
        on_cpu = torch.device(device).type == "cpu"
        if library == "faiss" or (library == "auto" and on_cpu and faiss_installed()):
            self._proposals, self._unit = _Faiss(vectors), UNIT["highest"]
        else:
            self._proposals, self._unit = _Torch(vectors, device), UNIT[torch.get_float32_matmul_precision()]
        self._longest = _longest(self._proposals.vectors)

    def nearest(self, questions: Vectors, k: int) -> Nearest:
        """Return the k best documents of each question; `questions` is [questions, dimensions].

        Raises:
            DataError: a question's vector is not finite.
        """
        documents, width = self._proposals.vectors.shape
        wanted = min(k, documents)
        ids = np.full((len(questions), k), NO_CANDIDATE, np.int32)
        scores = np.full((len(questions), k), -np.inf, np.float32)
        lengths = np.linalg.norm(questions, axis=1)
        if not np.isfinite(lengths).all():
            raise DataError(f"the vector of question {int(np.argmin(np.isfinite(lengths)))} of a block is not finite")
        error = (width + 8) * self._unit * lengths * self._longest  # bound of a float32 inner product's rounding
        open_, proposed = np.arange(len(questions)), wanted + SPARE
        while len(open_):
            proposed = min(proposed, documents)
            rough, found = self._proposals.propose(questions[open_], proposed)
            exact = self._products(questions[open_], found)
            order = np.lexsort((found, -exact), axis=1)[:, :wanted]
            ids[open_, :wanted] = np.take_along_axis(found, order, 1)
            scores[open_, :wanted] = np.take_along_axis(exact, order, 1)
            if proposed == documents:
                break
            doubtful = scores[open_, wanted - 1] <= rough[:, -1] + error[open_]
            open_, proposed = open_[doubtful], proposed * 4
        return Nearest(ids, scores)

    def scores(self, question: Vectors, documents: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
        """Return one question's scores of the given documents, as `nearest` would give them."""
        products: Vectors = self._products(question[None], documents[None])[0]
        return products

    def _products(self, questions: Vectors, found: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
        """Return float32[questions, found]: inner products summed in float64."""
        products = np.empty(found.shape, np.float32)
        step = max(1, VALUES_PER_BLOCK // max(1, found.shape[1] * questions.shape[1]))
        for start in range(0, len(questions), step):
            rows = slice(start, start + step)
            chosen = self._proposals.vectors[found[rows]].astype(np.float64)
            products[rows] = np.einsum("qd,qkd->qk", questions[rows].astype(np.float64), chosen)
        return products


def faiss_installed() -> bool:
    """Whether FAISS can be imported."""
    return importlib.util.find_spec("faiss") is not None


class _Faiss:
    def __init__(self, vectors: Vectors) -> None:
        import faiss  # an extra

        self._index = faiss.IndexFlatIP(vectors.shape[1])
        for block in _blocks(vectors, MAPPED_PER_BLOCK):
            self._index.add(block)
        stored = faiss.rev_swig_ptr(self._index.get_xb(), vectors.size)
        self.vectors: Vectors = stored.reshape(vectors.shape)

    def propose(self, questions: Vectors, k: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        scores, ids = self._index.search(np.ascontiguousarray(questions), k)
        return scores, ids


class _Torch:
    def __init__(self, vectors: Vectors, device: str) -> None:
        self.vectors = vectors
        self._device = torch.device(device)

    def propose(self, questions: Vectors, k: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        asked = torch.from_numpy(np.ascontiguousarray(questions)).to(self._device)
        best = torch.empty(len(questions), 0, device=self._device)
        ids = torch.empty(len(questions), 0, dtype=torch.int64, device=self._device)
        for number, block in enumerate(_blocks(self.vectors, DOCUMENTS_PER_BLOCK)):
            products = asked @ torch.from_numpy(block).to(self._device).T
            top, places = products.topk(min(k, len(block)))
            best, ids = torch.cat([best, top], 1), torch.cat([ids, places + number * DOCUMENTS_PER_BLOCK], 1)
            best, kept = best.topk(min(k, best.shape[1]))
            ids = ids.gather(1, kept)
        return best.cpu().numpy(), ids.cpu().numpy()


def _blocks(vectors: Vectors, size: int) -> Iterator[Vectors]:
    for start in range(0, len(vectors), size):
        yield np.array(vectors[start : start + size], np.float32)  # a copy: torch refuses what is mapped read-only


def _longest(vectors: Vectors) -> float:
    """Return the greatest Euclidean length among the vectors.

    Raises:
        DataError: one of them is not finite.
    """
    longest = 0.0
    for number, block in enumerate(_blocks(vectors, MAPPED_PER_BLOCK)):
        lengths = np.linalg.norm(block, axis=1)
        if not np.isfinite(lengths).all():
            row = number * MAPPED_PER_BLOCK + int(np.argmin(np.isfinite(lengths)))
            raise DataError(f"the vector of document {row} is not finite; the embedder or the text is broken")
        longest = max(longest, float(lengths.max(initial=0.0)))
    return longest


def top_k(scores: npt.NDArray[np.float32], k: int) -> Nearest:
    """Return ids and scores of each row's k largest, descending, ties in the order of the ids, also at the cut.

    `scores` is [questions, documents]; where k exceeds the documents, the rest is filled with -1 and -inf.

    Raises:
        DataError: a score is not a number.
    """
    if np.isnan(scores.min(initial=np.inf)):  # the minimum of anything with a NaN in it is NaN; needs no memory
        raise DataError("NaN scores among those of the candidates: the model or the texts behind them are broken")
    documents = scores.shape[1]
    wanted = min(k, documents)
    if wanted == documents:
        ids = np.argsort(-scores, axis=1, kind="stable")
    else:
        kth = -np.partition(-scores, wanted - 1, axis=1)[:, wanted - 1]
        above, ties = scores > kth[:, None], scores == kth[:, None]
        room = wanted - above.sum(axis=1)
        chosen = above | (ties & (np.cumsum(ties, axis=1) <= room[:, None]))
        ids = np.nonzero(chosen)[1].reshape(len(scores), wanted)
        order = np.argsort(-np.take_along_axis(scores, ids, 1), axis=1, kind="stable")
        ids = np.take_along_axis(ids, order, 1)
    top = np.take_along_axis(scores, ids, 1)
    if wanted < k:
        ids = np.pad(ids, ((0, 0), (0, k - wanted)), constant_values=NO_CANDIDATE)
        top = np.pad(top, ((0, 0), (0, k - wanted)), constant_values=-np.inf)
    return Nearest(ids.astype(np.int32), top.astype(np.float32))
