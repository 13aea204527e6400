import datasets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import mine_hard_negatives

from crossrank.data.cache import cached
from crossrank.data.miners.embedding import EmbeddingMiner
from crossrank.data.mining import NO_CANDIDATE, Candidates, Policy, Pool, mine, top_k
from crossrank.data.pairs import PairIndex, QAPairs
from crossrank.errors import DataError

WORDS = ["cat", "dog", "river", "stone", "music", "iron", "paper", "cloud", "winter", "engine", "bread", "ocean"]


class TableMiner:
    """Looks the scores up in a table, two questions at a time."""

    def __init__(self, table, blocks: int | None = None) -> None:
        self.table = np.asarray(table, np.float32)
        self.blocks = blocks

    def search(self, questions, documents, k, positives):
        for number, start in enumerate(range(0, len(questions), 2)):
            if number == self.blocks:
                raise KeyboardInterrupt
            block = self.table[start : start + 2]
            ids, scores = top_k(block, k)
            yield Candidates(ids, scores, [row[positives[start + i]] for i, row in enumerate(block)])


def some_pairs(seed: int, count: int = 60) -> QAPairs:
    """Return pairs of random words: some questions have several answers, some answers several questions."""
    rng = np.random.default_rng(seed)
    questions = [" ".join(rng.choice(WORDS, 3)) for _ in range(count)]
    answers = [" ".join(rng.choice(WORDS, 6)) for _ in range(count)]
    questions[10:14] = questions[3:4] * 4
    questions[20] = questions[5]
    answers[30:32] = answers[2:3] * 2
    return QAPairs(questions, answers)


def mined(pairs: QAPairs, miner, depth: int, folder) -> tuple[PairIndex, Pool]:
    index = PairIndex.of(pairs)
    folder.mkdir()
    mine(index, miner, depth, folder)
    return index, Pool.open(folder)


def reference_negatives(pairs: QAPairs, embedder, policy: Policy) -> dict[str, list[str]]:
    rows = mine_hard_negatives(
        datasets.Dataset.from_dict({"question": pairs.questions, "answer": pairs.answers}),
        SentenceTransformer(str(embedder), device="cpu"),
        range_min=policy.rank_min, range_max=policy.rank_max, absolute_margin=policy.margin,
        num_negatives=policy.negatives, sampling_strategy="top", output_format="labeled-pair", verbose=False,
    )  # fmt: skip
    negatives: dict[str, list[str]] = {question: [] for question in pairs.questions}
    for row in rows:
        if not row["label"]:
            negatives[row["question"]].append(row["answer"])
    return negatives


@pytest.mark.parametrize(
    "policy",
    [
        Policy(),  # deeper than there are documents
        Policy(negatives=5, rank_max=100, margin=0.0),  # the recipe
        Policy(negatives=2, rank_max=6),
        Policy(negatives=3, rank_min=2, rank_max=8, margin=0.1),
        Policy(negatives=1, rank_max=3, margin=0.0),
        Policy(negatives=4, rank_min=1, rank_max=5, margin=-0.3),
        Policy(negatives=6, rank_min=5, rank_max=20, margin=0.0),
    ],
    ids=str,
)
@pytest.mark.parametrize("deeper", [0, 7])
def test_negatives_are_those_of_sentence_transformers(static_embedder, tmp_path, policy, deeper):
    pairs = some_pairs(seed=policy.negatives)
    index, pool = mined(pairs, EmbeddingMiner(str(static_embedder)), policy.rank_max + deeper, tmp_path / "pool")
    chosen = policy.select(pool, 0, len(pool))
    got = {
        question: [index.documents[d] for d in row if d != NO_CANDIDATE]
        for question, row in zip(index.questions, chosen, strict=True)
    }
    wanted = reference_negatives(pairs, static_embedder, policy)
    assert got == wanted
    if policy.margin is not None:
        assert any(len(negatives) < policy.negatives for negatives in wanted.values())  # the margin was put to work


def test_a_margin_cuts_inside_the_raw_pool_so_a_low_ranked_answer_leaves_no_negative(tmp_path):
    pairs = QAPairs(["q0", "q1"], ["a0", "a1"])
    index = PairIndex.of(pairs, extra_documents=["b", "c", "d", "e"])
    table = [[0.5, 0.9, 0.8, 0.7, 0.6, 0.1], [0.2, 0.6, 0.6, 0.5, 0.4, 0.61]]
    mine(index, TableMiner(table), 3, tmp_path)  # depth 3, and one place for the answer
    pool = Pool.open(tmp_path)
    assert pool.candidates.tolist() == [[1, 2, 3, 4], [5, 1, 2, 3]]
    assert Policy(negatives=3, rank_max=3, margin=0.0).select(pool, 0, 2).tolist() == [[-1, -1, -1], [2, 3, -1]]
    assert Policy(negatives=3, rank_max=3).select(pool, 0, 2).tolist() == [[1, 2, 3], [5, 2, 3]]
    assert Policy(negatives=1, rank_min=1, rank_max=3).select(pool, 0, 2).tolist() == [[2], [2]]


def test_the_lowest_scored_positive_sets_the_threshold_and_equality_is_kept(tmp_path):
    index = PairIndex.of(QAPairs(["q", "q"], ["a", "b"]), extra_documents=["c", "d", "e"])
    mine(index, TableMiner([[1.0, 0.5, 0.5, 0.25, 0.75]]), 3, tmp_path)
    pool = Pool.open(tmp_path)
    assert Policy(negatives=3, rank_max=3, margin=0.0).select(pool, 0, 1).tolist() == [[2, 3, -1]]
    assert Policy(negatives=3, rank_max=3, margin=0.25).select(pool, 0, 1).tolist() == [[3, -1, -1]]
    assert Policy(negatives=3, rank_max=3, margin=-0.25).select(pool, 0, 1).tolist() == [[4, 2, 3]]


def test_a_selection_in_parts_equals_the_whole(static_embedder, tmp_path):
    _, pool = mined(some_pairs(1), EmbeddingMiner(str(static_embedder)), 20, tmp_path / "pool")
    policy = Policy(negatives=3, rank_max=20, margin=0.0)
    parts = [policy.select(pool, start, min(start + 7, len(pool))) for start in range(0, len(pool), 7)]
    np.testing.assert_array_equal(np.concatenate(parts), policy.select(pool, 0, len(pool)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"negatives": 0}, "negatives counts documents"),
        ({"rank_min": -1}, "0 <= rank_min < rank_max"),
        ({"rank_min": 5, "rank_max": 5}, "0 <= rank_min < rank_max"),
        ({"negatives": 5, "rank_min": 6, "rank_max": 10}, "holds 4 candidates a question .* fewer than the 5"),
    ],
)
def test_an_impossible_policy_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Policy(**settings)


@pytest.mark.parametrize("nan_at", [(2, 3), (2, slice(None)), (slice(None), slice(None)), (slice(None), 1)])
def test_scores_that_are_no_numbers_are_refused_and_leave_nothing(tmp_path, nan_at):
    table = np.linspace(0, 1, 24, dtype=np.float32).reshape(4, 6)
    table[nan_at] = np.nan
    index = PairIndex.of(QAPairs(list("abcd"), list("efgh")), extra_documents=["i", "j"])
    for depth in (1, 9):
        with pytest.raises(DataError, match="NaN scores"):
            cached(tmp_path / "pool", lambda folder, depth=depth: mine(index, TableMiner(table), depth, folder))
        assert [file.name for file in tmp_path.iterdir() if file.is_dir()] == []


def test_an_interrupted_mine_leaves_no_pool_and_the_next_one_is_whole(tmp_path):
    index = PairIndex.of(QAPairs(list("abcd"), list("efgh")))
    with pytest.raises(KeyboardInterrupt):
        cached(tmp_path / "pool", lambda folder: mine(index, TableMiner(np.eye(4), blocks=1), 2, folder))
    assert [file.name for file in tmp_path.iterdir() if file.is_dir()] == []
    cached(tmp_path / "pool", lambda folder: mine(index, TableMiner(np.eye(4)), 2, folder))
    assert Pool.open(tmp_path / "pool").candidates[:, 0].tolist() == [0, 1, 2, 3]


def test_a_pool_holds_the_scores_of_every_positive_also_of_those_not_found(tmp_path):
    index = PairIndex.of(QAPairs(["p", "p", "q"], ["a", "b", "a"]), extra_documents=list("cdefg"))
    mine(index, TableMiner([[0.1, 0.9, 0.5, 0.5, 0.5, 0.2, 0.3], [0, 1, 2, 3, 4, 5, 6]]), 1, tmp_path)
    pool = Pool.open(tmp_path)
    assert pool.candidates.tolist() == [[1, 2, 3], [6, 5, 4]]  # one, and room for the two positives of p
    assert pool.positive_offsets.tolist() == [0, 2, 3]
    assert pool.positives.tolist() == [0, 1, 0]
    np.testing.assert_array_equal(pool.positive_scores, np.float32([0.1, 0.9, 0]))


few_values = st.sampled_from([0.0, 0.5, 1.0, -1.0, 1e-30]) | st.floats(-2, 2, width=32)
tables = arrays.arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 12)), elements=few_values)


@settings(deadline=None, max_examples=200)
@given(scores=tables, k=st.integers(1, 15))
def test_top_k_equals_a_sort_by_score_then_id(scores, k):
    ids, top = top_k(scores, k)
    documents = scores.shape[1]
    for row in range(len(scores)):
        best = sorted(range(documents), key=lambda d: (-scores[row, d], d))[:k]
        padding = k - len(best)
        assert ids[row].tolist() == best + [NO_CANDIDATE] * padding
        assert top[row].tolist() == [scores[row, d] for d in best] + [-np.inf] * padding


def test_equal_scores_at_the_cut_are_settled_by_id():
    ids, _ = top_k(np.float32([[1, 2, 1, 3, 1, 1], [7, 7, 7, 7, 7, 7]]), 4)
    assert ids.tolist() == [[3, 1, 0, 2], [0, 1, 2, 3]]


def test_spread_takes_every_nth_of_what_is_left_from_the_best_on(tmp_path):
    """11 documents, the answer is the 3rd best; ranks 1 to 9 of the other 10 are left: 9 of them, places 0, 3, 6."""
    pairs = QAPairs(["q"], ["d2"])
    index = PairIndex.of(pairs, extra_documents=["d0", "d1", *(f"d{i}" for i in range(3, 11))])
    names = list(index.documents)
    table = [[100.0 - int(name.removeprefix("d")) for name in names]]
    folder = tmp_path / "pool"
    folder.mkdir()
    mine(index, TableMiner(table), 10, folder)
    chosen = Policy(3, rank_min=1, rank_max=10, sampling="spread").select(Pool.open(folder), 0, 1)
    assert [names[i] for i in chosen[0]] == ["d1", "d5", "d8"]


def test_spread_is_top_where_no_more_are_left_than_wanted(tmp_path):
    _, pool = mined(some_pairs(3), TableMiner(np.random.default_rng(0).normal(size=(60, 60))), 6, tmp_path / "pool")
    tight, loose = Policy(5, rank_max=5), Policy(5, rank_max=5, sampling="spread")
    assert np.array_equal(tight.select(pool, 0, len(pool)), loose.select(pool, 0, len(pool)))
