import dataclasses
import json
import logging
import shutil
from dataclasses import dataclass, field

import datasets
import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import mine_hard_negatives

from crossrank.data import training_rows
from crossrank.data.lineage import Lineage
from crossrank.data.miners.bm25 import BM25Miner
from crossrank.data.miners.embedding import EmbeddingMiner
from crossrank.data.miners.none import NoMiner
from crossrank.data.mining import Candidates, Pool, mine
from crossrank.data.order import epoch_order
from crossrank.data.pairs import Ingredients, PairIndex, QAPairs, Splits
from crossrank.data.policy import Policy
from crossrank.data.tokens import PairEncoder
from crossrank.data.training_rows import TrainingRows, prepare_rows, write_rows
from crossrank.errors import DataError

WORDS = ["cat", "dog", "river", "stone", "music", "iron", "paper", "cloud", "winter", "engine", "bread", "ocean"]


def some_pairs(count: int = 40, seed: int = 0) -> QAPairs:
    rng = np.random.default_rng(seed)
    questions = [" ".join(rng.choice(WORDS, 3)) for _ in range(count)]
    questions[10:13] = questions[3:4] * 3
    return QAPairs(questions, [" ".join(rng.choice(WORDS, 6)) for _ in range(count)])


@dataclass
class CountingSource:
    name: str = "one"
    pairs: QAPairs = field(default_factory=some_pairs)
    loads: int = 0

    def assets(self):
        return ()

    def ingredients(self):
        return Ingredients({"name": self.name}, {})

    def fingerprint(self):
        return self.ingredients().fingerprint

    def load(self):
        self.loads += 1
        return Splits(self.pairs, QAPairs(["dev"], ["dev"]))


@dataclass
class CountingMiner:
    k1: float = 1.5
    searches: int = 0

    def assets(self):
        return ()

    def fingerprint(self):
        return BM25Miner(self.k1).fingerprint()

    def search(self, questions, documents, k, positives, start=0, cache_dir=None):
        self.searches += 1
        yield from BM25Miner(self.k1).search(questions, documents, k, positives)


@pytest.fixture
def tokenised(monkeypatch):
    """Return the list that every call of write_tokens is added to."""
    calls = []
    write = training_rows.write_tokens
    monkeypatch.setattr(training_rows, "write_tokens", lambda *args: calls.append(args) or write(*args))
    return calls


def texts_of(rows, index: PairIndex) -> list[tuple[str, str, int]]:
    return [
        (index.questions[q], index.documents[d], int(label))
        for q, d, label in zip(rows["questions"], rows["documents"], rows["labels"], strict=True)
    ]


def written(folder):
    return {name: np.load(folder / f"{name}.npy") for name in ("questions", "documents", "labels")}


@pytest.mark.parametrize("policy", [Policy(5, rank_max=20, absolute_margin=0.0), Policy(3, 1, 9)], ids=str)
def test_rows_are_the_labelled_pairs_of_sentence_transformers(static_embedder, tmp_path, policy):
    pairs = some_pairs()
    index = PairIndex.of(pairs)
    mine(index, EmbeddingMiner(str(static_embedder)), policy.rank_max, tmp_path)
    write_rows(Pool.open(tmp_path), policy, tmp_path)
    reference = mine_hard_negatives(
        datasets.Dataset.from_dict({"question": pairs.questions, "answer": pairs.answers}),
        SentenceTransformer(str(static_embedder), device="cpu"),
        range_min=policy.rank_min, range_max=policy.rank_max, absolute_margin=policy.absolute_margin,
        num_negatives=policy.negatives, sampling_strategy="top", output_format="labeled-pair", verbose=False,
    )  # fmt: skip
    got = texts_of(written(tmp_path), index)
    assert sorted(got) == sorted((row["question"], row["answer"], row["label"]) for row in reference)
    assert len(set(got)) == len(got)


class Fixed:
    """Finds the same candidates for every question."""

    def __init__(self, ids) -> None:
        self.ids = ids

    def search(self, questions, documents, k, positives, start=0, cache_dir=None):
        ids = np.tile(np.int32(self.ids[:k]), (len(questions), 1))
        scores = np.tile(np.linspace(1, 0.5, k, dtype=np.float32), (len(questions), 1))
        own = [np.float32([0.8 if q else 2.0] * len(positives[q])) for q in range(len(questions))]
        yield Candidates(ids, scores, own)


@pytest.mark.parametrize("block", [1, 2, 8192])
def test_rows_stand_question_by_question_positives_first_then_negatives_by_score(tmp_path, monkeypatch, caplog, block):
    monkeypatch.setattr(training_rows, "QUESTIONS_PER_BLOCK", block)
    index = PairIndex.of(QAPairs(["p", "q", "p", "r"], ["a", "b", "c", "a"]), extra_documents=["d"])
    mine(index, Fixed([3, 1, 2, 0]), 2, tmp_path)
    write_rows(Pool.open(tmp_path), Policy(2, rank_max=2, absolute_margin=0.0), tmp_path)
    assert texts_of(written(tmp_path), index) == [
        ("p", "a", 1), ("p", "c", 1), ("p", "d", 0), ("p", "b", 0),
        ("q", "b", 1), ("q", "c", 0), ("q", "a", 0),
        ("r", "a", 1), ("r", "c", 0),
    ]  # fmt: skip
    assert json.loads((tmp_path / "rows.json").read_text()) == {
        "rows": 9, "questions": 3, "without_negatives": 0, "relabelled": 0,
    }  # fmt: skip
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_the_rank_of_a_row_is_0_for_a_positive_and_counts_its_questions_negatives(tmp_path):
    """Four questions: two answers and two negatives, one and three, an answer alone, one and 300."""
    labels = np.concatenate([[1, 1, 0, 0], [1, 0, 0, 0], [1], [1], np.zeros(300)]).astype(np.uint8)
    questions = np.repeat(np.int32([0, 1, 4, 7]), [4, 4, 1, 301])
    rows = TrainingRows(tmp_path, questions, questions, labels, None, None, Lineage({}))
    wanted = [0, 0, 1, 2, 0, 1, 2, 3, 0, 0, *np.minimum(np.arange(1, 301), 255)]
    assert rows.ranks.tolist() == wanted
    assert rows.ranks.dtype == np.uint8


def test_the_first_negative_is_the_policys_hardest(tmp_path, encoder):
    source = CountingSource()
    rows = prepare_rows(source, BM25Miner(), Policy(3), encoder, tmp_path)
    pool = Pool.open(tmp_path / "pools" / rows.fingerprints["pool"])
    chosen = Policy(3).select(pool, np.arange(int(rows.questions.max()) + 1)).documents
    for rank in (1, 2, 3):
        at = rows.ranks == rank
        assert at.sum() > 20
        np.testing.assert_array_equal(rows.documents[at], chosen[rows.questions[at], rank - 1])
    np.testing.assert_array_equal(rows.ranks == 0, rows.labels == 1)


def test_questions_without_a_negative_keep_their_answer_and_are_counted(tmp_path, caplog):
    index = PairIndex.of(QAPairs(["p", "q", "r"], ["a", "b", "c"]))
    mine(index, Fixed([0, 1, 2]), 2, tmp_path)
    write_rows(Pool.open(tmp_path), Policy(1, rank_max=2, absolute_margin=0.4), tmp_path)
    assert texts_of(written(tmp_path), index) == [("p", "a", 1), ("p", "b", 0), ("q", "b", 1), ("r", "c", 1)]
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == ["2 of 3 questions have no negative under this policy and train on their answer alone"]


def test_a_source_without_a_training_pair_is_refused(tmp_path, encoder):
    source = CountingSource(pairs=QAPairs([], []))
    with pytest.raises(DataError):
        prepare_rows(source, CountingMiner(), Policy(), encoder, tmp_path)


def test_an_interrupted_selection_leaves_no_rows_and_no_open_file(tmp_path, encoder, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Policy, "select", interrupt)
    with pytest.raises(KeyboardInterrupt):
        prepare_rows(CountingSource(), CountingMiner(), Policy(), encoder, tmp_path)
    assert [file.name for file in (tmp_path / "rows").iterdir() if file.is_dir()] == []


def test_rows_point_at_the_tokens_of_their_texts(tmp_path, encoder):
    source = CountingSource()
    rows = prepare_rows(source, CountingMiner(), Policy(3), encoder, tmp_path)
    index = PairIndex.of(source.pairs)
    assert len(rows) == len(rows.questions) == len(rows.documents) > len(source.pairs)
    for q, d in zip(rows.questions, rows.documents, strict=True):
        for ids, text in ((rows.question_tokens[q], index.questions[q]), (rows.document_tokens[d], index.documents[d])):
            assert ids.tolist() == encoder.tokenizer.encode(text, add_special_tokens=False)


def test_what_is_cached_is_neither_loaded_nor_mined_nor_tokenised_again(tmp_path, encoder, tokenised):
    source, miner = CountingSource(), CountingMiner()
    first = prepare_rows(source, miner, Policy(3), encoder, tmp_path)
    assert (source.loads, miner.searches, len(tokenised)) == (1, 1, 2)
    second = prepare_rows(source, miner, Policy(3), encoder, tmp_path)
    assert (source.loads, miner.searches, len(tokenised)) == (1, 1, 2)
    assert second.fingerprints == first.fingerprints
    np.testing.assert_array_equal(second.documents, first.documents)


def test_another_policy_is_another_choice_from_the_same_pool(tmp_path, encoder, tokenised):
    source, miner = CountingSource(), CountingMiner()
    made = [
        prepare_rows(source, miner, policy, encoder, tmp_path, pool_depth=30)
        for policy in (Policy(3, rank_max=30), Policy(2, 1, 9), Policy(3, rank_max=30, absolute_margin=0.0))
    ]
    assert (source.loads, miner.searches, len(tokenised)) == (1, 1, 2)
    assert len({rows.fingerprints["rows"] for rows in made}) == 3
    assert len({len(rows) for rows in made}) == 3


def test_another_max_length_neither_mines_nor_loads_again(tmp_path, encoder, tokenised):
    source, miner = CountingSource(), CountingMiner()
    first = prepare_rows(source, miner, Policy(3), encoder, tmp_path)
    second = prepare_rows(source, miner, Policy(3), PairEncoder(encoder.tokenizer, 32), tmp_path)
    assert (source.loads, miner.searches) == (1, 1)
    assert second.fingerprints["rows"] == first.fingerprints["rows"]
    assert second.fingerprints["tokens"] != first.fingerprints["tokens"]


def test_another_miner_mines_but_does_not_tokenise_again(tmp_path, encoder, tokenised):
    source, other = CountingSource(), CountingMiner(k1=0.5)
    first = prepare_rows(source, CountingMiner(), Policy(3), encoder, tmp_path)
    second = prepare_rows(source, other, Policy(3), encoder, tmp_path)
    assert (source.loads, other.searches, len(tokenised)) == (1, 1, 2)
    changed = {name for name, made in first.fingerprints.items() if made != second.fingerprints[name]}
    assert changed == {"miner", "pool", "twins", "rows"}


def test_other_texts_start_from_the_beginning(tmp_path, encoder, tokenised):
    first, other, miner = CountingSource(), CountingSource("two", some_pairs(seed=1)), CountingMiner()
    made = [prepare_rows(source, miner, Policy(3), encoder, tmp_path).fingerprints for source in (first, other)]
    assert (other.loads, miner.searches, len(tokenised)) == (1, 2, 4)
    assert {name for name in made[0] if made[0][name] == made[1][name]} == {"miner", "policy", "tokenizer"}


def test_a_pool_shallower_than_the_policy_looks_is_refused(tmp_path, encoder):
    source = CountingSource()
    with pytest.raises(DataError, match="10 candidates a question and the policy looks at 100"):
        prepare_rows(source, CountingMiner(), Policy(3), encoder, tmp_path, pool_depth=10)
    assert source.loads == 0


def test_the_order_of_an_epoch_is_written_once_and_mapped(tmp_path, encoder, monkeypatch):
    rows = prepare_rows(CountingSource(), CountingMiner(), Policy(3), encoder, tmp_path)
    for epoch in (0, 1):
        np.testing.assert_array_equal(rows.order(12, epoch), epoch_order(len(rows), 12, epoch))
    monkeypatch.setattr(training_rows, "permute", lambda *_: pytest.fail("the order was there already"))
    assert isinstance(rows.order(12, 1), np.memmap)


@pytest.mark.parametrize("sampling", ["random", "stratified"])
def test_fresh_negatives_are_read_as_if_the_rows_had_been_written_for_their_epoch(tmp_path, encoder, sampling):
    policy = Policy(3, rank_max=20, sampling=sampling, fresh=True, min_score=0.8)  # some have fewer than 3
    rows = prepare_rows(CountingSource(), BM25Miner(), policy, encoder, tmp_path)
    pool = Pool.open(tmp_path / "pools" / rows.fingerprints["pool"])
    everything = np.arange(len(rows))
    some = np.random.default_rng(0).permutation(len(rows))[:50]
    for epoch in (0, 1, 2):
        chosen = policy.select(pool, np.arange(len(pool)), epoch)
        wanted = training_rows._rows_of(pool, chosen, 0, len(pool))
        for rows_asked in (everything, some):
            for got, one in zip(rows.at(rows_asked, epoch), wanted, strict=True):
                np.testing.assert_array_equal(got, one[rows_asked])
    assert (rows.at(everything, 1)[1] != rows.documents)[rows.labels == 0].mean() > 0.3
    assert len(set(np.bincount(rows.questions[rows.labels == 0]))) > 1
    stale = prepare_rows(CountingSource(), BM25Miner(), Policy(3, rank_max=20), encoder, tmp_path)
    np.testing.assert_array_equal(stale.at(np.arange(len(stale)), 5)[1], stale.documents)


def test_relabelled_candidates_are_rows_with_label_1_and_counted(tmp_path):
    index = PairIndex.of(QAPairs(["p", "q"], ["a", "b"]), extra_documents=["c", "d"])
    mine(index, Fixed([2, 3, 0, 1]), 3, tmp_path)
    teacher = np.float32([[0.99, 0.1, np.nan, np.nan], [np.nan, 0.2, 0.95, np.nan]])
    pool = Pool(**{**Pool.open(tmp_path).__dict__, "teacher": teacher})
    write_rows(pool, Policy(2, rank_max=3, denoise="relabel"), tmp_path)
    assert texts_of(written(tmp_path), index) == [
        ("p", "a", 1), ("p", "c", 1), ("p", "d", 0), ("q", "b", 1), ("q", "d", 0), ("q", "a", 1),
    ]  # fmt: skip
    assert json.loads((tmp_path / "rows.json").read_text())["relabelled"] == 2


def listed(labels, scored=False, name="listed"):
    """A source whose every question has as many documents as there are labels."""
    pairs = some_pairs(40)
    rows = np.repeat(np.arange(40), len(labels))
    documents = [f"{pairs.answers[row]} {i % len(labels)}" for i, row in enumerate(rows)]
    return CountingSource(name, QAPairs([f"{pairs.questions[row]} {row}" for row in rows], documents,
                                        np.tile(np.float32(labels), 40), scored))  # fmt: skip


def triples(rows, index: PairIndex) -> set[tuple[str, str, float]]:
    return {(index.questions[q], index.documents[d], float(label))
            for q, d, label in zip(rows.questions, rows.documents, rows.labels, strict=True)}  # fmt: skip


@pytest.mark.parametrize(
    ("labels", "scored", "dtype"),
    [([1, 0, 0], False, np.uint8), ([3, 0, 1], False, np.float32), ([-1.5, 7, 0.25], True, np.float32)],
)
def test_without_a_miner_the_sources_own_labels_are_the_rows(tmp_path, encoder, tokenised, labels, scored, dtype):
    source = listed(labels, scored)
    rows = prepare_rows(source, NoMiner(), Policy(), encoder, tmp_path)
    wanted = zip(source.pairs.questions, source.pairs.answers, source.pairs.labels.tolist(), strict=True)
    assert triples(rows, PairIndex.of(source.pairs)) == set(wanted)
    assert (len(rows), rows.labels.dtype) == (120, dtype)
    assert rows.ranks.tolist() == [0, 1, 2] * 40
    nothing = Policy(2, absolute_margin=0.0)  # to choose from
    again = prepare_rows(source, NoMiner(), nothing, encoder, tmp_path)
    assert (source.loads, len(tokenised), again.fingerprints) == (1, 2, rows.fingerprints)
    assert not (tmp_path / "pools").exists()


def test_mined_negatives_come_on_top_of_given_ones_from_the_answers_alone(tmp_path, encoder):
    source = listed([1, 0])
    rows = prepare_rows(source, CountingMiner(), Policy(3), encoder, tmp_path)
    index = PairIndex.of(source.pairs)
    answers = {a for a, label in zip(source.pairs.answers, source.pairs.labels, strict=True) if label}
    given = set(zip(source.pairs.questions, source.pairs.answers, source.pairs.labels.tolist(), strict=True))
    found = triples(rows, index)
    assert given < found
    mined = found - given
    assert len(mined) == 120
    assert {label for *_, label in mined} == {0}
    assert {document for _, document, _ in mined} <= answers
    pool = Pool.open(tmp_path / "pools" / rows.fingerprints["pool"])
    alone = PairIndex.of(QAPairs([q for q, _, y in given if y], [d for _, d, y in given if y]))
    assert len(pool) == len(alone.questions)
    assert rows.ranks.tolist() == [0, 1, 2, 3, 4] * 40
    assert (
        rows.fingerprints["rows"] != prepare_rows(source, NoMiner(), Policy(), encoder, tmp_path).fingerprints["rows"]
    )


def test_mining_beside_scores_is_refused_before_it_starts(tmp_path, encoder):
    miner = CountingMiner()
    with pytest.raises(DataError, match="train with miner=none"):
        prepare_rows(listed([1, 2], True), miner, Policy(3), encoder, tmp_path)
    assert miner.searches == 0


@pytest.mark.parametrize("miner", [NoMiner(), BM25Miner()], ids=["given", "mined"])
def test_a_question_with_copies_stands_so_often_in_every_epoch(tmp_path, encoder, miner):
    source = listed([1, 0])
    copies = np.repeat(np.int32([1, 2, 3, 1] * 10), 2)
    repeated = CountingSource("repeated", dataclasses.replace(source.pairs, copies=copies))
    rows = prepare_rows(repeated, miner, Policy(3), encoder, tmp_path)
    each = len(rows.labels) // 40
    assert len(rows) == each * 70
    for epoch in (0, 1):
        order = rows.order(12, epoch)
        index = PairIndex.of(repeated.pairs)
        wanted = np.asarray(index.copies)[rows.questions]
        assert np.bincount(order, minlength=len(rows.labels)).tolist() == wanted.tolist()
        plain = epoch_order(len(rows), 12, epoch)
        own = plain < len(rows.labels)
        np.testing.assert_array_equal(order[own], plain[own])


def test_rows_that_were_read_leave_memory_and_are_read_again(tmp_path, encoder):
    rows = prepare_rows(listed([1, 0]), NoMiner(), Policy(), encoder, tmp_path)
    before = [rows.documents[:5].tolist(), rows.document_tokens[3].tolist(), rows.ranks[:4].tolist()]
    rows.let_go(rows.order(12, 0))
    assert [rows.documents[:5].tolist(), rows.document_tokens[3].tolist(), rows.ranks[:4].tolist()] == before


def test_a_pool_of_other_texts_is_refused_not_read(tmp_path, encoder):
    """As where somebody copied a cache folder under another's name."""
    small, large = CountingSource(), CountingSource("two", some_pairs(60, seed=1))
    policy = Policy(3, drop_twins=False)
    pools = [
        prepare_rows(source, BM25Miner(), policy, encoder, tmp_path / source.name).fingerprints["pool"]
        for source in (small, large)
    ]
    shutil.rmtree(tmp_path / "one" / "rows")
    shutil.rmtree(tmp_path / "one" / "pools" / pools[0])
    shutil.copytree(tmp_path / "two" / "pools" / pools[1], tmp_path / "one" / "pools" / pools[0])
    with pytest.raises(DataError, match=r"a pool of 57 questions and 60 documents, .* mined of other texts"):
        prepare_rows(small, BM25Miner(), policy, encoder, tmp_path / "one")
