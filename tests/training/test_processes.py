"""Two processes that share a step train as one does: trainer=ddp over gloo, at the same pairs a step."""

import json
import os
import signal
import socket
import time

import killed_run
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from crossrank.callbacks.checkpoints import AGREE_EVERY
from crossrank.training.checkpoints import newest_whole_state, saved_states

OPTIONS = [
    "data.max_steps=9", "callbacks.evaluation.every_n_steps=4", "callbacks.checkpoint.every_n_steps=3",
    "callbacks.throughput.every_n_steps=1", "optimizer.lr=3e-3",
]  # fmt: skip
DDP = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.precision=32-true", "trainer.threads=1"]


def start(folder, cache, *overrides, processes=1, resumed=False, kill=None):
    """As torchrun or SLURM start them: each process knows its rank, how many they are and where to meet."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = [*OPTIONS, f"cache_dir={cache}", *(DDP if processes > 1 else ["trainer.threads=1"]), *overrides]
    started = []
    for rank in range(processes):
        place = {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "WORLD_SIZE": str(processes),
                 "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)} if processes > 1 else {}  # fmt: skip
        started.append(killed_run.start(given, str(folder), resumed, kill, 0.0, place, pages=False))
    return started


def train(*args, **options):
    started = start(*args, **options)
    for process in started:
        process.join(120)
    return [process.exitcode for process in started]


@pytest.fixture(scope="module")
def one(tmp_path_factory, cache_dir):
    folder = tmp_path_factory.mktemp("one")
    assert train(folder, cache_dir) == [0]
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory, cache_dir, one):
    folder = tmp_path_factory.mktemp("two")
    assert train(folder, cache_dir, processes=2) == [0, 0]
    return folder


def logged(folder, key):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line[key] for line in lines if key in line}


def weights(folder):
    return load_file(folder / "export" / "model.safetensors")


def close(one, other, tolerance):
    return max((one[name] - other[name]).abs().max().item() for name in one) < tolerance


def test_the_losses_are_those_of_one_process(one, two):
    """Gradients are summed in another order: a few units in the last place of float32."""
    losses = logged(one, "train/loss")
    assert sorted(losses) == list(range(1, 10))
    assert logged(two, "train/loss") == pytest.approx(losses, rel=1e-5)
    assert close(weights(one), weights(two), 1e-5)


def test_the_work_is_counted_for_all_processes(one, two):
    first, second = (
        torch.load(newest_whole_state(folder / "checkpoints").file, weights_only=True)["callbacks"]["Throughput"][
            "sums"
        ]
        for folder in (one, two)
    )
    assert second[1:] == first[1:]  # pairs and tokens since the last point: none, at a point


def test_evaluations_are_equal_and_written_once(one, two):
    files = sorted(file.relative_to(one) for file in (one / "evaluations").rglob("*.parquet"))
    assert files == sorted(file.relative_to(two) for file in (two / "evaluations").rglob("*.parquet"))
    for file in files:
        pd.testing.assert_frame_equal(pd.read_parquet(one / file), pd.read_parquet(two / file), rtol=1e-4, atol=1e-5)
    steps = [json.loads(line)["step"] for line in (two / "metrics.jsonl").read_text().splitlines()]
    expected = [json.loads(line)["step"] for line in (one / "metrics.jsonl").read_text().splitlines()]
    assert steps == expected  # one writer


def test_two_killed_processes_go_on_bit_for_bit(two, tmp_path, cache_dir):
    assert train(tmp_path, cache_dir, processes=2, kill=("micro-batch", 5)) == [-signal.SIGKILL] * 2
    assert train(tmp_path, cache_dir, processes=2, resumed=True) == [0, 0]
    assert all(torch.equal(value, weights(two)[name]) for name, value in weights(tmp_path).items())
    assert logged(tmp_path, "train/loss") == logged(two, "train/loss")


@pytest.mark.parametrize("told", [pytest.param(0, marks=pytest.mark.thorough), 1])
def test_whichever_process_is_told_to_stop_both_do_at_the_same_step(told, tmp_path, cache_dir):
    """The state is whole, so that it must hold what both did; the first process has the exit code."""
    started = start(tmp_path, cache_dir, "data.max_steps=2000", "callbacks.evaluation.every_n_steps=2000",
                    "callbacks.checkpoint.every_n_steps=2000", processes=2)  # fmt: skip
    record = tmp_path / "metrics.jsonl"
    while not (record.is_file() and record.read_text().count("\n") > 3) and all(p.is_alive() for p in started):
        time.sleep(0.02)
    os.kill(started[told].pid, signal.SIGTERM)
    for process in started:
        process.join(120)
    assert [process.exitcode for process in started] == [128 + signal.SIGTERM, 0]
    (state,) = saved_states(tmp_path / "checkpoints")
    assert newest_whole_state(tmp_path / "checkpoints") == state
    assert 0 < state.step < 2000
    assert state.step % AGREE_EVERY == 0
    assert max(logged(tmp_path, "train/loss")) == state.step


@pytest.mark.parametrize(("before", "after"), [(2, 1), pytest.param(1, 2, marks=pytest.mark.thorough)])
def test_a_run_goes_on_with_another_number_of_processes(before, after, one, tmp_path, cache_dir):
    """At the same pairs a step; one process takes them as two micro-batches, or at once."""
    split = {1: ["trainer.accumulate_grad_batches=2"], 2: []}
    killed = train(tmp_path, cache_dir, *split[before], processes=before, kill=("micro-batch", 5 if before == 2 else 9))
    assert killed == [-signal.SIGKILL] * before
    assert newest_whole_state(tmp_path / "checkpoints").step == 3
    assert train(tmp_path, cache_dir, *split[after], processes=after, resumed=True) == [0] * after
    assert logged(tmp_path, "train/loss") == pytest.approx(logged(one, "train/loss"), rel=1e-5)
    assert close(weights(one), weights(tmp_path), 1e-5)
