"""No mining: for a source that gives negatives, labels or scores of its own."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from crossrank.data.fingerprint import fingerprint
from crossrank.data.mining import Candidates
from crossrank.errors import DataError
from crossrank.hub import Asset


@dataclass(frozen=True)
class NoMiner:
    """Finds nothing, so that a training sees the source's own documents alone, whatever the policy."""

    def assets(self) -> Sequence[Asset]:
        """Return nothing."""
        return ()

    def fingerprint(self) -> str:
        """Return the id of no miner."""
        return fingerprint("none")

    def search(
        self,
        questions: Sequence[str],
        documents: Sequence[str],
        k: int,
        positives: Sequence[npt.NDArray[np.int32]],
        start: int = 0,
        cache_dir: Path | None = None,
    ) -> Iterator[Candidates]:
        """Refuse to.

        Raises:
            DataError: always.
        """
        raise DataError("miner=none finds no candidates; choose a miner that does, such as miner=bm25")
