"""Whether a training's memory grows with its data: python -m bench.memory.

Made-up triplets in sharded parquet are read, tokenised and trained on as `source=lists miner=none` does it, with the
tiny model, one process a size. Anonymous memory is the process's own. File-backed memory is what it has mapped of files
and touched, which the system takes back when it is short.
"""

import argparse
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from hydra import compose, initialize_config_dir

from bench.inputs import scratch
from crossrank.config import build_training_run
from crossrank.process import prepare_process
from crossrank.quiet import quieten
from crossrank.run import execute

CONF = Path(__file__).resolve().parents[1] / "conf"
SIZES = (100_000, 3_000_000)
TRIPLETS_PER_SHARD = 50_000
WORDS = np.array([a + b + c for a in "bdfgklmnprst" for b in ("a", "e", "i", "o", "ou") for c in "bdklmnrst"])


@dataclass(frozen=True)
class Resident:
    """Bytes in memory."""

    anonymous: int
    file_backed: int

    @classmethod
    def now(cls) -> "Resident":
        lines = Path("/proc/self/smaps_rollup").read_text(encoding="utf-8").splitlines()[1:]
        kib = {name: int(value.split()[0]) for name, value in (line.split(":") for line in lines)}
        return cls(1024 * kib["Anonymous"], 1024 * (kib["Rss"] - kib["Anonymous"]))

    def __str__(self) -> str:
        return f"{self.anonymous / 2**20:7.0f} MiB anonymous {self.file_backed / 2**20:7.0f} MiB file-backed"


class Peak:
    """Samples memory in a thread, as long as it is open."""

    def __init__(self, seconds: float = 0.1) -> None:
        self.anonymous = self.total = 0
        self.looks: list[int] = []  # anonymous bytes at each
        self._seconds = seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def _sample(self) -> None:
        while not self._over.wait(self._seconds):
            held = Resident.now()
            self.looks.append(held.anonymous)
            self.anonymous = max(self.anonymous, held.anonymous)
            self.total = max(self.total, held.anonymous + held.file_backed)

    def close(self) -> None:
        self._over.set()
        self._thread.join()


class Watch(pl.Callback):
    """Looks at memory when training starts and after its last step."""

    def __init__(self, peak: Peak) -> None:
        self.peak, self.started = peak, time.perf_counter()
        self.points: dict[str, Resident] = {}
        self.seconds = 0.0

    def on_train_start(self, *_: object) -> None:
        self.peak.close()
        self.seconds = time.perf_counter() - self.started
        self.points["at the start"] = Resident.now()

    def on_train_end(self, trainer: pl.Trainer, *_: object) -> None:
        self.points[f"after {trainer.global_step:,} batches"] = Resident.now()


def texts(random: np.random.Generator, count: int, words: int) -> Iterator[str]:
    lengths = random.poisson(words, count) + 1
    drawn = WORDS[random.integers(0, len(WORDS), int(lengths.sum()))]
    return (" ".join(part) for part in np.split(drawn, np.cumsum(lengths)[:-1]))


def write_shards(triplets: int, folder: Path) -> int:
    """Write triplets of a question of some 8 words and two documents of some 30, and return their bytes as text."""
    folder.mkdir()
    size = 0
    for shard, start in enumerate(range(0, triplets, TRIPLETS_PER_SHARD)):
        random, count = np.random.default_rng(shard), min(TRIPLETS_PER_SHARD, triplets - start)
        columns = {"question": 8, "positive": 30, "negative": 30}
        table = pa.table({name: pa.array(list(texts(random, count, words))) for name, words in columns.items()})
        size += table.nbytes
        pq.write_table(table, folder / f"train-{shard:05d}.parquet")
    return size


def measure(pairs: int, batches: int, folder: Path) -> None:
    size = write_shards(pairs // 2, folder / "shards")
    overrides = (
        "~source.packages", "source=lists", f"source.path={folder / 'shards'}", "source.limit=null",
        "source.dev_size=100", "miner=none", "~evaluators.held_out", "~callbacks.evaluation",
        "callbacks.checkpoint.every_n_steps=1000",
        f"data.max_steps={batches}", f"run_dir={folder / 'run'}", f"cache_dir={folder / 'cache'}", "monitor=none",
    )  # fmt: skip
    with initialize_config_dir(str(CONF), version_base="1.3"):
        run = build_training_run(compose("train", ["experiment=smoke", *overrides]))
    before, watch = Resident.now(), Watch(Peak())
    execute(replace(run, callbacks={**run.callbacks, "watch": watch}))
    gib = size / 2**30
    print(f"{pairs:,} pairs, {gib:.2f} GiB of text, prepared in {watch.seconds:.0f} s")
    print(f"  {'before':20} {before}")
    mib = [n / 2**20 for n in (watch.peak.anonymous, watch.peak.total)]
    print(f"  {'peak of preparation':20} {mib[0]:7.0f} MiB anonymous {mib[1]:7.0f} MiB in all")
    for name, held in watch.points.items():
        print(f"  {name:20} {held}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, help="measure this one size, in this process")
    parser.add_argument("--batches", type=int, default=2000)
    options = parser.parse_args()
    if options.pairs is None:
        for pairs in SIZES:
            command = [sys.executable, "-m", "bench.memory", f"--pairs={pairs}", f"--batches={options.batches}"]
            subprocess.run(command, check=True)
        return
    warnings.filterwarnings("ignore")
    quieten()
    prepare_process()
    torch.set_num_threads(1)
    with scratch() as name:
        measure(options.pairs, options.batches, Path(name))


if __name__ == "__main__":
    main()
