"""GooAQ: three million Google questions with the answer that Google showed."""

from collections.abc import Sequence
from dataclasses import dataclass

import datasets
import pyarrow as pa

from crossrank.data.fingerprint import file_fingerprint, fingerprint
from crossrank.data.pairs import Ingredients, QAPairs, Splits, split_dev
from crossrank.data.texts import Texts
from crossrank.errors import DataError
from crossrank.hub import Asset, local_folder, resolve


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

    def ingredients(self) -> Ingredients:
        """Return the revision, or the hash of a local folder, and which rows are taken and held out.

        Raises:
            AssetError: a local folder is not there.
        """
        folder = local_folder(self._asset())  # none where the path is a hub id
        files = sorted(folder.rglob("*")) if folder else []
        content = [file_fingerprint(file) for file in files if file.is_file()]
        named = {"content": fingerprint(*content)} if content else {"path": self.path}
        return Ingredients(
            {"kind": "gooaq", **named, "revision": self.revision, "limit": self.limit},
            {"dev_size": self.dev_size, "seed": self.seed},
        )

    def fingerprint(self) -> str:
        """Return an id of the revision, or of a local folder's content, and of the rows taken and the split."""
        return self.ingredients().fingerprint

    def load(self) -> Splits:
        """Load the rows from the hub's cache, fetching them first where needed.

        Raises:
            AssetError: the data set cannot be fetched.
            DataError: it does not hold a question and an answer in every row.
        """
        folder = resolve(self._asset())
        try:
            data = datasets.load_dataset(str(folder), split=f"train[:{self.limit}]")
        except (datasets.exceptions.DatasetsError, FileNotFoundError, ValueError) as error:
            raise DataError(f"{self.path}: no readable data set ({error.__cause__ or error})") from error
        missing = {"question", "answer"} - set(data.column_names)
        if missing:
            raise DataError(f"{self.path}: no column {sorted(missing)}; the columns are: {data.column_names}")
        if len(data) < self.limit:
            raise DataError(f"{self.path}: {len(data)} rows, fewer than source.limit = {self.limit}")
        table = data.with_format("arrow")[:]  # memory-mapped from the library's own cache
        return split_dev(
            QAPairs(self._texts(table, "question"), self._texts(table, "answer")), self.dev_size, self.seed
        )

    def _texts(self, table: pa.Table, column: str) -> Texts:
        values = table[column]
        is_text = pa.types.is_string(values.type) or pa.types.is_large_string(values.type)
        bad = values.is_null().index(True).as_py() if is_text else 0
        if bad >= 0:
            raise DataError(f"{self.path}, row {bad + 1}: {column!r} is not a text but {values[bad].as_py()!r}")
        return Texts(values.chunks)

    def _asset(self) -> Asset:
        return Asset("dataset", self.path, self.revision)
