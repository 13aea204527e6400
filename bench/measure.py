"""Turns, clocks and the figures made of them."""

import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import greenlet
import numpy as np
import torch


@dataclass
class Clock:
    """Wall and processor seconds of each round of one side."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    _started: tuple[float, float] = (0.0, 0.0)

    def start(self) -> None:
        _finish_device()
        self._started = (time.perf_counter(), time.process_time())

    def stop(self) -> None:
        _finish_device()
        wall, cpu = self._started
        self.wall.append(time.perf_counter() - wall)
        self.cpu.append(time.process_time() - cpu)


def _finish_device() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


class Turns:
    """Lets training loops step one at a time: every round each makes `block` steps, the next round in reverse order.

    The loops share one thread, as greenlets: two threads would have two pools of worker threads between them, more
    than there are cores, and every parallel region would wait for one to wake up.
    """

    def __init__(self, loops: dict[str, Callable[["Turns"], Any]], rounds: int, block: int = 1) -> None:
        self.loops, self.rounds, self.block = loops, rounds, block
        self.steps = dict.fromkeys(loops, 0)
        self.clocks = {side: Clock() for side in loops}
        self._hub = greenlet.getcurrent()

    def run(self) -> dict[str, Any]:
        """Run all loops to their ends and return what they return; a loop is set up in its first turn, untimed."""
        running = {side: greenlet.greenlet(partial(loop, self)) for side, loop in self.loops.items()}
        for number in range(self.rounds):
            for side in running if number % 2 == 0 else reversed(running):
                running[side].switch()
        return {side: loop.switch() for side, loop in running.items()}

    def begin(self, side: str) -> None:
        """Start the clock of a side's first step."""
        self.clocks[side].start()

    def end(self, side: str) -> None:
        """After the last step of a turn stop the clock, let the others step, and go on at the next turn."""
        self.steps[side] += 1
        if self.steps[side] % self.block:
            return
        self.clocks[side].stop()
        self._hub.switch()
        self.clocks[side].start()


def matmul_flops(dtype: torch.dtype, width: int, wide: int, device: str = "cpu", tokens: int = 2048) -> float:
    """Operations a second of this machine's matrix product at the model's own shape: best of 20, both directions."""
    down, up, weight = (
        torch.randn(*shape, device=device).to(dtype) for shape in ((tokens, wide), (tokens, width), (wide, width))
    )
    best = 0.0
    for _ in range(20):
        clock = Clock()
        clock.start()
        torch.nn.functional.linear(up, weight)
        down @ weight
        clock.stop()
        best = max(best, 4.0 * tokens * width * wide / clock.wall[0])
    return best


@dataclass(frozen=True)
class Comparison:
    """Ours beside the peer's over rounds of equal work."""

    peer_median: float  # seconds a round
    ours_median: float
    peer_p10: float
    ours_p10: float
    ratio: float  # of the medians
    paired_ratio: float  # median of the rounds' ratios
    cpu_ratio: float
    rounds: int


def compare(peer: Clock, ours: Clock, warm_up: int, block: int = 1) -> Comparison:
    """Compare all rounds but the first `warm_up`, in seconds of one of the `block` steps in each."""
    theirs, mine = ([seconds / block for seconds in clock.wall[warm_up:]] for clock in (peer, ours))
    return Comparison(
        statistics.median(theirs), statistics.median(mine),
        float(np.percentile(theirs, 10)), float(np.percentile(mine, 10)),
        statistics.median(theirs) / statistics.median(mine),
        statistics.median(a / b for a, b in zip(theirs, mine, strict=True)),
        sum(peer.cpu[warm_up:]) / sum(ours.cpu[warm_up:]),
        len(mine),
    )  # fmt: skip


def peak_memory() -> int:
    """Bytes of resident memory that this process has held at most."""
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes if sys.platform == "darwin" else kilobytes * 1024


def machine() -> dict[str, str | int | float]:
    """What the figures depend on."""
    packages = ("torch", "transformers", "sentence-transformers", "lightning")
    return {
        "cpu": torch.cuda.get_device_name() if torch.cuda.is_initialized() else _cpu_name(),
        "cores": os.cpu_count() or 0, "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2), "amx": torch.cpu._is_amx_tile_supported(),
        "python": platform.python_version(), **{package: version(package) for package in packages},
    }  # fmt: skip


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
