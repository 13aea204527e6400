"""A source's texts, read once and kept as parquet under the source's fingerprint."""

import logging
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from crossrank.data.cache import cached
from crossrank.data.pairs import QAPairs, Source, Splits

log = logging.getLogger(__name__)


def load_splits(source: Source, cache_dir: Path) -> Splits:
    """Return the source's pairs, from the cache where they have been read before.

    Raises:
        DataError: the source is missing or broken.
        CacheError: the cache cannot be written.
    """

    def build(folder: Path) -> None:
        log.info("reading the texts of %s; the next run finds them cached", type(source).__name__)
        splits = source.load()
        for name, pairs in (("train", splits.train), ("dev", splits.dev)):
            table = pa.table({"question": list(pairs.questions), "answer": list(pairs.answers)})
            pq.write_table(table, folder / f"{name}.parquet")

    folder = cached(cache_dir / "sources" / source.fingerprint(), build)
    return Splits(train=_read(folder / "train.parquet"), dev=_read(folder / "dev.parquet"))


def _read(file: Path) -> QAPairs:
    table = pq.read_table(file)
    return QAPairs(table["question"].to_pylist(), table["answer"].to_pylist())
