"""The pool that a run took its negatives from, found again by the run's lineage."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from crossrank.data.lineage_record import LineageRecord
from crossrank.data.mining import Pool
from crossrank.data.pair_file import open_pairs
from crossrank.data.pairs import PairIndex
from crossrank.data.policy import Policy
from crossrank.data.splits import training_texts
from crossrank.errors import DataError
from crossrank.resume import read_config


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
    for folders in map(made.folders, places):
        if folders["pool"].is_dir() and folders["texts"].is_dir():
            break
    else:
        wanted = made.folders(places[0])["pool"]
        raise DataError(f"{run_dir}: its pool or its texts are not cached any more at {wanted}; give their cache_dir")
    pool = dataclasses.replace(Pool.open(folders["pool"]), **_extras(folders))
    settings = {key: value for key, value in made.steps["policy"].description.items() if key != "kind"}
    return RunPool(pool, Policy(**settings), PairIndex.of(open_pairs(training_texts(folders["texts"]))))


def _places(run_dir: Path, named: Path) -> Iterator[Path]:
    """Yield where a cache may lie: as it is named, then below each folder in which the run lies."""
    yield named
    if not named.is_absolute():
        yield from (folder / named for folder in run_dir.resolve().parents)


def _extras(folders: dict[str, Path]) -> dict[str, npt.NDArray[Any]]:
    kinds = {"twins": "twins", "answers": "teacher"}
    files = {name: folders[kind] / f"{name}.npy" for kind, name in kinds.items() if kind in folders}
    return {name: np.load(file, mmap_mode="r") for name, file in files.items() if file.is_file()}
