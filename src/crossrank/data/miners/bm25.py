"""BM25 over the documents' words; needs no model."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import bm25s
import numpy as np
import numpy.typing as npt
import Stemmer

from crossrank.data.fingerprint import fingerprint
from crossrank.data.mining import Candidates
from crossrank.data.search import top_k
from crossrank.errors import DataError
from crossrank.hub import Asset

logging.getLogger("bm25s").setLevel(logging.WARNING)  # it tells of every index that it builds

BLOCK = 256  # questions scored at a time: the scores of one block are [256, documents] float32


@dataclass(frozen=True)
class BM25Miner:
    """BM25 (Lucene's variant) with English stop words and the Snowball stemmer, through bm25s."""

    k1: float = 1.5
    b: float = 0.75

    def __post_init__(self) -> None:
        if self.k1 < 0 or not 0 <= self.b <= 1:
            raise ValueError(f"BM25 needs k1 >= 0 and 0 <= b <= 1, got k1={self.k1}, b={self.b}")

    def assets(self) -> Sequence[Asset]:
        """Return nothing: there is no model."""
        return ()

    def fingerprint(self) -> str:
        """Return an id of the settings and of the library that applies them."""
        return fingerprint("bm25", self.k1, self.b, version("bm25s"), version("PyStemmer"))

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

        The index is built anew by every call, in seconds per million words; nothing goes into `cache_dir`.

        Raises:
            DataError: there is nothing to index.
        """
        stemmer = Stemmer.Stemmer("english")
        words = bm25s.tokenize(list(documents), stopwords="en", stemmer=stemmer, show_progress=False)
        if not words.vocab:
            raise DataError(f"none of the {len(documents)} documents holds a word that BM25 could find it by")
        index = bm25s.BM25(k1=self.k1, b=self.b, method="lucene")
        index.index(words, show_progress=False)
        options = {"stopwords": "en", "stemmer": stemmer, "return_ids": False, "show_progress": False}
        for first in range(start, len(questions), BLOCK):
            asked = bm25s.tokenize(list(questions[first : first + BLOCK]), **options)
            scores = np.stack([_scores(index, words, len(documents)) for words in asked])
            ids, top = top_k(scores, k)
            own = [scores[row, positives[first + row]] for row in range(len(asked))]
            yield Candidates(ids, top, own)


def _scores(index: bm25s.BM25, words: list[str], documents: int) -> npt.NDArray[np.float32]:
    known = [word for word in words if word in index.vocab_dict]
    if not known:
        return np.zeros(documents, np.float32)
    return np.asarray(index.get_scores(known), np.float32)
