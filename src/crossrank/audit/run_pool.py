"""The pool that a run took its negatives from, found again by the run's lineage."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from crossrank.data.lineage import Lineage
from crossrank.data.lineage_record import LineageRecord
from crossrank.data.mining import Pool
from crossrank.data.pair_file import open_pairs
from crossrank.data.pairs import PairIndex
from crossrank.data.policy import Policy
from crossrank.data.splits import training_texts
from crossrank.errors import DataError
from crossrank.resume import read_config

EXTRA = {"twins": "twins", "answers": "teacher"}  # kind of cache: the part of a pool that it holds
READ = ("pool", "texts", *EXTRA)


@dataclasses.dataclass(frozen=True)
class RunPool:
    """A run's pool, with twins and a teacher's answers where it had them; its policy, and the texts behind the ids."""

    pool: Pool
    policy: Policy
    index: PairIndex


def open_run_pool(run_dir: Path, cache_dir: Path | None = None) -> RunPool:
    """Return the pool of a run's folder; nothing is mined.

    The caches are looked for in `cache_dir`, by default where the run had them; where its config names them by a
    relative path, below the folders in which the run lies.

    Raises:
        DataError: the folder holds no record of a run, the run mined nothing, or its pool is not cached any more.
        ResumeError: the run's config.yaml cannot be read.
    """
    made = LineageRecord.read(run_dir).lineage
    if "pool" not in made.steps:
        raise DataError(f"{run_dir}: the run mined nothing (miner=none), so it has no pool")
    places = [cache_dir] if cache_dir else [*_places(run_dir, Path(read_config(run_dir).cache_dir))]
    found = [{kind: at for kind, at in made.folders(place).items() if kind in READ} for place in places]
    folders = next((folders for folders in found if all(folder.is_dir() for folder in folders.values())), None)
    if folders is None:
        gone = next(folder for folder in found[0].values() if not folder.is_dir())
        raise DataError(f"{run_dir}: what it took its negatives from is not cached any more, {gone}; give cache_dir")
    more = {
        name: np.load(folders[kind] / f"{name}.npy", mmap_mode="r") for kind, name in EXTRA.items() if kind in folders
    }
    pool = dataclasses.replace(Pool.open(folders["pool"]), **more)
    return RunPool(pool, _policy(run_dir, made), PairIndex.of(open_pairs(training_texts(folders["texts"]))))


def _places(run_dir: Path, named: Path) -> Iterator[Path]:
    """Yield where a cache may lie: as it is named, then below each folder in which the run lies."""
    yield named
    if not named.is_absolute():
        yield from (folder / named for folder in run_dir.resolve().parents)


def _policy(run_dir: Path, made: Lineage) -> Policy:
    settings = dict(made.steps["policy"].description)
    if (kind := settings.pop("kind")) != Policy.__name__:
        raise DataError(f"{run_dir}: its policy was a {kind}, and only what a Policy took can be told from a record")
    return Policy(**settings)
