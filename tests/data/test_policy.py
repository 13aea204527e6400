import random

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import mine_hard_negatives
from table_miner import TableMiner, mined, some_pairs

from crossrank.data.miners.embedding import EmbeddingMiner
from crossrank.data.mining import Pool
from crossrank.data.pairs import PairIndex, QAPairs
from crossrank.data.policy import Policy
from crossrank.data.search import NO_CANDIDATE


def taken(policy: Policy, pool: Pool, epoch: int = 0) -> np.ndarray:
    return policy.select(pool, np.arange(len(pool)), epoch).documents


def as_texts(index: PairIndex, chosen) -> dict[str, list[str]]:
    return {
        question: [index.documents[d] for d in row if d != NO_CANDIDATE]
        for question, row in zip(index.questions, chosen, strict=True)
    }


# --- against sentence_transformers.util.mine_hard_negatives


class TableModel:
    """What mine_hard_negatives asks of a model; question and document have exactly the score that the table says."""

    device = torch.device("cpu")

    def __init__(self, table: np.ndarray) -> None:
        self.table = table

    def encode_query(self, texts, **_):
        return np.eye(len(self.table), dtype=np.float32)[[int(text[1:]) for text in texts]]

    def encode_document(self, texts, **_):
        return self.table.T[[int(text[1:]) for text in texts]]

    def similarity(self, a, b):
        return torch.as_tensor(a) @ torch.as_tensor(b).T

    def similarity_pairwise(self, a, b):
        return (torch.as_tensor(a) * torch.as_tensor(b)).sum(1)


def reference(pairs: QAPairs, corpus, model, policy: Policy, output_format: str) -> list[dict]:
    """Return the rows that sentence-transformers makes, without its defaults and without its faults.

    Left alone here: repeated rows (it counts them among a question's positives and looks deeper: a test below), a
    cross-encoder without a threshold (silently unused), float noise between the scores of positives and candidates
    (the table has none), range_max's own default, the statistics that divide by zero where a margin leaves no
    candidate to the next filter (raised here as ZeroDivisionError).
    """
    return mine_hard_negatives(
        datasets.Dataset.from_dict({"question": list(pairs.questions), "answer": list(pairs.answers)}),
        model, corpus=corpus, range_min=policy.rank_min, range_max=policy.rank_max,
        absolute_margin=policy.absolute_margin, relative_margin=policy.relative_margin, max_score=policy.max_score,
        min_score=policy.min_score, num_negatives=policy.negatives, sampling_strategy=policy.sampling,
        include_positives=policy.include_positives, output_format=output_format, verbose=False,
    ).to_list()  # fmt: skip


def negatives_by_question(rows: list[dict], pairs: QAPairs, output_format: str) -> dict[str, list[list[str]]]:
    """Return for each question the lists of negatives that the rows give it, one for each of its positives."""
    found: dict[str, dict[str, list[str]]] = {question: {} for question in pairs.questions}
    for row in rows:
        of_question = found[row["question"]]
        if output_format == "labeled-pair":
            of_question.setdefault("all", []).extend([row["answer"]] if not row["label"] else [])
        elif output_format == "triplet":
            of_question.setdefault(row["answer"], []).append(row["negative"])
        elif output_format == "n-tuple":
            of_question[row["answer"]] = [row[key] for key in row if key.startswith("negative_")]
        else:
            documents = row["answer"]
            of_question[documents[0]] = [d for d, label in zip(documents, row["labels"], strict=True) if not label]
    return {question: list(lists.values()) for question, lists in found.items()}


sixteenths = st.integers(-32, 32).map(lambda n: n / 16)
maybe = st.none() | sixteenths


@st.composite
def problems(draw):
    questions, answers = draw(st.integers(1, 5)), draw(st.integers(2, 12))
    count = draw(st.integers(1, 8))
    pair = st.tuples(st.integers(0, questions - 1), st.integers(0, answers - 1))
    drawn = dict.fromkeys(draw(st.lists(pair, min_size=count, max_size=count)))  # without repeated rows
    names = {q: i for i, q in enumerate(dict.fromkeys(q for q, _ in drawn))}
    pairs = QAPairs([f"q{names[q]}" for q, _ in drawn], [f"d{d}" for _, d in drawn])
    seed = draw(st.integers(0, 2**16))
    rng = np.random.default_rng(seed)
    table = np.stack([rng.permutation(64)[:answers] - 32 for _ in names]).astype(np.float32) / 16  # no ties in a row
    low = draw(st.integers(0, 4))
    high = low + draw(st.integers(1, 12))
    low_score, high_score = sorted(draw(st.tuples(sixteenths, sixteenths)))
    policy = Policy(
        negatives=draw(st.integers(1, high - low)), rank_min=low, rank_max=high,
        absolute_margin=draw(maybe), relative_margin=draw(st.none() | st.sampled_from([0.0, 0.25, 0.5, -0.5])),
        min_score=draw(st.none() | st.just(low_score)), max_score=draw(st.none() | st.just(high_score)),
        include_positives=draw(st.booleans()) and draw(st.booleans()), drop_twins=False,
    )  # fmt: skip
    return pairs, [f"d{d}" for d in range(answers)], table, policy


@settings(deadline=None, max_examples=50)
@given(problem=problems())
def test_negatives_are_those_of_sentence_transformers_in_each_of_its_formats(tmp_path_factory, problem):
    pairs, corpus, table, policy = problem
    index = PairIndex.of(pairs, extra_documents=corpus)
    columns = [int(name[1:]) for name in index.documents]
    _, pool = mined(pairs, TableMiner(table[:, columns]), policy.rank_max, tmp_path_factory.mktemp("p") / "p", corpus)
    ours = as_texts(index, taken(policy, pool))
    formats = ["n-tuple"] if policy.include_positives else ["labeled-pair", "triplet", "n-tuple", "labeled-list"]
    for output_format in formats:
        try:
            rows = reference(pairs, corpus, TableModel(table), policy, output_format)
        except ZeroDivisionError:
            assert not any(ours.values())
            continue
        theirs = negatives_by_question(rows, pairs, output_format)
        for question, mine in ours.items():
            if output_format == "n-tuple" and len(mine) < policy.negatives:
                assert theirs[question] == []  # it keeps whole tuples only
            elif not mine:
                assert theirs[question] in ([], [[]])  # a labelled pair keeps the positive alone
            else:
                copies = 1 if output_format == "labeled-pair" else len(set(pairs_of(pairs, question)))
                assert theirs[question] == [mine] * copies


def pairs_of(pairs: QAPairs, question: str) -> list[str]:
    return [a for q, a in zip(pairs.questions, pairs.answers, strict=True) if q == question]


@settings(deadline=None, max_examples=30)
@given(problem=problems(), seed=st.integers(0, 99))
def test_random_negatives_are_as_many_as_theirs_and_of_the_same_survivors(tmp_path_factory, problem, seed):
    pairs, corpus, table, policy = problem
    options = {**policy.__dict__, "include_positives": False}
    drawn = Policy(**{**options, "sampling": "random", "seed": seed})
    everything = Policy(**{**options, "negatives": policy.rank_max - policy.rank_min})
    index = PairIndex.of(pairs, extra_documents=corpus)
    columns = [int(name[1:]) for name in index.documents]
    _, pool = mined(pairs, TableMiner(table[:, columns]), policy.rank_max, tmp_path_factory.mktemp("p") / "p", corpus)
    survivors, ours = as_texts(index, taken(everything, pool)), as_texts(index, taken(drawn, pool))
    random.seed(seed)
    try:
        rows = reference(pairs, corpus, TableModel(table), drawn, "labeled-pair")
    except ZeroDivisionError:
        assert not any(ours.values())
        return
    theirs = negatives_by_question(rows, pairs, "labeled-pair")
    for question, mine in ours.items():
        assert mine == [d for d in survivors[question] if d in mine]  # some of them, best first
        assert [len(found) for found in theirs[question]] == [len(mine)]


def test_a_repeated_row_makes_sentence_transformers_look_deeper_and_this_not(tmp_path):
    """Its fault: it sizes the search by a question's rows, not by its distinct positives."""
    table = np.float32([[5, 9, 8, 7, 6]]) / 16
    corpus = [f"d{d}" for d in range(5)]
    policy = Policy(negatives=1, rank_max=1, absolute_margin=-2 / 16, drop_twins=False)  # passes d3 and d4
    once, twice = (QAPairs(["q0"] * rows, ["d0"] * rows) for rows in (1, 4))
    index, pool = mined(twice, TableMiner(table), 3, tmp_path / "p", corpus)
    assert as_texts(index, taken(policy, pool)) == {"q0": []}  # the raw best two are d1 and d2
    assert reference(once, corpus, TableModel(table), policy, "triplet") == []
    assert [row["negative"] for row in reference(twice, corpus, TableModel(table), policy, "triplet")] == ["d3"]


@pytest.mark.parametrize("policy", [Policy(5, absolute_margin=0.0, drop_twins=False), Policy(3, 1, 9)], ids=str)
def test_negatives_of_real_embeddings_are_those_of_sentence_transformers(static_embedder, tmp_path, policy):
    pairs = some_pairs(seed=policy.negatives)
    index, pool = mined(pairs, EmbeddingMiner(str(static_embedder)), policy.rank_max + 7, tmp_path / "pool")
    model = SentenceTransformer(str(static_embedder), device="cpu")
    theirs = negatives_by_question(reference(pairs, None, model, policy, "labeled-pair"), pairs, "labeled-pair")
    assert {question: [found] for question, found in as_texts(index, taken(policy, pool)).items()} == theirs


# --- ranks and margins by hand


def test_a_margin_cuts_inside_the_raw_pool_so_a_low_ranked_answer_leaves_no_negative(tmp_path):
    table = [[0.5, 0.9, 0.8, 0.7, 0.6, 0.1], [0.2, 0.6, 0.6, 0.5, 0.4, 0.61]]
    _, pool = mined(QAPairs(["q0", "q1"], ["a0", "a1"]), TableMiner(table), 3, tmp_path / "p", ["b", "c", "d", "e"])
    assert pool.candidates.tolist() == [[1, 2, 3, 4], [5, 1, 2, 3]]  # depth 3, and one place for the answer
    assert taken(Policy(3, rank_max=3, absolute_margin=0.0), pool).tolist() == [[-1, -1, -1], [2, 3, -1]]
    assert taken(Policy(3, rank_max=3), pool).tolist() == [[1, 2, 3], [5, 2, 3]]
    assert taken(Policy(1, rank_min=1, rank_max=3), pool).tolist() == [[2], [2]]


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"absolute_margin": 0.0}, [2, 3, -1]),
        ({"absolute_margin": 0.25}, [3, -1, -1]),
        ({"absolute_margin": -0.25}, [4, 2, 3]),
        ({"relative_margin": 0.5}, [3, -1, -1]),
        ({"relative_margin": -0.5}, [4, 2, 3]),
        ({"max_score": 0.5}, [2, 3, -1]),
        ({"min_score": 0.5}, [4, 2, -1]),
        ({"min_score": 0.5, "max_score": 0.5}, [2, -1, -1]),
        ({"include_positives": True}, [0, 4, 1]),
        ({"include_positives": True, "absolute_margin": 0.0}, [1, 2, 3]),
    ],
)
def test_the_lowest_scored_positive_sets_the_threshold_and_equality_is_kept(tmp_path, settings, wanted):
    """Positives a (1.0) and b (0.5); c, d, e score 0.5, 0.25 and 0.75."""
    table = [[1.0, 0.5, 0.5, 0.25, 0.75]]
    _, pool = mined(QAPairs(["q", "q"], ["a", "b"]), TableMiner(table), 3, tmp_path / "p", ["c", "d", "e"])
    policy = Policy(3, rank_max=3, **settings)
    chosen = policy.select(pool, np.arange(1))
    assert chosen.documents.tolist() == [wanted]
    assert chosen.positive.tolist() == [[d in (0, 1) for d in wanted]]
    np.testing.assert_array_equal(chosen.relevant, chosen.positive)


def test_a_relative_margin_is_of_the_size_of_the_score_also_below_zero(tmp_path):
    """t = -1: half of |t| below it is -1.5."""
    _, pool = mined(QAPairs(["q"], ["a"]), TableMiner([[-1, -1.25, -1.5, -1.75]]), 3, tmp_path / "p", list("bcd"))
    assert taken(Policy(3, rank_max=3, relative_margin=0.5), pool).tolist() == [[2, 3, -1]]


def test_a_selection_of_any_questions_equals_the_whole(static_embedder, tmp_path):
    _, pool = mined(some_pairs(1), EmbeddingMiner(str(static_embedder)), 20, tmp_path / "pool")
    for policy in (Policy(3, rank_max=20, absolute_margin=0.0), Policy(3, rank_max=20, sampling="random", fresh=True)):
        whole = taken(policy, pool, epoch=4)
        for questions in ([0], [5, 3, 3, len(pool) - 1], range(7, 20)):
            part = policy.select(pool, np.array(questions), epoch=4).documents
            np.testing.assert_array_equal(part, whole[list(questions)])


# --- sampling


def test_spread_takes_every_nth_of_what_is_left_from_the_best_on(tmp_path):
    """11 documents, the answer is the 3rd best; ranks 1 to 9 of the other 10 are left: 9 of them, places 0, 3, 6."""
    extra = ["d0", "d1", *(f"d{i}" for i in range(3, 11))]
    table = [[100.0 - int(name[1:]) for name in ["d2", *extra]]]
    index, pool = mined(QAPairs(["q"], ["d2"]), TableMiner(table), 10, tmp_path / "p", extra)
    chosen = taken(Policy(3, rank_min=1, rank_max=10, sampling="spread"), pool)
    assert as_texts(index, chosen) == {"q": ["d1", "d5", "d8"]}


@pytest.mark.parametrize("sampling", ["spread", "random", "stratified"])
def test_every_sampling_is_top_where_no_more_are_left_than_wanted(tmp_path, sampling):
    _, pool = mined(some_pairs(3), TableMiner(np.random.default_rng(0).normal(size=(60, 60))), 6, tmp_path / "pool")
    tight, loose = Policy(5, rank_max=5), Policy(5, rank_max=5, sampling=sampling)
    np.testing.assert_array_equal(taken(tight, pool), taken(loose, pool))


@pytest.fixture(scope="module")
def wide(tmp_path_factory) -> Pool:
    """400 questions with 60 other documents each; document d has rank d - 1."""
    pairs = QAPairs([f"q{i}" for i in range(400)], ["a"] * 400)
    table = np.tile(-np.arange(61, dtype=np.float32), (400, 1))
    return mined(pairs, TableMiner(table), 60, tmp_path_factory.mktemp("wide") / "p", [f"d{i}" for i in range(60)])[1]


def test_random_negatives_are_distinct_uniform_and_best_first(wide):
    chosen = taken(Policy(4, rank_max=60, sampling="random"), wide)
    assert (np.diff(chosen, axis=1) > 0).all()
    counts = np.bincount(chosen.ravel() - 1, minlength=60)  # each expected 400 * 4 / 60 = 26.7 times
    assert ((counts - 400 * 4 / 60) ** 2 / (400 * 4 / 60)).sum() < 98.3  # chi-squared, 59 degrees of freedom, p = 0.001


def test_stratified_negatives_are_one_of_each_range_of_ranks(wide):
    chosen = taken(Policy(4, rank_max=60, sampling="stratified"), wide) - 1
    np.testing.assert_array_equal(chosen // 15, np.tile(np.arange(4), (400, 1)))
    inside = np.bincount(chosen.ravel() % 15, minlength=15)  # each expected 106.7 times
    assert ((inside - 400 * 4 / 15) ** 2 / (400 * 4 / 15)).sum() < 36.1  # 14 degrees of freedom, p = 0.001


@pytest.mark.parametrize("sampling", ["random", "stratified"])
def test_fresh_negatives_differ_by_epoch_and_the_draw_is_a_function_of_the_seed(wide, sampling):
    fresh = Policy(4, rank_max=60, sampling=sampling, fresh=True)
    first, second = taken(fresh, wide, 0), taken(fresh, wide, 1)
    assert (first != second).mean() > 0.8
    np.testing.assert_array_equal(second, taken(fresh, wide, 1))
    assert (taken(Policy(4, rank_max=60, sampling=sampling, fresh=True, seed=13), wide) != first).mean() > 0.8
    stale = Policy(4, rank_max=60, sampling=sampling)
    np.testing.assert_array_equal(taken(stale, wide, 0), taken(stale, wide, 1))
    assert len({tuple(row) for row in first.tolist()}) > 200  # another draw for each question


# --- twins and teachers


def test_twins_of_an_answer_are_no_negatives_unless_they_may(tmp_path):
    _, pool = mined(QAPairs(["q"], ["a"]), TableMiner([[9, 8, 7, 6, 5]]), 4, tmp_path / "p", list("bcde"))
    twins = np.uint8([[0, 1, 0, 4, 0]])  # of the candidates a, b, c, d, e: b equals the answer, d contains it
    pool = Pool(**{**pool.__dict__, "twins": twins})
    assert taken(Policy(3, rank_max=4), pool).tolist() == [[2, 4, -1]]
    assert taken(Policy(3, rank_max=4, drop_twins=False), pool).tolist() == [[1, 2, 3]]


def test_a_teacher_drops_or_relabels_what_it_calls_relevant_and_what_it_has_not_seen_is_not_taken(tmp_path):
    _, pool = mined(QAPairs(["q"], ["a"]), TableMiner([[9, 8, 7, 6, 5]]), 4, tmp_path / "p", list("bcde"))
    pool = Pool(**{**pool.__dict__, "teacher": np.float32([[np.nan, 0.95, 0.2, 0.9, np.nan]])})
    assert taken(Policy(3, rank_max=4), pool).tolist() == [[2, 3, -1]]
    assert taken(Policy(3, rank_max=4, teacher_above=0.5), pool).tolist() == [[2, -1, -1]]
    relabelled = Policy(3, rank_max=4, denoise="relabel").select(pool, np.arange(1))
    assert relabelled.documents.tolist() == [[1, 2, 3]]
    assert relabelled.relevant.tolist() == [[True, False, False]]
    assert not relabelled.positive.any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"negatives": 0}, "negatives counts documents"),
        ({"rank_min": -1}, "0 <= rank_min < rank_max"),
        ({"rank_min": 5, "rank_max": 5}, "0 <= rank_min < rank_max"),
        ({"negatives": 5, "rank_min": 6, "rank_max": 10}, "holds 4 candidates a question .* fewer than the 5"),
        ({"min_score": 0.5, "max_score": 0.4}, "no score is at least 0.5 and at most 0.4"),
        ({"teacher_above": 1.0}, "teacher_above is a probability between 0 and 1, got 1.0"),
        ({"fresh": True}, "sampling 'top' draws nothing"),
        ({"fresh": True, "sampling": "random", "include_positives": True}, "goes without fresh negatives"),
    ],
)
def test_an_impossible_policy_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Policy(**settings)
