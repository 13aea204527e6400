"""A run that is killed at any moment and goes on ends as one that never stopped, bit for bit."""

import json
import os
import random
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
    words = [*OPTIONS, f"cache_dir={cache}", *overrides]
    process = killed_run.start(words, str(folder), resumed, kill, pages=kill is not None and kill[0] == "card")
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
    assert len(first) > 90  # of 32 parameters and two moments of each; with adapters more, of fewer that are trained
    assert first.keys() == second.keys()
    return all(torch.equal(value, second[path]) for path, value in first.items())


def same_evaluations(one, other):
    files = sorted(file.relative_to(one) for file in (one / "evaluations").rglob("*.parquet"))
    assert files == sorted(file.relative_to(other) for file in (other / "evaluations").rglob("*.parquet"))
    return all(pd.read_parquet(one / file).equals(pd.read_parquet(other / file)) for file in files)


def same_run(one, other):
    exports = [(folder / "export" / "model.safetensors").read_bytes() for folder in (one, other)]
    assert record(one) == record(other)
    return exports[0] == exports[1] and same_states(one, other) and same_evaluations(one, other)


ADAPTED = [
    "adapter=lora", "adapter.rank=4", "adapter.dropout=0.2",
    "callbacks.checkpoint_mean.rule.count=2",
    "callbacks=[health,evaluation,throughput,progress,checkpoint,provenance,ema,checkpoint_mean]",
]  # fmt: skip
KILLS = {
    "in the first step": ([], ("micro-batch", 1)),
    "before the first checkpoint": ([], ("micro-batch", 3)),
    "in a step": ([], ("micro-batch", 8)),
    "between micro-batches, with two workers": (
        ["trainer.accumulate_grad_batches=4", "data.workers=2"],
        ("micro-batch", 27),
    ),
    "in a step of pieces": (["loss=multiple_negatives_cached", "data.questions_per_step=8"], ("micro-batch", 8)),
    "while a checkpoint is written": ([], ("written", 2)),
    "during an evaluation": ([], ("evaluation", 3)),
    "in the last step": ([], ("micro-batch", STEPS)),
    "with adapters and averages": (ADAPTED, ("micro-batch", 11)),
    "after the averages were judged": (ADAPTED, ("export", 1)),
    "before the model is exported": ([], ("export", 1)),
    "before the report is written": ([], ("card", 1)),
}


REST = (
    "in the first step", "before the first checkpoint", "in a step", "in a step of pieces", "in the last step",
    "after the averages were judged", "before the model is exported", "before the report is written",
)  # fmt: skip


@pytest.mark.parametrize("case", [pytest.param(c, marks=pytest.mark.thorough) if c in REST else c for c in KILLS])
def test_a_killed_run_ends_as_one_that_never_stopped(case, whole, tmp_path, cache_dir):
    overrides, kill = KILLS[case]
    assert train(tmp_path, cache_dir, *overrides, kill=kill) == -signal.SIGKILL
    assert not (tmp_path / "result.json").exists()
    assert train(tmp_path, cache_dir, *overrides, resumed=True) == 0
    assert same_run(tmp_path, whole(*overrides))


MOMENTS = {  # how often a run without accumulation comes there, and what may pass from there to the kill, in seconds
    "micro-batch": (STEPS, 0.03),
    "checkpoint": (5, 0.03),
    "scoring": (4, 0.2),
    "mining": (1, 0.3),
    "export": (1, 0.2),
}
SEEDS = os.environ.get("CROSSRANK_KILL_SEEDS", "13").split()  # a state; 14 is an evaluation, 8 mining, 1011 a step


@pytest.mark.thorough
@pytest.mark.parametrize("seed", SEEDS)
def test_a_run_that_is_killed_at_random_ends_as_one_that_never_stopped(seed, whole, tmp_path, cache_dir):
    """More kills: CROSSRANK_THOROUGH=1 CROSSRANK_KILL_SEEDS="5 6 7"."""
    draw = random.Random(int(seed))
    accumulate, workers = draw.choice([1, 4]), draw.choice([0, 2])
    share = [f"trainer.accumulate_grad_batches={accumulate}"] * (accumulate > 1)
    point = draw.choice(list(MOMENTS))
    calls, seconds = MOMENTS[point]
    kill = (point, draw.randint(1, calls * (accumulate if point == "micro-batch" else 1)), draw.uniform(0, seconds))
    cache = tmp_path / "cache" if point == "mining" else cache_dir
    run = tmp_path / "run"
    assert train(run, cache, f"data.workers={workers}", *share, kill=kill) == -signal.SIGKILL
    left = [state.step for state in saved_states(run / "checkpoints")]
    finished = (run / "result.json").exists()
    print(f"{seed}: {accumulate=} {workers=}, {kill[2]:.3f} s after {kill[:2]}, states {left}, {finished=}")
    if not finished:
        assert train(run, cache, f"data.workers={workers}", *share, resumed=True) == 0
    assert same_run(run, whole(*share))
    steps = [line["step"] for line in record(run) if "train/loss" in line]
    assert steps == [1, 3, 6, 9, 12, STEPS]  # no gap and no step twice


@pytest.mark.thorough
def test_a_run_that_is_killed_again_and_again(whole, tmp_path, cache_dir):
    assert train(tmp_path, cache_dir, kill=("micro-batch", 6)) == -signal.SIGKILL
    for kill in (("micro-batch", 2), ("evaluation", 1), ("micro-batch", 5)):
        assert train(tmp_path, cache_dir, resumed=True, kill=kill) == -signal.SIGKILL
    assert train(tmp_path, cache_dir, resumed=True) == 0
    assert same_states(tmp_path, whole())
    assert record(tmp_path) == record(whole())


@pytest.mark.thorough  # test_mine.py kills the mining itself
def test_a_run_that_is_killed_while_it_mines_starts_again(whole, tmp_path):
    assert train(tmp_path / "run", tmp_path / "cache", kill=("mining", 1)) == -signal.SIGKILL
    assert train(tmp_path / "run", tmp_path / "cache", resumed=True) == 0
    assert same_states(tmp_path / "run", whole())


@pytest.mark.thorough
def test_the_worker_count_changes_nothing(whole):
    assert same_states(whole(), whole("data.workers=2"))


@pytest.mark.parametrize("damage", [pytest.param("cut", marks=pytest.mark.thorough), "flipped"])
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
