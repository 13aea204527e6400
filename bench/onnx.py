"""Scoring on a CPU: our forward beside onnxruntime's, in float32 and int8: python -m bench.onnx --model minilm."""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from scipy.stats import kendalltau
from transformers import AutoTokenizer

from bench.inputs import MAX_LENGTH, NEGATIVES, labelled_rows, model_folder, parser_for, scratch, set_up
from bench.measure import Clock, machine
from bench.score import GATE, our_scorer
from crossrank.models.backbones import Pretrained
from crossrank.models.onnx_export import FP32, INT8, write_onnx

BATCH = 32  # pairs of similar length, as onnxruntime gets them
SIDES = {"ours, fp32": "fp32", "ours, bf16": "bf16", "onnxruntime, fp32": FP32, "onnxruntime, int8": INT8}

Scores = Callable[[Sequence[tuple[str, str]]], np.ndarray]


def onnx_scorer(folder: Path, file: str, threads: int, batch: int = BATCH) -> Scores:
    """Return what scores pairs by an ONNX file: the longest first, as the other side does it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(folder / file), options, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def score(pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        encoded = tokenizer(*map(list, zip(*pairs, strict=True)), truncation=True, max_length=MAX_LENGTH)
        order = np.argsort([-len(ids) for ids in encoded["input_ids"]], kind="stable")
        scores = np.zeros(len(pairs), np.float32)
        for start in range(0, len(pairs), batch):
            chosen = order[start : start + batch]
            rows = {key: [values[i] for i in chosen] for key, values in encoded.items()}
            padded = tokenizer.pad(rows, return_tensors="np", verbose=False)
            scores[chosen] = session.run(["logits"], {name: padded[name] for name in names})[0][:, 0]
        return scores

    return score


def measured(sides: dict[str, Scores], pairs: list[tuple[str, str]], groups: int) -> dict[str, dict[str, float]]:
    """Return, of each side, seconds a group of pairs, and how far it is from the first side's scores.

    Each group is scored by all sides in turn, every second one in reverse order.
    """
    clocks, scores = {side: Clock() for side in sides}, {side: [] for side in sides}
    parts = [pairs[i::groups] for i in range(groups)]
    for score in sides.values():
        score(parts[0][:64])
    for number, part in enumerate(parts):
        for side in sides if number % 2 == 0 else reversed(sides):
            clocks[side].start()
            scores[side].append(sides[side](part))
            clocks[side].stop()
    found = {side: np.concatenate(parts) for side, parts in scores.items()}
    reference = next(iter(found.values()))
    return {
        side: {
            "seconds": float(np.median(clocks[side].wall)),
            "seconds_p10": float(np.percentile(clocks[side].wall, 10)),
            "pairs_per_second": len(pairs) / sum(clocks[side].wall),
            "gap": float(np.abs(found[side] - reference).max()),
            "tau": float(kendalltau(found[side], reference).statistic),
        }
        for side in sides
    }


def as_markdown(figures: dict[str, dict[str, float]]) -> str:
    """One row a side; its ratio is of the first side's seconds."""
    first = next(iter(figures.values()))["seconds"]
    rows = [
        f"| {side} | {f['seconds'] * 1000:.0f} ms ({f['seconds_p10'] * 1000:.0f} ms) | {f['pairs_per_second']:,.0f} "
        f"| {first / f['seconds']:.2f} | {f['gap']:.0e} | {f['tau']:.4f} |"
        for side, f in figures.items()
    ]
    head = "| | seconds a group (p10) | pairs/s | ratio | largest gap | Kendall's tau |\n|---|---|---|---|---|---|"
    return "\n".join([head, *rows])


def main() -> None:
    options = _options()
    set_up(options)
    with scratch() as name:
        folder = Path(name)
        weights = model_folder(options.model, folder)
        write_onnx(weights)
        encoder = Pretrained(str(weights), max_length=MAX_LENGTH).encoder()
        rows = labelled_rows(options.pairs // (NEGATIVES + 1) + 20, encoder, folder / "cache", options.text)
        pairs = list(zip(rows.questions, rows.documents, strict=True))[: options.pairs]
        sides = {
            side: our_scorer(weights, how) if side.startswith("ours") else onnx_scorer(weights, how, options.threads)
            for side, how in SIDES.items()
        }
        figures = measured(sides, pairs, options.groups)
        gap = figures["onnxruntime, fp32"]["gap"]
        if gap >= GATE:
            raise SystemExit(f"scores differ by {gap:.1e}, at most {GATE:.0e} is allowed: no figure counts")
        print(json.dumps({"text": rows.source.kind, "figures": figures, "machine": _machine()}, indent=2))
        print(as_markdown(figures))


def _machine() -> dict[str, str | int | float]:
    return machine() | {"onnxruntime": onnxruntime.__version__, "bf16": torch.cpu._is_avx512_bf16_supported()}


def _options() -> argparse.Namespace:
    parser = parser_for(__doc__)
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--groups", type=int, default=8)
    return parser.parse_args()


if __name__ == "__main__":
    main()
