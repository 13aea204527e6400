"""Whether a run that was done again is the same one: what it logged, what it exported."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from crossrank.analysis.runs import RunFolder

OF_THE_CLOCK = (  # what no run repeats
    "train/pairs_per_second", "train/tokens_per_second", "train/tflops", "train/data_wait_share",
    "train/evaluation_share", "eval/seconds",
)  # fmt: skip
WEIGHTS = "export/model.safetensors"


class Again(NamedTuple):
    """What of two runs was compared, and each difference in words, the earliest step first."""

    values: int
    differences: list[str]

    def words(self, first: Path) -> str:
        """Return the finding as one sentence."""
        if not self.differences:
            return f"the same as {first}: {self.values:,} logged values and the exported weights, bit for bit"
        return f"not the same as {first}: {len(self.differences)} differences, the first: {self.differences[0]}"


def compared(first: Path, again: Path) -> Again:
    """Compare all that two runs logged, but for what depends on the clock, and the weights that they exported.

    Raises:
        DataError: one of them is no run's folder.
    """
    was, now = _values(RunFolder(first)), _values(RunFolder(again))
    differences = [
        _difference(key, was, now) for key in sorted({**was, **now}) if not _same(was.get(key), now.get(key))
    ]
    differences += _weights(first, again)
    return Again(len({**was, **now}), differences)


def _values(run: RunFolder) -> dict[tuple[int, str], float | None]:
    """Return what was logged by step and key."""
    rows = run.metrics[~run.metrics["key"].isin(OF_THE_CLOCK)]
    return {(int(row.step), str(row.key)): row.value for row in rows.itertuples()}


def _same(a: float | None, b: float | None) -> bool:
    return a == b or (a is not None and b is not None and math.isnan(a) and math.isnan(b))


def _difference(key: tuple[int, str], *values: Mapping[tuple[int, str], float | None]) -> str:
    was, now = (found.get(key, "not logged") for found in values)
    return f"step {key[0]}, {key[1]} was {was} and is {now}"


def _weights(first: Path, again: Path) -> Iterator[str]:
    files = [folder / WEIGHTS for folder in (first, again)]
    if not all(file.is_file() for file in files):
        missing = " and ".join(str(file) for file in files if not file.is_file())
        yield f"the exported weights cannot be compared, {missing} is not there"
    elif files[0].read_bytes() != files[1].read_bytes():
        yield f"the weights in {WEIGHTS} differ"
