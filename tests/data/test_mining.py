import json
import logging

import numpy as np
import pytest
from table_miner import TableMiner, some_pairs

from crossrank.data import cache
from crossrank.data.cache import cached, contents
from crossrank.data.miners.bm25 import BM25Miner
from crossrank.data.miners.embedding import EmbeddingMiner
from crossrank.data.mining import Pool, mine
from crossrank.data.pairs import PairIndex, QAPairs
from crossrank.errors import DataError


def visible(folder):
    return sorted(file.name for file in folder.iterdir() if file.is_dir() and not file.name.endswith(".unfinished"))


@pytest.mark.parametrize("nan_at", [(2, 3), (2, slice(None)), (slice(None), slice(None)), (slice(None), 1)])
def test_scores_that_are_no_numbers_are_refused_and_leave_nothing(tmp_path, nan_at):
    table = np.linspace(0, 1, 24, dtype=np.float32).reshape(4, 6)
    table[nan_at] = np.nan
    index = PairIndex.of(QAPairs(list("abcd"), list("efgh")), extra_documents=["i", "j"])
    for depth in (1, 9):
        with pytest.raises(DataError, match="NaN scores"):
            cached(tmp_path / "pool", lambda folder, depth=depth: mine(index, TableMiner(table), depth, folder))
        assert visible(tmp_path) == []


def test_a_positive_whose_score_is_no_number_is_refused(tmp_path):
    class Broken(TableMiner):
        def search(self, *arguments, **options):
            for block in super().search(*arguments, **options):
                yield block._replace(positive_scores=[np.float32([np.nan]) for _ in block.positive_scores])

    with pytest.raises(DataError, match="Broken gave NaN scores near question 0"):
        mine(PairIndex.of(QAPairs(list("ab"), list("cd"))), Broken(np.eye(2)), 1, tmp_path)


@pytest.mark.parametrize("killed_after", [0, 1, 2, 3])
def test_an_interrupted_mine_leaves_no_pool_and_the_next_one_goes_on_where_it_stopped(
    tmp_path, monkeypatch, killed_after
):
    rng = np.random.default_rng(0)
    questions = ["a", "b", "a", "c", "d", "e", "f", "g", "g"]  # 7, some with two answers
    index = PairIndex.of(QAPairs(questions, list("hijklmnop")))
    table = rng.normal(size=(7, 9))
    (tmp_path / "whole").mkdir()
    mine(index, TableMiner(table), 3, tmp_path / "whole")
    monkeypatch.setattr(cache.Unfinished.__init__, "__defaults__", (0.0,))  # every block is saved

    pool = tmp_path / "pool"
    with pytest.raises(KeyboardInterrupt):
        cached(pool, lambda to: mine(index, TableMiner(table, blocks=killed_after), 3, to), resumable=True)
    assert visible(tmp_path) == ["whole"]
    again = TableMiner(table)
    cached(pool, lambda to: mine(index, again, 3, to), resumable=True)
    assert again.starts == [2 * killed_after]
    for file in (tmp_path / "whole").glob("*.npy"):
        assert file.read_bytes() == (pool / file.name).read_bytes(), file.name
    assert contents(pool) == contents(tmp_path / "whole")


def test_what_was_written_after_the_last_save_is_written_anew(tmp_path, monkeypatch):
    """As after a power cut: the count is older than the files."""
    index = PairIndex.of(QAPairs(list("abcdef"), list("ghijkl")))
    table = np.random.default_rng(1).normal(size=(6, 6))
    monkeypatch.setattr(cache.Unfinished.__init__, "__defaults__", (0.0,))
    with pytest.raises(KeyboardInterrupt):
        mine(index, TableMiner(table, blocks=2), 2, tmp_path)
    (tmp_path / "unfinished.json").write_text('{"done": 2}')
    scores = bytearray((tmp_path / "scores.npy").read_bytes())
    scores[-20:] = bytes(20)
    (tmp_path / "scores.npy").write_bytes(scores)
    mine(index, again := TableMiner(table), 2, tmp_path)
    assert again.starts == [2]
    assert Pool.open(tmp_path).candidates[:, 0].tolist() == table.argmax(axis=1).tolist()
    np.testing.assert_array_equal(Pool.open(tmp_path).scores[:, 0], np.float32(table).max(axis=1))


@pytest.mark.parametrize("start", [0, 256, 300])
def test_a_miner_can_begin_with_any_question(static_embedder, tmp_path, start):
    pairs = some_pairs(2, count=400)
    index = PairIndex.of(pairs)
    positives = [index.positives_of(q) for q in range(len(index.questions))]
    for miner in (BM25Miner(), EmbeddingMiner(str(static_embedder))):
        whole, part = (
            np.concatenate(
                [b.ids for b in miner.search(index.questions, index.documents, 5, positives, first, tmp_path)]
            )
            for first in (0, start)
        )
        np.testing.assert_array_equal(part, whole[start:])


def test_a_pool_holds_the_scores_of_every_positive_also_of_those_not_found(tmp_path):
    index = PairIndex.of(QAPairs(["p", "p", "q"], ["a", "b", "a"]), extra_documents=list("cdefg"))
    mine(index, TableMiner([[0.1, 0.9, 0.5, 0.5, 0.5, 0.2, 0.3], [0, 1, 2, 3, 4, 5, 6]]), 1, tmp_path)
    pool = Pool.open(tmp_path)
    assert pool.candidates.tolist() == [[1, 2, 3], [6, 5, 4]]  # one, and room for the two positives of p
    assert pool.positive_offsets.tolist() == [0, 2, 3]
    assert pool.positives.tolist() == [0, 1, 0]
    np.testing.assert_array_equal(pool.positive_scores, np.float32([0.1, 0.9, 0]))
    ids, scores, rows = pool.positives_of(np.array([1, 0, 1]))
    assert (ids.tolist(), rows.tolist()) == ([0, 0, 1, 0], [0, 1, 1, 2])
    np.testing.assert_array_equal(scores, np.float32([0, 0.1, 0.9, 0]))


def test_more_candidates_than_documents_are_all_documents_and_a_warning(tmp_path, caplog):
    index = PairIndex.of(QAPairs(list("ab"), list("cd")))
    mine(index, TableMiner(np.eye(2)), 100, tmp_path)
    assert Pool.open(tmp_path).candidates.tolist() == [[0, 1], [1, 0]]
    warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warned == ["100 candidates a question are wanted of 2 documents: all of them are candidates"]
    facts = json.loads((tmp_path / "pool.json").read_text())
    assert (facts["questions"], facts["documents"], facts["depth"]) == (2, 2, 2)
