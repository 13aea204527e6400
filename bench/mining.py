"""Time and memory of exact mining: python -m bench.mining --texts 100000 --dimensions 384.

The real miner and pool over made-up vectors: as many questions as documents, in clusters, so that scores lie close
together as those of real texts do. Each library runs in a process of its own.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crossrank.data.miners.embedding import EmbeddingMiner
from crossrank.data.mining import Pool, mine
from crossrank.data.pairs import PairIndex

CLUSTERS = 1000
MIB = 2**20


class MadeUp:
    """Embeds the text "question 7" or "document 7" as a vector that its words decide."""

    def __init__(self, dimensions: int) -> None:
        self.centres = np.random.default_rng(0).normal(size=(CLUSTERS, dimensions)).astype(np.float32)

    def encode_document(self, texts: Sequence[str], **_: object) -> np.ndarray:
        numbers = [int(text.rpartition(" ")[2]) if " " in text else 0 for text in texts]
        seed = [ord(texts[0][0]), *numbers[:1]]
        vectors = self.centres[np.asarray(numbers) % CLUSTERS] * 0.5
        vectors += np.random.default_rng(seed).normal(size=vectors.shape).astype(np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    encode_query = encode_document


@dataclass(frozen=True)
class MadeUpMiner(EmbeddingMiner):
    dimensions: int = 384

    def fingerprint(self) -> str:
        return "made-up"

    def model(self) -> MadeUp:
        return MadeUp(self.dimensions)


def measure(texts: int, dimensions: int, library: str) -> dict[str, object]:
    index = PairIndex(
        [f"question {i}" for i in range(texts)], [f"document {i}" for i in range(texts)],
        np.arange(texts + 1, dtype=np.int64), np.arange(texts, dtype=np.int32),
    )  # fmt: skip
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        (pool_folder := Path(folder) / "pool").mkdir()
        mine(index, MadeUpMiner("made-up", library=library, device="cpu", dimensions=dimensions), 100, pool_folder,
             Path(folder))  # fmt: skip
        seconds = time.perf_counter() - started
        pool = Pool.open(pool_folder)
        digest = int(np.asarray(pool.candidates, np.int64).sum(dtype=np.int64))
        sampled = pool.candidates[:: max(1, texts // 1000)].tolist()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "library": library, "seconds": round(seconds, 1), "peak_above_start_mib": round((peak - before) / MIB),
        "embeddings_of_documents_mib": round(texts * dimensions * 4 / MIB), "ids": [digest, sampled],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=100_000)
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--library", choices=["faiss", "torch"])
    given = parser.parse_args()
    if given.library:
        print(json.dumps(measure(given.texts, given.dimensions, given.library)))
        return
    rows = []
    for library in ("faiss", "torch"):
        command = [sys.executable, "-m", "bench.mining", "--library", library,
                   "--texts", str(given.texts), "--dimensions", str(given.dimensions)]  # fmt: skip
        rows.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    same = rows[0].pop("ids") == rows[1].pop("ids")
    for row in rows:
        print(json.dumps(row))
    print(f"both libraries chose {'the same' if same else 'DIFFERENT'} candidates")
    times, scale = (3_000_000 / given.texts) ** 2, 3_000_000 / given.texts
    hours, gib = rows[0]["seconds"] * times / 3600, rows[0]["embeddings_of_documents_mib"] * scale / 1024
    print(f"extrapolated to 3,000,000 texts, not measured: FAISS {hours:.0f} hours here, {gib:.1f} GiB of embeddings")
    if not same:
        sys.exit(1)


if __name__ == "__main__":
    main()
