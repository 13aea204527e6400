"""GooAQ: three million Google questions with the answer that Google showed."""

from collections.abc import Sequence
from dataclasses import dataclass

import datasets

from crossrank.data.fingerprint import fingerprint
from crossrank.data.pairs import QAPairs, Splits, split_dev
from crossrank.errors import DataError
from crossrank.hub import Asset, resolve


@dataclass(frozen=True)
class GooAQ:
    """The first `limit` rows of the hub data set, `dev_size` of them held out by `seed`.

    Source: the recipe of sentence-transformers' training_gooaq_bce.py: 100,000 rows, 1,000 dev, seed 12.
    """

    path: str = "sentence-transformers/gooaq"
    revision: str | None = None
    limit: int = 100_000
    dev_size: int = 1000
    seed: int = 12

    def __post_init__(self) -> None:
        if not 0 < self.dev_size < self.limit:
            raise ValueError(f"dev_size must be between 1 and limit - 1 = {self.limit - 1}, got {self.dev_size}")

    def assets(self) -> Sequence[Asset]:
        """Return the hub data set at its pinned revision."""
        return (self._asset(),)

    def fingerprint(self) -> str:
        """Return an id of the revision, the rows taken and the split."""
        return fingerprint("gooaq", self.path, self.revision, self.limit, self.dev_size, self.seed)

    def load(self) -> Splits:
        """Load the rows from the hub's cache, fetching them first where needed.

        Raises:
            AssetError: the data set cannot be fetched.
            DataError: it does not hold a question and an answer in every row.
        """
        data = datasets.load_dataset(str(resolve(self._asset())), split=f"train[:{self.limit}]")
        missing = {"question", "answer"} - set(data.column_names)
        if missing:
            raise DataError(f"{self.path}: no column {sorted(missing)}; the columns are: {data.column_names}")
        if len(data) < self.limit:
            raise DataError(f"{self.path}: {len(data)} rows, fewer than source.limit = {self.limit}")
        return split_dev(QAPairs(data["question"][:], data["answer"][:]), self.dev_size, self.seed)

    def _asset(self) -> Asset:
        return Asset("dataset", self.path, self.revision)
