"""Scoring pairs beside CrossEncoder.predict: python -m bench.score --model minilm --precision fp32."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import CrossEncoder as Peer

from bench.inputs import (
    MAX_LENGTH,
    NEGATIVES,
    labelled_rows,
    model_folder,
    operations,
    pair_lengths,
    parser_for,
    rates,
    scratch,
    set_up,
)
from bench.measure import Clock, compare, machine, peak_memory
from bench.table import record
from crossrank.inference.scorer import PairScorer
from crossrank.models.backbones import Pretrained

GATE = 1e-5  # largest difference of a score, in float32
BATCHES = (32, 128)  # of the peer; the best counts

Scores = Callable[[Sequence[tuple[str, str]]], np.ndarray]


def our_scorer(weights: Path, precision: str) -> Scores:
    backbone = Pretrained(str(weights), max_length=MAX_LENGTH)
    model, encoder = backbone.build(None).eval(), backbone.encoder()
    autocast = torch.bfloat16 if precision == "bf16" else None
    return lambda pairs: PairScorer(model, encoder, autocast=autocast)(pairs)  # a new one: it tokenises each time


def peer_scorer(weights: Path, precision: str, batch: int) -> Scores:
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    model = Peer(str(weights), max_length=MAX_LENGTH, device="cpu", model_kwargs={"dtype": dtype})

    def score(pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        return model.predict(
            list(pairs), batch_size=batch, activation_fn=torch.nn.Identity(), show_progress_bar=False
        ).astype(np.float32)

    return score


def main() -> None:
    options = _options()
    set_up(options)
    with scratch() as name:
        folder = Path(name)
        weights = model_folder(options.model, folder)
        encoder = Pretrained(str(weights), max_length=MAX_LENGTH).encoder()
        rows = labelled_rows(options.pairs // (NEGATIVES + 1) + 20, encoder, folder / "cache", options.text)
        pairs = list(zip(rows.questions, rows.documents, strict=True))[: options.pairs]
        if options.side != "both":
            mine = our_scorer(weights, options.precision)
            (mine if options.side == "ours" else peer_scorer(weights, options.precision, 32))(pairs)
            print(peak_memory())
            return
        _compare(options, weights, pairs, rows.source.kind)


def _compare(options: argparse.Namespace, weights: Path, pairs: list[tuple[str, str]], text: str) -> None:
    sides = {f"peer {size}": peer_scorer(weights, options.precision, size) for size in BATCHES}
    sides["ours"] = our_scorer(weights, options.precision)
    clocks, scores = {side: Clock() for side in sides}, {side: [] for side in sides}
    groups = [pairs[i :: options.groups] for i in range(options.groups)]
    for score in sides.values():
        score(groups[0][:64])
    for number, group in enumerate(groups):
        for side in sides if number % 2 == 0 else reversed(sides):
            clocks[side].start()
            scores[side].append(sides[side](group))
            clocks[side].stop()
    best = min((side for side in sides if side != "ours"), key=lambda side: np.median(clocks[side].wall))
    mine, theirs = np.concatenate(scores["ours"]), np.concatenate(scores[best])
    gap = float(np.abs(mine - theirs).max())
    if options.precision == "fp32" and gap >= GATE:
        raise SystemExit(f"scores differ by {gap:.1e}, at most {GATE:.0e} is allowed: no figure counts")
    encoder = Pretrained(str(weights), max_length=MAX_LENGTH).encoder()
    lengths, seconds = pair_lengths(encoder, pairs), sum(clocks["ours"].wall)
    flops = operations(weights, lengths, passes=1)
    record(
        "score", options.model, options.precision,
        {
            **asdict(compare(clocks[best], clocks["ours"], 0)), "unit": f"{len(groups[0])} pairs", "gap": gap,
            "text": text,
            "best_peer": best,
            "peer_seconds": {side: float(np.median(clock.wall)) for side, clock in clocks.items()},
            **rates(weights, options.precision, int(lengths.sum()), flops, seconds),
        },
        machine(), options.dry,
    )  # fmt: skip


def _options() -> argparse.Namespace:
    parser = parser_for(__doc__)
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--groups", type=int, default=8)
    return parser.parse_args()


if __name__ == "__main__":
    main()
