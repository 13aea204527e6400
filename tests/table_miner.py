"""A miner that looks its scores up, and pools mined with it."""

from pathlib import Path

import numpy as np

from crossrank.data.mining import Candidates, Pool, mine
from crossrank.data.pairs import PairIndex, QAPairs
from crossrank.data.search import top_k

WORDS = ["cat", "dog", "river", "stone", "music", "iron", "paper", "cloud", "winter", "engine", "bread", "ocean"]


class TableMiner:
    """Finds by a table [questions, documents] of scores, two questions at a time; breaks off after some blocks."""

    def __init__(self, table, blocks: int | None = None) -> None:
        self.table = np.asarray(table, np.float32)
        self.blocks = blocks
        self.starts = []

    def search(self, questions, documents, k, positives, start=0, cache_dir=None):
        self.starts.append(start)
        for number, first in enumerate(range(start, len(questions), 2)):
            if number == self.blocks:
                raise KeyboardInterrupt
            block = self.table[first : first + 2]
            ids, scores = top_k(block, k)
            yield Candidates(ids, scores, [row[positives[first + i]] for i, row in enumerate(block)])


def mined(pairs: QAPairs, miner, depth: int, folder: Path, extra_documents=()) -> tuple[PairIndex, Pool]:
    index = PairIndex.of(pairs, extra_documents)
    folder.mkdir()
    mine(index, miner, depth, folder)
    return index, Pool.open(folder)


def some_pairs(seed: int, count: int = 60) -> QAPairs:
    """Return pairs of random words: some questions have several answers, some answers several questions."""
    rng = np.random.default_rng(seed)
    questions = [" ".join(rng.choice(WORDS, 3)) for _ in range(count)]
    answers = [" ".join(rng.choice(WORDS, 6)) for _ in range(count)]
    questions[10:14] = questions[3:4] * 4
    questions[20] = questions[5]
    answers[30:32] = answers[2:3] * 2
    return QAPairs(questions, answers)
