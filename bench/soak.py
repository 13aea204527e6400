"""Whether a long run stays flat in memory, descriptors, disk and step time: python -m bench.soak.

The model, the data and the callbacks of experiment=smoke, with an evaluation every 500 steps and a state every 200. The
time that is judged is the processor's: what else runs on the machine changes a step's own duration too.
"""

import argparse
import os
import statistics
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import lightning.pytorch as pl
import torch
from hydra import compose, initialize_config_dir

from bench.inputs import scratch
from crossrank.config import build_training_run
from crossrank.process import keep_freed_memory
from crossrank.quiet import quieten
from crossrank.run import execute

CONF = Path(__file__).resolve().parents[1] / "conf"
PARTS = 20  # of a run; figures are given for each
MEMORY, STEP_TIME = 1.05, 1.15  # what the last tenth may be of the second


@dataclass(frozen=True)
class Part:
    """Medians over a part of a run; bytes, and seconds a step."""

    last_step: int
    memory: float
    descriptors: float
    checkpoints: float
    records: float  # evaluations and metrics.jsonl, which grow by design
    step_time: float
    step_cpu: float


class Watch(pl.Callback):
    """Notes the end of every step, and `samples` times a part what the process and the run's folder hold.

    Evaluations and checkpoints are no steps of the median: there are few of them.
    """

    def __init__(self, run_dir: Path, steps: int, samples: int = 10) -> None:
        self.run_dir, self.part = run_dir, steps // PARTS
        self.every = max(1, self.part // samples)
        self.times: dict[int, list[tuple[float, float]]] = defaultdict(list)
        self.held: dict[int, list[tuple[int, int, int, int]]] = defaultdict(list)
        self._before = 0.0, 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._before = time.perf_counter(), time.process_time()

    def on_train_batch_end(self, trainer: pl.Trainer, *args: object) -> None:
        step = trainer.global_step
        number = (step - 1) // self.part
        wall, cpu = self._before
        self.times[number].append((time.perf_counter() - wall, time.process_time() - cpu))
        if step % self.every == 0:
            checkpoints = _size(self.run_dir / "checkpoints")
            records = _size(self.run_dir) - checkpoints
            self.held[number].append((resident_memory(), descriptors(), checkpoints, records))
        self._before = time.perf_counter(), time.process_time()

    def parts(self) -> list[Part]:
        return [
            Part((number + 1) * self.part, *_medians(held), *_medians(times))
            for (number, held), times in zip(self.held.items(), self.times.values(), strict=True)
        ]


def _medians(samples: Sequence[tuple[float, ...]]) -> Iterator[float]:
    return map(statistics.median, zip(*samples, strict=True))


def resident_memory() -> int:
    """Return the bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors() -> int:
    """Return how many files, pipes and sockets this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def faults(parts: list[Part]) -> Iterator[str]:
    """Name what grew between the second tenth of a run and its last."""
    tenth = len(parts) // 10
    early, late = (_over(parts[tenth : 2 * tenth]), _over(parts[-tenth:]))
    for name, allowed in (("memory", MEMORY), ("descriptors", 1.0), ("checkpoints", 1.0), ("step_cpu", STEP_TIME)):
        was, now = early[name], late[name]
        if now > allowed * was:
            yield f"{name} grew from {was:g} to {now:g}, at most {allowed:g} times is allowed"


def _over(parts: list[Part]) -> dict[str, float]:
    return {name: statistics.median(vars(part)[name] for part in parts) for name in vars(parts[0])}


def as_table(parts: list[Part]) -> str:
    """Return one line a part."""
    lines = ["   steps  memory MiB  descriptors  checkpoints MiB  records MiB  ms a step  CPU ms a step"]
    for part in parts:
        memory, checkpoints, records = (n / 2**20 for n in (part.memory, part.checkpoints, part.records))
        lines.append(
            f"{part.last_step:>8,}  {memory:10.1f}  {part.descriptors:11.0f}  {checkpoints:15.2f}  {records:11.2f}"
            f"  {1000 * part.step_time:9.2f}  {1000 * part.step_cpu:13.2f}"
        )
    return "\n".join(lines)


def soak(steps: int, folder: Path, *overrides: str) -> list[Part]:
    """Train for `steps` steps in `folder` and return what was seen."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(
            "train",
            [
                "experiment=smoke", f"data.max_steps={steps}", "callbacks.evaluation.every_n_steps=500",
                "callbacks.checkpoint.every_n_steps=200", "callbacks.throughput.every_n_steps=1000",
                f"run_dir={folder / 'run'}", f"cache_dir={folder / 'cache'}", "optimizer.lr=1e-4", *overrides,
            ],
        )  # fmt: skip
    run = build_training_run(cfg)
    watch = Watch(run.run_dir, steps)
    execute(replace(run, callbacks={**run.callbacks, "watch": watch}))
    return watch.parts()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("overrides", nargs="*", help="of experiment=smoke, such as data.workers=2")
    options = parser.parse_args()
    if options.steps < PARTS:
        parser.error(f"--steps must be at least {PARTS}, got {options.steps}")
    warnings.filterwarnings("ignore")
    quieten()
    torch.set_num_threads(1)
    keep_freed_memory()
    started = time.perf_counter()
    with scratch() as name:
        parts = soak(options.steps, Path(name), *options.overrides)
    print(as_table(parts))
    print(f"{options.steps:,} steps in {time.perf_counter() - started:.0f} s")
    found = list(faults(parts))
    if found:
        raise SystemExit("\n".join(found))


if __name__ == "__main__":
    main()
