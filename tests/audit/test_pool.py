import numpy as np
import pytest
from table_miner import TableMiner, mined

from crossrank.audit import pool as module
from crossrank.audit.pool import best_ranks, pool_section
from crossrank.data.mining import Pool
from crossrank.data.pairs import QAPairs
from crossrank.data.policy import Policy


@pytest.fixture
def pool(tmp_path):
    """Of 4 candidates, p finds its answers a and b at 3 and 4, q finds b at 2, r finds a not at all."""
    table = [[3, 2, 5, 4, 1], [1, 4, 2, 3, 5], [0, 1, 2, 3, 4]]
    pairs = QAPairs(["p", "p", "q", "r"], ["a", "b", "b", "a"])
    return mined(pairs, TableMiner(table), 2, tmp_path / "pool", list("cde"))[1]


@pytest.mark.parametrize("block", [1, 2, 8192])
def test_ranks_and_counts_are_those_of_the_table(pool, monkeypatch, block):
    monkeypatch.setattr(module, "QUESTIONS_PER_BLOCK", block)
    assert best_ranks(pool, np.arange(3)).tolist() == [3, 2, np.iinfo(np.int64).max]
    rows = dict(pool_section(pool, Policy(2, rank_max=2, absolute_margin=0.0)).rows)
    assert rows == {
        "questions": "3",
        "candidates of each": "4",
        "an answer among the first 1": "0.0%",
        "negatives taken": "2",  # p: what is below 2 is not found; q: d and a or c; r: none is below 0
        "of each question, mean": "0.67 of 2 wanted",
        "questions without a negative": "2 (66.7%)",
    }


def test_twins_are_counted_where_they_are_known(pool):
    twins = np.zeros(pool.candidates.shape, np.uint8)
    twins[0, 0] = twins[2, 3] = 4
    rows = dict(pool_section(Pool(**{**pool.__dict__, "twins": twins}), Policy(2, rank_max=2)).rows)
    assert rows["candidates much like an answer"] == "2"
