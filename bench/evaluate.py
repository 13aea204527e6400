"""A whole evaluation beside CrossEncoderRerankingEvaluator: python -m bench.evaluate --model minilm.

Three collections (reranked with their positives) and a dev set (as the first stage left it), twice in a row, as it
happens during training: the peer tokenises at every evaluation, ours at the first.
"""

import argparse
from dataclasses import asdict, replace
from pathlib import Path

import torch
from sentence_transformers import CrossEncoder as Peer
from sentence_transformers.cross_encoder.evaluation import CrossEncoderRerankingEvaluator

from bench.inputs import (
    MAX_LENGTH,
    SHARED,
    Pairs,
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
from crossrank.evaluation.collection import Collection
from crossrank.evaluation.formats import bm25_run
from crossrank.evaluation.reranking import RerankingTask, evaluate_tasks
from crossrank.inference.scorer import PairScorer
from crossrank.models.backbones import Pretrained

COLLECTIONS = ("nano-msmarco-dl19", "nano-nfcorpus", "nano-nq")
GATE = 1e-9  # of a metric, in float32: the same rankings


def tasks(queries: int, dev: int, text: str) -> list[RerankingTask]:
    """The first `queries` of each collection and `dev` dev questions; without the data, dev sets of made-up texts."""
    folders = [SHARED / name for name in COLLECTIONS]
    made = [_from_pairs("dev", dev, 30, False, text)]
    if text != "generated" and all(folder.is_dir() for folder in folders):
        read = Collection([str(folder) for folder in folders]).tasks
        return [*(_first(task, queries) for task in read), *made]
    return [*(_from_pairs(f"generated-{i}", queries, 100, True, text) for i in range(3)), *made]


def _first(task: RerankingTask, queries: int) -> RerankingTask:
    return replace(task, queries=dict(list(task.queries.items())[:queries]))


def _from_pairs(name: str, queries: int, depth: int, always: bool, text: str) -> RerankingTask:
    pairs = Pairs(2000, text).read()
    asked = {str(i): pairs.questions[i] for i in range(queries)}
    corpus = {str(i): text for i, text in enumerate(pairs.answers)}
    ranked = bm25_run(asked, corpus, depth)
    return RerankingTask(name, asked, corpus, ranked, {q: {q: 1} for q in asked}, always_rerank_positives=always)


class _PeersEvaluation:
    def __init__(self, weights: Path, work: list[RerankingTask], precision: str, batch: int) -> None:
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self.model = Peer(str(weights), max_length=MAX_LENGTH, device="cpu", model_kwargs={"dtype": dtype})
        self.evaluators = {
            task.name: CrossEncoderRerankingEvaluator(
                [
                    {
                        "query": text,
                        "positive": [task.documents[d] for d in task.qrels[q]],
                        "documents": [task.documents[d] for d in task.candidates[q]],
                    }
                    for q, text in task.queries.items()
                ],
                at_k=task.at_k, always_rerank_positives=task.always_rerank_positives, batch_size=batch,
                show_progress_bar=False, write_csv=False,
            )
            for task in work
        }  # fmt: skip

    def __call__(self) -> dict[tuple[str, str], float]:
        return {
            (name, metric): value
            for name, evaluator in self.evaluators.items()
            for metric, value in evaluator(self.model).items()
            if not metric.startswith("base_")
        }


def main() -> None:
    options = _options()
    set_up(options)
    with scratch() as name:
        weights = model_folder(options.model, Path(name))
        work = tasks(options.queries, options.dev, options.text)
        backbone = Pretrained(str(weights), max_length=MAX_LENGTH)
        autocast = torch.bfloat16 if options.precision == "bf16" else None
        scorer = PairScorer(backbone.build(None).eval(), backbone.encoder(), autocast=autocast)
        peer = _PeersEvaluation(weights, work, options.precision, options.peer_batch)
        if options.side != "both":
            _ = evaluate_tasks(work, scorer) if options.side == "ours" else peer()
            print(peak_memory())
            return
        clocks = {"peer": Clock(), "ours": Clock()}
        for number in range(options.rounds):
            for side in ("peer", "ours") if number % 2 == 0 else ("ours", "peer"):
                clocks[side].start()
                if side == "peer":
                    theirs = peer()
                else:
                    mine = evaluate_tasks(work, scorer).means()
                clocks[side].stop()
        gap = max(abs(mine.loc[key, "value"] - value) for key, value in theirs.items())
        if options.precision == "fp32" and gap >= GATE:
            raise SystemExit(f"metrics differ by {gap:.1e}, at most {GATE:.0e} is allowed: no figure counts")
        _record(options, weights, work, clocks, gap, scorer)


def _record(options, weights: Path, work: list[RerankingTask], clocks: dict[str, Clock], gap: float, scorer) -> None:
    kind = "nano" if any(task.name in COLLECTIONS for task in work) else "generated"
    pairs = [pair for task in work for pair in task.pairs]
    lengths, seconds = pair_lengths(scorer.encoder, pairs), sum(clocks["ours"].wall) / options.rounds
    flops = operations(weights, lengths, passes=1)
    record(
        "evaluate", options.model, options.precision,
        {
            **asdict(compare(clocks["peer"], clocks["ours"], 0)), "unit": f"{len(pairs)} pairs", "gap": gap,
            "text": kind,
            **rates(weights, options.precision, int(lengths.sum()), flops, seconds),
        },
        machine(), options.dry,
    )  # fmt: skip


def _options() -> argparse.Namespace:
    parser = parser_for(__doc__)
    parser.add_argument("--queries", type=int, default=3, help="a collection; 50 are all")
    parser.add_argument("--dev", type=int, default=30, help="dev questions; the recipe has 1000")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--peer-batch", type=int, default=64)
    return parser.parse_args()


if __name__ == "__main__":
    main()
