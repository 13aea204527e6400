"""Which states are kept, and that a training that is asked to stop saves first and says so."""

import os
import signal
import time
from types import SimpleNamespace

import killed_run
import pytest
import torch

from crossrank.callbacks.checkpoints import Checkpoints
from crossrank.training.checkpoints import newest_whole_state, saved_states

LONG = [
    "data.max_steps=400", "callbacks.evaluation.every_n_steps=400", "callbacks.throughput.every_n_steps=1",
    "callbacks.checkpoint.every_n_steps=400",
]  # fmt: skip


def start(folder, cache, *overrides):
    return killed_run.start([*overrides, f"cache_dir={cache}"], str(folder), pages=False)


def steps(folder):
    return [state.step for state in saved_states(folder / "checkpoints")]


@pytest.mark.parametrize(
    ("overrides", "kept"),
    [
        pytest.param([], [9, 8], marks=pytest.mark.thorough),
        pytest.param(["callbacks.checkpoint.keep_last=1"], [9], marks=pytest.mark.thorough),
        (["callbacks.checkpoint.keep_last=1", "callbacks.checkpoint.keep_every=4"], [9, 8, 4]),
    ],
)
def test_the_newest_states_are_kept_and_those_at_a_multiple(overrides, kept, tmp_path, cache_dir):
    options = ["data.max_steps=9", "callbacks.checkpoint.every_n_steps=2", "callbacks.evaluation.every_n_steps=9"]
    process = start(tmp_path, cache_dir, *options, *overrides)
    process.join(120)
    assert process.exitcode == 0
    assert steps(tmp_path) == kept
    assert torch.load(newest_whole_state(tmp_path / "checkpoints").file, weights_only=True)["global_step"] == 9


@pytest.mark.parametrize(
    ("number", "accumulate"), [(signal.SIGTERM, 1), (signal.SIGTERM, 4), (signal.SIGINT, 1), (signal.SIGUSR1, 1)]
)
def test_a_signal_lets_the_step_end_saves_and_leaves_with_its_code(number, accumulate, tmp_path, cache_dir):
    process = start(tmp_path, cache_dir, *LONG, f"trainer.accumulate_grad_batches={accumulate}")
    record = tmp_path / "metrics.jsonl"
    for _ in range(600):
        if record.is_file() and record.read_text().count("\n") > 5:
            break
        time.sleep(0.05)
    os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode == 128 + number
    (step,) = steps(tmp_path)
    assert 0 < step < 400
    state = torch.load(newest_whole_state(tmp_path / "checkpoints").file, weights_only=True)
    assert state["global_step"] == step
    assert state["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["ready"] == step * accumulate
    assert not (tmp_path / "result.json").exists()


@pytest.mark.parametrize(("processes", "asked_at"), [(1, range(1, 26)), (2, [7, 10, 14, 20, 21, 25])])
def test_several_processes_ask_each_other_now_and_then_only(processes, asked_at, monkeypatch):
    """On a GPU the host waits for it: every 10 steps, where a state is due anyway, and after the last."""
    callback, asked, saved = Checkpoints("nowhere", every_n_steps=7), [], []
    monkeypatch.setattr(callback, "_save", lambda trainer, step: saved.append(step))
    strategy = SimpleNamespace(reduce_boolean_decision=lambda mine, all: asked.append(trainer.global_step) or mine)
    trainer = SimpleNamespace(max_steps=25, accumulate_grad_batches=2, world_size=processes, strategy=strategy)
    trainer.is_global_zero = True
    for batch in range(50):
        trainer.global_step = (batch + 1) // 2
        callback.on_train_batch_end(trainer, None, None, None, batch)
    assert asked == list(asked_at)
    assert saved == [7, 14, 21, 25]


@pytest.mark.parametrize("settings", [{"every_n_steps": 0}, {"keep_last": 0}, {"keep_every": 0}])
def test_counts_below_one_are_refused(settings):
    with pytest.raises(ValueError, match="must be at least 1"):
        Checkpoints("nowhere", **settings)
