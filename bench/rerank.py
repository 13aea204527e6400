"""Whether a reranking's memory grows with its pairs, and how fast it goes: python -m bench.rerank.

Made-up questions and documents, a run of 100 documents a question, a tiny model, one process a size. Anonymous memory
is the process's own; file-backed memory is what it has mapped of files and touched, which the system takes back when
it is short.
"""

import argparse
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from bench.inputs import MINILM, scratch
from bench.memory import Peak, texts
from crossrank.inference.rerank_inputs import RerankInputs
from crossrank.inference.rerank_run import RerankRun, execute
from crossrank.inference.reranker import Reranker, Scored
from crossrank.inference.reranker_spec import RerankerSpec
from crossrank.models.backbones import RandomInit
from crossrank.models.export import export
from crossrank.process import prepare_process
from crossrank.quiet import quieten

SIZES = (20_000, 200_000)
DEPTH = 100
DOCUMENTS = 50_000


def write_inputs(pairs: int, folder: Path, documents: int = DOCUMENTS) -> None:
    """Write a corpus, queries and a run in which every question has its own draw of documents."""
    folder.mkdir()
    random, queries = np.random.default_rng(0), -(-pairs // DEPTH)
    for name, count, words in (("corpus", documents, 30), ("queries", queries, 8)):
        table = pa.table({"_id": [f"{name[0]}{i}" for i in range(count)], "text": list(texts(random, count, words))})
        pq.write_table(table, folder / f"{name}.parquet")
    with (folder / "bm25.trec").open("w", encoding="utf-8") as run:
        for query in range(queries):
            chosen = random.integers(0, documents // DEPTH, DEPTH) + np.arange(DEPTH) * (documents // DEPTH)
            for rank, document in enumerate(chosen[: pairs - query * DEPTH], start=1):
                run.write(f"q{query} Q0 c{document} {rank} {DEPTH - rank} made-up\n")


def make_up_scores() -> None:
    """Have no model compute anything, so that what is left is reading and writing."""
    random = np.random.default_rng(0)

    def score(self: Reranker, pairs: Sequence[tuple[str, str]]) -> Scored:
        return Scored(random.standard_normal(len(pairs), np.float32), np.zeros(len(pairs), bool))

    Reranker.score = score


def measure(pairs: int, pairs_per_chunk: int, folder: Path) -> dict[str, Any]:
    write_inputs(pairs, folder / "beir")
    backbone = RandomInit(MINILM, "bert", hidden_size=16, layers=1, intermediate_size=16, max_length=64)
    export(backbone.build(0), backbone.encoder(), folder / "model")
    inputs = RerankInputs(folder / "beir" / "bm25.trec", None, None, folder / "beir", DEPTH, True, folder / "cache")
    inputs.check()  # builds the stores
    peak, started = Peak(), time.perf_counter()
    facts = execute(RerankRun(RerankerSpec(str(folder / "model")), inputs, folder / "out", None, pairs_per_chunk))
    peak.close()
    return {
        "pairs": facts["pairs"],
        "pairs_per_second": facts["pairs"] / (time.perf_counter() - started),
        "anonymous_mib": peak.anonymous / 2**20,
        "total_mib": peak.total / 2**20,
        "tenths_mib": [peak.looks[len(peak.looks) * tenth // 10 - 1] / 2**20 for tenth in range(1, 11)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, help="measure this one size, in this process")
    parser.add_argument("--pairs-per-chunk", type=int, default=8192)
    parser.add_argument("--made-up", action="store_true", help="scores, so that no model adds to the memory")
    options = parser.parse_args()
    if options.pairs is None:
        for pairs in SIZES:
            command = [sys.executable, "-m", "bench.rerank", f"--pairs={pairs}", *["--made-up"] * options.made_up]
            subprocess.run([*command, f"--pairs-per-chunk={options.pairs_per_chunk}"], check=True)
        return
    warnings.filterwarnings("ignore")
    quieten()
    prepare_process()
    torch.set_num_threads(1)
    if options.made_up:
        make_up_scores()
    with scratch() as name:
        found = measure(options.pairs, options.pairs_per_chunk, Path(name))
    print(
        f"{found['pairs']:>9,} pairs, {found['pairs_per_second']:,.0f} a second: peak {found['anonymous_mib']:.0f} MiB "
        f"anonymous, {found['total_mib']:.0f} MiB in all; anonymous after each tenth of the time: "
        f"{', '.join(f'{mib:.0f}' for mib in found['tenths_mib'])}"
    )


if __name__ == "__main__":
    main()
