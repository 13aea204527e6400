"""A run that is killed at any moment and goes on ends as one that never stopped, bit for bit."""

import json
import signal

import killed_run
import pandas as pd
import pytest
import torch

from crossrank.training.checkpoints import newest_whole_state, saved_states

STEPS = 13
OPTIONS = [
    f"data.max_steps={STEPS}", "callbacks.evaluation.every_n_steps=5", "callbacks.checkpoint.every_n_steps=4",
    "callbacks.throughput.every_n_steps=3", "callbacks.health.every_n_steps=5", "optimizer.lr=3e-3",
]  # fmt: skip
CLOCKS = ("time", "pairs_per_second", "tokens_per_second", "tflops", "data_wait_share", "evaluation_share", "seconds")


def train(folder, cache, *overrides, resumed=False, kill=None):
    process = killed_run.start([*OPTIONS, f"cache_dir={cache}", *overrides], str(folder), resumed, kill)
    process.join(120)
    return process.exitcode


@pytest.fixture(scope="module")
def whole(tmp_path_factory, cache_dir):
    """Runs that were never stopped, by their overrides."""
    made = {}

    def run(*overrides):
        if overrides not in made:
            made[overrides] = tmp_path_factory.mktemp("whole")
            assert train(made[overrides], cache_dir, *overrides) == 0
        return made[overrides]

    return run


def record(folder):
    """Everything logged, without what depends on the clock."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if not key.endswith(CLOCKS)} for line in lines]


def tensors(value, path=""):
    if isinstance(value, torch.Tensor):
        yield path, value
    elif isinstance(value, dict | list | tuple):
        for key, child in value.items() if isinstance(value, dict) else enumerate(value):
            yield from tensors(child, f"{path}/{key}")


def same_states(one, other):
    """Weights, both moments of every weight, sums of the callbacks: all tensors of the last checkpoint."""
    first, second = (
        dict(tensors(torch.load(newest_whole_state(folder / "checkpoints").file, weights_only=True)))
        for folder in (one, other)
    )
    assert len(first) > 100
    assert first.keys() == second.keys()
    return all(torch.equal(value, second[path]) for path, value in first.items())


def same_evaluations(one, other):
    files = sorted(file.relative_to(one) for file in (one / "evaluations").rglob("*.parquet"))
    assert files == sorted(file.relative_to(other) for file in (other / "evaluations").rglob("*.parquet"))
    return all(pd.read_parquet(one / file).equals(pd.read_parquet(other / file)) for file in files)


KILLS = {
    "in the first step": ([], ("micro-batch", 1)),
    "before the first checkpoint": ([], ("micro-batch", 3)),
    "in a step": ([], ("micro-batch", 8)),
    "with two workers": (["data.workers=2"], ("micro-batch", 11)),
    "between micro-batches": (["trainer.accumulate_grad_batches=4"], ("micro-batch", 27)),
    "while a checkpoint is written": ([], ("checkpoint", 7)),
    "during an evaluation": ([], ("evaluation", 3)),
    "in the last step": ([], ("micro-batch", STEPS)),
}


@pytest.mark.parametrize("case", KILLS)
def test_a_killed_run_ends_as_one_that_never_stopped(case, whole, tmp_path, cache_dir):
    overrides, kill = KILLS[case]
    assert train(tmp_path, cache_dir, *overrides, kill=kill) == -signal.SIGKILL
    assert not (tmp_path / "result.json").exists()
    assert train(tmp_path, cache_dir, *overrides, resumed=True) == 0
    expected = whole(*overrides)
    assert same_states(tmp_path, expected)
    assert same_evaluations(tmp_path, expected)
    assert record(tmp_path) == record(expected)
    assert (tmp_path / "export" / "model.safetensors").read_bytes() == (
        expected / "export" / "model.safetensors"
    ).read_bytes()


def test_a_run_that_is_killed_again_and_again(whole, tmp_path, cache_dir):
    assert train(tmp_path, cache_dir, kill=("micro-batch", 6)) == -signal.SIGKILL
    for kill in (("micro-batch", 2), ("evaluation", 1), ("micro-batch", 5)):
        assert train(tmp_path, cache_dir, resumed=True, kill=kill) == -signal.SIGKILL
    assert train(tmp_path, cache_dir, resumed=True) == 0
    assert same_states(tmp_path, whole())
    assert record(tmp_path) == record(whole())


def test_a_run_that_is_killed_while_it_mines_starts_again(whole, tmp_path):
    assert train(tmp_path / "run", tmp_path / "cache", kill=("mining", 1)) == -signal.SIGKILL
    assert train(tmp_path / "run", tmp_path / "cache", resumed=True) == 0
    assert same_states(tmp_path / "run", whole())


def test_the_worker_count_changes_nothing(whole):
    assert same_states(whole(), whole("data.workers=2"))


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_of_a_damaged_newest_state_the_one_before_is_used(damage, whole, tmp_path, cache_dir):
    """A disk that lied: the file is there under its name, its content is not."""
    assert train(tmp_path, cache_dir, kill=("micro-batch", 11)) == -signal.SIGKILL
    newest, before = saved_states(tmp_path / "checkpoints")
    assert (newest.step, before.step) == (8, 4)
    content = bytearray(newest.file.read_bytes())
    content[len(content) // 2] ^= 1
    newest.file.write_bytes(content[: len(content) // 2] if damage == "cut" else content)
    assert newest_whole_state(tmp_path / "checkpoints") == before
    assert train(tmp_path, cache_dir, resumed=True) == 0
    assert same_states(tmp_path, whole())
    assert record(tmp_path) == record(whole())
