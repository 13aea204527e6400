"""Whether a step's time grows with the data or with the run: python -m bench.scale.

A tiny model, so that what is not the model shows; token rows made up on disk, memory-mapped as those of a run.
"""

import argparse
import statistics
import time
import warnings
from functools import partial
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import torch

from bench.inputs import MINILM, Pairs, scratch
from bench.measure import peak_memory
from crossrank.callbacks.step_rng import StepKeyedRNG
from crossrank.callbacks.throughput import Throughput
from crossrank.data.datamodule import Batching, PairDataModule
from crossrank.data.lineage import Lineage, Step
from crossrank.data.miners.bm25 import BM25Miner
from crossrank.data.policy import Policy
from crossrank.data.tokens import TokenStore, write_tokens
from crossrank.data.training_rows import TrainingRows
from crossrank.losses.bce import WeightedBCE
from crossrank.models.backbones import RandomInit
from crossrank.training.module import RerankerModule
from crossrank.training.optim import LinearWarmup
from crossrank.training.tracking import JsonlLogger
from crossrank.training.trainer import TrainerSpec

SIZES = (1_000, 100_000, 3_000_000)


class _TimedThroughput(Throughput):
    """Knows its own cost."""

    spent = 0.0

    def on_train_batch_start(self, *args: object) -> None:
        started = time.perf_counter()
        super().on_train_batch_start(*args)
        self.spent += time.perf_counter() - started

    def on_train_batch_end(self, *args: object) -> None:
        started = time.perf_counter()
        super().on_train_batch_end(*args)
        self.spent += time.perf_counter() - started


class _Times(pl.Callback):
    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, *args: object) -> None:
        self.ends.append(time.perf_counter())


def made_up_rows(count: int, backbone: RandomInit, folder: Path) -> TrainingRows:
    """Write `count` rows over 10,000 texts."""
    folder.mkdir()
    random, pairs = np.random.default_rng(0), Pairs(10_000).read()
    stores = {}
    for kind, texts in (("questions", pairs.questions), ("documents", pairs.answers)):
        (folder / f"tokens-{kind}").mkdir()
        write_tokens(backbone.encoder(), [text[:300] for text in texts], folder / f"tokens-{kind}")
        stores[kind] = TokenStore.open(folder / f"tokens-{kind}")
        np.save(folder / f"{kind}.npy", random.integers(0, 10_000, count, dtype=np.int32))
    np.save(folder / "labels.npy", (random.random(count) < 1 / 6).astype(np.uint8))
    mapped = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("questions", "documents", "labels"))
    made = Lineage({"rows": Step(str(count), {}), "tokens": Step("made up", {})})
    return TrainingRows(folder, *mapped, stores["questions"], stores["documents"], made)


def step_times(rows: TrainingRows, backbone: RandomInit, steps: int, folder: Path) -> tuple[np.ndarray, float]:
    """Return the seconds of each step through the Trainer, and those a step that the callback took of them."""
    data = PairDataModule(
        Pairs(1), BM25Miner(), Policy(), backbone.encoder(), Batching(16, max_steps=steps), folder, seed=12
    )
    data._rows = rows
    optimizer = partial(torch.optim.AdamW, lr=1e-5, fused=True)
    module = RerankerModule(backbone.build(0), WeightedBCE(5.0), optimizer, LinearWarmup())
    times, throughput = _Times(), _TimedThroughput(1000)
    spec = TrainerSpec("cpu", precision="32-true")
    callbacks = [StepKeyedRNG(12), throughput, times]
    spec.build(steps, callbacks, [JsonlLogger(folder)], folder).fit(module, datamodule=data)
    return np.diff(times.ends), throughput.spent / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10_000, help="of the long run; the others make a tenth")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    backbone = RandomInit(MINILM, "bert", hidden_size=32, layers=1, max_length=64)
    with scratch() as name:
        for count in SIZES:
            folder = Path(name) / str(count)
            rows = made_up_rows(count, backbone, folder)
            times = step_times(rows, backbone, options.steps // 10, folder)[0][50:]
            print(
                f"{count:>9,} pairs: {1000 * statistics.median(times):.2f} ms a step (median of {len(times)}), "
                f"peak memory so far {peak_memory() / 2**30:.2f} GiB"
            )
        tenth = options.steps // 10
        times, callback = step_times(rows, backbone, options.steps, folder)
        parts = [1000 * statistics.median(times[i : i + tenth]) for i in range(0, options.steps - 1, tenth)]
        print(f"{options.steps:,} steps of 3,000,000 pairs, ms a step by tenth:", *(f"{part:.2f}" for part in parts))
        print(
            f"peak memory {peak_memory() / 2**30:.2f} GiB; the callback Throughput takes {1e6 * callback:.0f} us a "
            f"step, {callback / statistics.median(times):.2%} of it"
        )


if __name__ == "__main__":
    main()
