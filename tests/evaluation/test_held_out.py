"""HeldOut against the recipe's dev mining done by sentence_transformers.util.mine_hard_negatives."""

from dataclasses import dataclass, field

import datasets
import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import mine_hard_negatives

from crossrank.data.miners.bm25 import BM25Miner
from crossrank.data.miners.embedding import EmbeddingMiner
from crossrank.data.miners.none import NoMiner
from crossrank.data.mining import Candidates
from crossrank.data.pairs import QAPairs, Splits
from crossrank.data.search import NO_CANDIDATE
from crossrank.errors import DataError
from crossrank.evaluation.held_out import HeldOut
from crossrank.hub import Asset

WORDS = [
    first + second for first in "bdfgklmnprst" for second in ("ane", "ill", "ook", "ust", "eam", "ide", "oat", "end")
]
DEPTH = 8


@dataclass(frozen=True)
class GivenPairs:
    """A source of the given pairs."""

    splits: Splits
    name: str = "given"

    def assets(self):
        return (Asset("dataset", "nowhere/at-all"),)

    def fingerprint(self):
        return self.name

    def load(self):
        return self.splits


def random_pairs(count, seed):
    draws = np.random.default_rng(seed)

    def text():
        return " ".join(draws.choice(WORDS, draws.integers(3, 9)))

    return QAPairs([text() for _ in range(count)], [text() for _ in range(count)])


def seen(evaluator):
    asked = {}

    def score(pairs):
        for question, text in pairs:
            asked.setdefault(question, []).append(text)
        return np.zeros(len(pairs), np.float32)

    evaluator(score)
    return asked


def relevant_found(pairs, asked):
    return [q for q, a in zip(pairs.questions, pairs.answers, strict=True) if a in asked.get(q, [])]


@pytest.mark.filterwarnings("ignore:.*n-tuple.*")
def test_candidates_are_those_of_the_recipe(tmp_path, static_embedder):
    train, dev = random_pairs(90, seed=1), random_pairs(40, seed=2)
    evaluator = HeldOut(
        "dev", GivenPairs(Splits(train, dev)), EmbeddingMiner(str(static_embedder)), str(tmp_path), DEPTH
    )
    mined = mine_hard_negatives(
        datasets.Dataset.from_dict({"question": list(dev.questions), "answer": list(dev.answers)}),
        SentenceTransformer(str(static_embedder), device="cpu"),
        corpus=[*train.answers, *dev.answers],
        num_negatives=DEPTH,
        include_positives=True,
        output_format="n-tuple",
        use_faiss=False,
        verbose=False,
    )
    expected = {row["question"]: [row[f"negative_{i}"] for i in range(1, DEPTH + 1)] for row in mined}
    assert len(expected) == 40
    asked = seen(evaluator)
    found = relevant_found(dev, expected)
    assert 0 < len(found) < 40  # random embeddings find some answers
    assert sorted(asked) == sorted(found)  # a question whose answer is not among them is not scored, and counts 0
    assert asked == {question: expected[question] for question in found}
    rows = evaluator(lambda pairs: np.zeros(len(pairs), np.float32)).rows
    assert rows["query_id"].nunique() == 40
    missed = rows.groupby("query_id")["value"].max() == 0
    assert missed.sum() >= 40 - len(found)


def test_a_positive_is_not_put_in_unless_asked_for(tmp_path, static_embedder):
    source = GivenPairs(Splits(random_pairs(90, seed=1), random_pairs(40, seed=2)))
    evaluator = HeldOut(
        "dev", source, EmbeddingMiner(str(static_embedder)), str(tmp_path), DEPTH, always_rerank_positives=True
    )
    asked = seen(evaluator)
    dev = source.splits.dev
    assert len(asked) == 40
    for question, answer in zip(dev.questions, dev.answers, strict=True):
        assert asked[question][0] == answer
        assert len(asked[question]) in (DEPTH, DEPTH + 1)


@dataclass
class CountingMiner:
    """Finds documents in the order of their ids; counts how often it is asked."""

    name: str = "counting"
    calls: list = field(default_factory=list)

    def assets(self):
        return (Asset("model", "nowhere/else"),)

    def fingerprint(self):
        return self.name

    def search(self, questions, documents, k, positives, start=0, cache_dir=None):
        self.calls.append((len(questions), len(documents), k))
        width = min(k, len(documents))
        ids = np.full((len(questions), k), NO_CANDIDATE, np.int32)
        scores = np.full((len(questions), k), -np.inf, np.float32)
        ids[:, :width] = np.arange(width)
        scores[:, :width] = -np.arange(width)
        yield Candidates(ids, scores, [-own.astype(np.float32) for own in positives])


def small_source(name="given"):
    dev = QAPairs(["q1", "q2", "q1"], ["a1", "a2", "a3"])  # q1 has two answers
    return GivenPairs(Splits(QAPairs(["t1", "t2"], ["a1", "b2"]), dev), name)


def test_documents_are_the_distinct_answers_of_train_and_dev(tmp_path):
    miner = CountingMiner()
    evaluator = HeldOut("dev", small_source(), miner, str(tmp_path), depth=4)
    evaluator.prepare()
    (call,) = miner.calls
    assert call[:2] == (2, 4)  # q1, q2; a1 (of both splits, once), a2, a3, b2
    assert {question: set(texts) for question, texts in seen(evaluator).items()} == {
        "q1": {"a1", "a2", "a3", "b2"},
        "q2": {"a1", "a2", "a3", "b2"},
    }


def test_a_question_with_two_answers_is_one_query_with_two_positives(tmp_path):
    """Ranked a1 a2 a3 b2; q1 is answered by a1 and a3, q2 by a2."""
    evaluator = HeldOut("dev", small_source(), CountingMiner(), str(tmp_path), depth=4)
    rows = evaluator(lambda pairs: np.arange(len(pairs), 0, -1, dtype=np.float32)).rows
    maps = rows[rows["metric"] == "map"].set_index("query_id")
    assert list(maps.index) == ["dev-0", "dev-1"]
    assert list(maps["base_value"]) == pytest.approx([(1 + 2 / 3) / 2, 1 / 2])
    assert list(maps["value"]) == pytest.approx([(1 + 2 / 3) / 2, 1 / 2])


def test_depth_cuts_the_list(tmp_path):
    assert seen(HeldOut("dev", small_source(), CountingMiner(), str(tmp_path), depth=2)) == {
        "q1": ["a1", "a2"],
        "q2": ["a1", "a2"],
    }


def test_mining_happens_once_per_source_miner_and_depth(tmp_path):
    miner = CountingMiner()
    for _ in range(2):
        HeldOut("dev", small_source(), miner, str(tmp_path), depth=4).prepare()
    assert len(miner.calls) == 1
    HeldOut("dev", small_source(), miner, str(tmp_path), depth=3).prepare()
    HeldOut("dev", small_source("other"), miner, str(tmp_path), depth=4).prepare()
    HeldOut("dev", small_source(), CountingMiner("other", miner.calls), str(tmp_path), depth=4).prepare()
    assert len(miner.calls) == 4


def test_nothing_is_loaded_before_prepare_and_both_assets_are_named(tmp_path):
    miner = CountingMiner()
    evaluator = HeldOut("dev", small_source(), miner, str(tmp_path))
    assert [asset.path for asset in evaluator.assets()] == ["nowhere/at-all", "nowhere/else"]
    assert list(evaluator.datasets) == ["dev"]
    assert miner.calls == []
    assert list(tmp_path.iterdir()) == []


def test_a_miner_that_finds_no_answer_at_all_is_a_data_error(tmp_path):
    source = GivenPairs(Splits(QAPairs(["t"], ["b"]), QAPairs([f"q{i}" for i in range(3)], ["x", "y", "z"])))

    class Blind(CountingMiner):
        def search(self, questions, documents, k, positives, start=0, cache_dir=None):
            for block in super().search(questions, documents, k, positives):
                yield block._replace(ids=np.full_like(block.ids, documents.index("b")))

    with pytest.raises(DataError, match="dev: no query has a relevant document"):
        HeldOut("dev", source, Blind(), str(tmp_path), depth=2).prepare()


@pytest.mark.parametrize("options", [{"depth": 1}, {"depth": 0}, {"at_k": 0}])
def test_impossible_settings_are_refused(tmp_path, options):
    with pytest.raises(ValueError, match="depth must be at least 2 and at_k at least 1"):
        HeldOut("dev", small_source(), BM25Miner(), str(tmp_path), **options)


def test_without_a_miner_there_is_nothing_to_rerank(tmp_path):
    with pytest.raises(ValueError, match="miner=none finds nothing to rerank; evaluators=held_out lets BM25"):
        HeldOut("dev", GivenPairs(Splits(random_pairs(3, 1), random_pairs(3, 2))), NoMiner(), str(tmp_path))


def test_of_labelled_documents_those_above_0_are_relevant(tmp_path):
    train, dev = random_pairs(9, seed=1), QAPairs(["q", "q"], ["bane dill", "cook"], np.float32([0, 2]))
    evaluator = HeldOut("dev", GivenPairs(Splits(train, dev)), CountingMiner(), str(tmp_path), DEPTH)
    (task,) = evaluator.tasks
    assert [task.documents[d] for d in task.qrels["dev-0"]] == ["cook"]
    assert set(task.documents) == set(task.candidates["dev-0"])  # texts that nobody looks at are not held
