"""A source's texts, read once and kept as Arrow files under the source's fingerprint."""

import logging
import shutil
import tempfile
from pathlib import Path

from crossrank.data.cache import cached
from crossrank.data.pair_file import open_pairs, write_pairs
from crossrank.data.pairs import Source, Splits, StreamingSource

ENDING = "-arrow"  # of a source's cache folder

log = logging.getLogger(__name__)


def load_splits(source: Source, cache_dir: Path) -> Splits:
    """Return the source's pairs, memory-mapped from the cache, into which they are read first where that is needed.

    Raises:
        DataError: the source is missing or broken.
        CacheError: the cache cannot be written.
    """

    def build(folder: Path) -> None:
        log.info("reading the texts of %s; the next run finds them cached", type(source).__name__)
        scratch = folder / "scratch"
        scratch.mkdir()
        splits = source.stream(scratch) if isinstance(source, StreamingSource) else source.load()
        for name, pairs in (("train", splits.train), ("dev", splits.dev)):
            write_pairs(folder / f"{name}.arrow", pairs)
        shutil.rmtree(scratch)

    folder = cached(cache_dir / "sources" / f"{source.fingerprint()}{ENDING}", build)
    return Splits(train=open_pairs(training_texts(folder)), dev=open_pairs(folder / "dev.arrow"))


def streamed(source: StreamingSource) -> Splits:
    """Return what a source streams into a folder that is gone at once; the maps of its files stay."""
    with tempfile.TemporaryDirectory() as scratch:
        return source.stream(Path(scratch))


def training_texts(folder: Path) -> Path:
    """Return the file of a source's cache folder that holds its training pairs, in columns question and answer."""
    return folder / "train.arrow"
