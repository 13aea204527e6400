"""Training steps beside CrossEncoderTrainer's: python -m bench.train --model minilm --batch 16 --precision bf16."""

import argparse
import contextlib
import io
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import torch
from datasets import Dataset
from sentence_transformers import CrossEncoder as Peer
from sentence_transformers.base.sampler import BatchSamplers, DefaultBatchSampler
from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss
from transformers import TrainerCallback

from bench.inputs import (
    MAX_LENGTH,
    NEGATIVES,
    Rows,
    labelled_rows,
    model_folder,
    operations,
    parser_for,
    rates,
    scratch,
    set_up,
)
from bench.measure import Turns, compare, machine, peak_memory
from bench.table import record
from crossrank.callbacks.step_rng import StepKeyedRNG
from crossrank.callbacks.throughput import RunProgress, Throughput
from crossrank.data.datamodule import Batching, PairDataModule
from crossrank.losses.bce import WeightedBCE
from crossrank.models.backbones import Pretrained
from crossrank.training.module import RerankerModule
from crossrank.training.optim import LinearWarmup
from crossrank.training.tracking import JsonlLogger
from crossrank.training.trainer import TrainerSpec

SEED, LR, WARM_UP_RATIO, WEIGHT = 12, 2e-5, 0.1, float(NEGATIVES)
LR_OF_RANDOM = 2e-6  # with 2e-5 random weights blow both sides' rounding up beyond the gate
GATE = 1e-5  # largest difference of a step's loss, in float32


class _OurTurns(pl.Callback):
    """Everything between two ends of a step is ours: fetching, collating, the step, its logging."""

    def __init__(self, turns: Turns | None) -> None:
        self.turns, self.losses, self.lengths = turns, [], []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.turns:
            self.turns.begin("ours")

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self.losses.append(pl_module.last_loss)
        self.lengths.append(batch.offsets[: len(batch) + 1].diff().cpu().numpy())
        if self.turns:
            self.turns.end("ours")


class _PeerTurns(TrainerCallback):
    def __init__(self, turns: Turns | None) -> None:
        self.turns = turns

    def on_train_begin(self, *args: object, **kwargs: object) -> None:
        if self.turns:
            self.turns.begin("peer")

    def on_step_end(self, *args: object, **kwargs: object) -> None:
        if self.turns:
            self.turns.end("peer")


class GroupedByLength(DefaultBatchSampler):
    """What a user of the peer would write: batches of similar length from random blocks of 50 batches."""

    def __iter__(self) -> Iterator[list[int]]:
        random, rows = np.random.default_rng(self.seed), self.sampler
        lengths = np.array([len(q) + len(d) for q, d in zip(rows["question"], rows["document"], strict=True)])
        cuts = range(50 * self.batch_size, len(lengths), 50 * self.batch_size)
        blocks = np.array_split(random.permutation(len(lengths)), cuts)
        grouped = np.concatenate([block[np.argsort(lengths[block])] for block in blocks])
        whole = len(grouped) - len(grouped) % self.batch_size
        yield from random.permutation(grouped[:whole].reshape(-1, self.batch_size)).tolist()


class _RecordedLoss(BinaryCrossEntropyLoss):
    def __init__(self, model: Peer) -> None:
        super().__init__(model, pos_weight=torch.tensor(WEIGHT))
        self.values: list[torch.Tensor] = []

    def forward(self, inputs, labels, **kwargs):
        loss = super().forward(inputs, labels, **kwargs)
        self.values.append(loss.detach())
        return loss


def train_ours(weights: Path, rows: Rows, options: argparse.Namespace, folder: Path, turns: Turns | None) -> _OurTurns:
    """Train through the module, the data module, the callbacks and the Trainer of a real run."""
    backbone = Pretrained(str(weights), max_length=MAX_LENGTH, recompute=options.recompute)
    precision = "bf16-mixed" if options.precision == "bf16" else "32-true"
    spec = TrainerSpec(
        "gpu" if options.device == "cuda" else "cpu", precision=precision, accumulate_grad_batches=options.accumulate,
        cuda_graph=options.graph, compile=options.compile,
    )  # fmt: skip
    batching = Batching(options.batch, max_steps=options.steps, workers=options.workers)
    data = PairDataModule(
        rows.source, rows.miner, rows.policy, backbone.encoder(), batching, folder / "cache", SEED, options.accumulate,
        spec.multiple,
    )  # fmt: skip
    data.prepare_data()
    module = RerankerModule(
        backbone.build(SEED), WeightedBCE(WEIGHT),
        partial(torch.optim.AdamW, lr=_rate(options.model), betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, fused=True),
        LinearWarmup(WARM_UP_RATIO), spec.step_mode,
    )  # fmt: skip
    record = _OurTurns(turns)
    callbacks = [StepKeyedRNG(SEED), Throughput(10), RunProgress(), record]
    spec.build(options.steps, callbacks, [JsonlLogger(folder)], folder).fit(module, datamodule=data)
    return record


def train_peer(
    weights: Path, rows: Rows, options: argparse.Namespace, folder: Path, turns: Turns | None
) -> list[torch.Tensor]:
    """Train with the published script's trainer on the same rows; its order of them is ours."""
    model = Peer(str(weights), max_length=MAX_LENGTH, device=options.device)
    loss = _RecordedLoss(model)
    arguments = CrossEncoderTrainingArguments(
        output_dir=str(folder / "peer"), max_steps=options.steps, per_device_train_batch_size=options.batch,
        learning_rate=_rate(options.model), warmup_steps=WARM_UP_RATIO, weight_decay=0.0, seed=SEED,
        bf16=options.precision == "bf16", save_strategy="no", report_to="none", use_cpu=options.device == "cpu",
        disable_tqdm=True, logging_steps=10, dataloader_pin_memory=options.device == "cuda",
        dataloader_num_workers=options.workers, torch_compile=options.peer_compile,
        batch_sampler=GroupedByLength if options.peer_grouped else BatchSamplers.BATCH_SAMPLER,
    )  # fmt: skip
    texts = {"question": rows.questions, "document": rows.documents, "label": rows.labels}
    CrossEncoderTrainer(
        model=model, args=arguments, train_dataset=Dataset.from_dict(texts), loss=loss, callbacks=[_PeerTurns(turns)]
    ).train()
    return loss.values


def main() -> None:
    options = _options()
    set_up(options)
    with scratch() as name:
        folder = Path(name)
        weights = model_folder(options.model, folder)
        encoder = Pretrained(str(weights), max_length=MAX_LENGTH).encoder()
        rows = labelled_rows(
            -(-options.steps * options.batch // (NEGATIVES + 1)) + 200, encoder, folder / "cache", options.text
        )
        if options.side != "both":  # for its peak memory alone
            train = train_ours if options.side == "ours" else train_peer
            with contextlib.redirect_stdout(None):
                train(weights, rows, options, folder, None)
            print(torch.cuda.max_memory_allocated() if options.device == "cuda" else peak_memory())
            return
        _compare(options, weights, rows, folder)


def _compare(options: argparse.Namespace, weights: Path, rows: Rows, folder: Path) -> None:
    # the peer first: it draws its order from the process's one random generator
    sides = {
        side: partial(loop, weights, rows, options, folder)
        for side, loop in (("peer", train_peer), ("ours", train_ours))
    }
    block = 10 if options.device == "cuda" else 1  # a device that is waited for at every step idles
    turns = Turns(sides, options.steps // block, block)
    with contextlib.redirect_stdout(io.StringIO()):  # the peer prints its log
        peer_losses, ours = turns.run().values()
    gap = max(abs(float(a) - float(b)) for a, b in zip(ours.losses, peer_losses, strict=True))
    if options.precision == "fp32" and gap >= GATE and not options.peer_grouped:  # those are other batches
        raise SystemExit(f"the losses of a step differ by {gap:.1e}, at most {GATE:.0e} is allowed: no figure counts")
    lengths = ours.lengths[options.warm_up :]
    warm_up = options.warm_up // block
    figures = compare(turns.clocks["peer"], turns.clocks["ours"], warm_up, block)
    seconds = sum(turns.clocks["ours"].wall[warm_up:])
    flops = sum(operations(weights, one, passes=3) for one in lengths)
    named = {"peer_compile": "peer compiled", "peer_grouped": "peer grouped", "graph": "graph", "compile": "compiled"}
    how = "".join(f", {words}" for option, words in named.items() if getattr(options, option))
    how = f", {options.device}{how}" if options.device != "cpu" else how
    record(
        f"train-{options.batch}{how}", options.model, options.precision,
        {
            **asdict(figures), "unit": f"step of {options.batch} pairs", "gap": gap, "text": rows.source.kind,
            **rates(weights, options.precision, sum(int(one.sum()) for one in lengths), flops, seconds, options.device),
            "padded_over_real": _padding(lengths),
        },
        machine(), options.dry,
    )  # fmt: skip


def _rate(model: str) -> float:
    return LR_OF_RANDOM if model == "modernbert" else LR


def _padding(lengths: list[np.ndarray]) -> float:
    return sum(len(one) * int(one.max()) for one in lengths) / sum(int(one.sum()) for one in lengths)


def _options() -> argparse.Namespace:
    parser = parser_for(__doc__)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--warm-up", type=int, default=4, help="steps that no figure counts")
    parser.add_argument("--accumulate", type=int, default=1, help="micro-batches a step, ours only")
    parser.add_argument("--recompute", action="store_true", help="activation checkpointing, ours only")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--workers", type=int, default=0, help="processes that fetch and collate, on either side")
    parser.add_argument("--graph", action="store_true", help="replay our step as a CUDA graph")
    parser.add_argument("--compile", action="store_true", help="torch.compile for ours")
    parser.add_argument("--peer-compile", action="store_true", help="torch.compile for the peer")
    parser.add_argument("--peer-grouped", action="store_true", help="batches of similar length for the peer")
    return parser.parse_args()


if __name__ == "__main__":
    main()
