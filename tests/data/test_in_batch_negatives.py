"""Which documents of a step's other questions are drawn, alone and as rows of the batches."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_training_rows import CountingSource, some_pairs

from crossrank.data.in_batch_negatives import InBatchNegatives
from crossrank.data.micro_batches import MicroBatches
from crossrank.data.miners.bm25 import BM25Miner
from crossrank.data.miners.none import NoMiner
from crossrank.data.order import BatchPlan
from crossrank.data.pairs import PairIndex, QAPairs
from crossrank.data.policy import Policy
from crossrank.data.training_rows import prepare_rows
from crossrank.data.whole_questions import WholeQuestions
from crossrank.errors import DataError

QUESTIONS = 12
SEED = 5


def labelled(**settings) -> QAPairs:
    """Question i has i % 3 + 2 documents, the first of them an answer."""
    pairs = some_pairs(40)
    which = np.repeat(np.arange(QUESTIONS), np.arange(QUESTIONS) % 3 + 2)
    labels = np.float32(np.diff(which, prepend=-1) > 0)
    documents = [f"{pairs.answers[q]} {i}" for i, q in enumerate(which)]
    questions = [f"{pairs.questions[q]} {q}" for q in which]
    return QAPairs(questions, documents, labels, **{k: v(which) for k, v in settings.items()})


@pytest.fixture
def rows_of(tmp_path, encoder):
    def make(pairs, name="ragged"):
        return prepare_rows(CountingSource(name, pairs), NoMiner(), Policy(), encoder, tmp_path, signed=True)

    return make


@pytest.fixture
def rows(rows_of):
    return rows_of(labelled())


def drawn_by_visit(drawn, visits):
    which, documents = drawn
    assert which.tolist() == sorted(which)
    return [documents[which == visit].tolist() for visit in range(visits)]


def test_each_question_gets_as_many_others_as_asked_for_and_never_its_own(rows):
    others = InBatchNegatives(4, SEED, WholeQuestions(rows))
    visits = np.array([7, 0, 3, 11, 5])
    for step in range(20):
        found = drawn_by_visit(others.draw(visits, step, 0), 5)
        there = set(rows.documents[np.isin(rows.questions, visits)])
        for question, documents in zip(visits, found, strict=True):
            own = set(rows.documents[rows.questions == question])
            assert len(documents) == len(set(documents)) == 4
            assert set(documents) <= there - own


def test_every_document_of_the_others_is_drawn_equally_often(rows):
    """Answers and negatives alike: 2 of 5 are drawn, so that each is in 40 % of 1,500 draws, give or take 1.3 %."""
    others = InBatchNegatives(2, SEED, WholeQuestions(rows))
    counts = np.zeros(len(rows.document_tokens), int)
    for step in range(1500):
        which, documents = others.draw(np.array([0, 3, 1]), step, 0)  # of 2, 2 and 3 documents
        np.add.at(counts, documents[which == 0], 1)
    there = np.isin(rows.questions, [3, 1])
    np.testing.assert_allclose(counts[rows.documents[there]] / 1500, 0.4, atol=0.06)
    assert counts.sum() == 3000


def test_the_draw_depends_on_seed_and_step_alone(rows):
    def draw(seed, step):
        return drawn_by_visit(InBatchNegatives(3, seed, WholeQuestions(rows)).draw(np.arange(6), step, 0), 6)

    first = draw(SEED, 3)
    others = InBatchNegatives(3, SEED, WholeQuestions(rows))
    others.draw(np.arange(12), 2, 0)  # what was drawn before leaves no trace
    assert drawn_by_visit(others.draw(np.arange(6), 3, 0), 6) == first
    assert first not in (draw(SEED + 1, 3), draw(SEED, 4))
    assert first[0] != first[3]


def test_what_equals_or_nearly_equals_an_answer_is_never_drawn(rows_of):
    """Question 0's answer stands as an answer of 1 in other letters, and nearly as a negative of 2."""
    words = [f"word{i}" for i in range(60)]
    answer = " ".join(words)
    texts = [
        ("q0", answer, 1), ("q0", "something else", 0),
        ("q1", f"{answer.upper()}!", 1), ("q1", "another thing entirely", 0),
        ("q2", "the third answer", 1), ("q2", f"{answer} and", 0), ("q2", " ".join(words[:40]), 0),
    ]  # fmt: skip
    questions, documents, labels = zip(*texts, strict=True)
    pairs = QAPairs(list(questions), list(documents), np.float32(labels))
    numbers = {text: number for number, text in enumerate(PairIndex.of(pairs).documents)}
    others = InBatchNegatives(10, SEED, WholeQuestions(rows_of(pairs, "twins")))
    found = drawn_by_visit(others.draw(np.arange(3), 0, 0), 3)
    allowed = [(3, 4, 6), (1, 4, 6), (0, 1, 2, 3)]
    assert [set(own) for own in found] == [{numbers[documents[i]] for i in places} for places in allowed]


def test_two_visits_of_a_question_draw_apart_and_neither_draws_its_own(rows_of):
    rows = rows_of(labelled(copies=lambda which: np.full(len(which), 2, np.int32)), "twice")
    whole = WholeQuestions(rows)
    visits = np.array([2, 14, 5, 6])
    assert len(whole) == 2 * QUESTIONS
    asked = rows.questions[whole.rows_of(visits)[0]]
    assert asked[0] == asked[4] == 2  # 4 rows each
    found = drawn_by_visit(InBatchNegatives(3, SEED, whole).draw(visits, 0, 0), 4)
    own = set(rows.documents[rows.questions == 2])
    assert found[0] != found[1]
    assert not own & {*found[0], *found[1]}


def test_where_there_are_too_few_all_are_taken_and_it_is_said_once(rows, caplog):
    others = InBatchNegatives(9, SEED, WholeQuestions(rows))
    found = drawn_by_visit(others.draw(np.array([0, 1, 2]), 6, 0), 3)
    assert [len(documents) for documents in found] == [3 + 4, 2 + 4, 2 + 3]
    others.draw(np.array([4]), 7, 0)
    assert [m for m in caplog.messages if "in_batch_negatives" in m] == [
        "step 7 has only 5 documents of other questions for one of its 3 questions, and data.in_batch_negatives=9: "
        "in such a step as many are drawn as there are"
    ]
    quiet = InBatchNegatives(9, SEED, WholeQuestions(rows), quiet=True)
    assert [len(x) for x in quiet.draw(np.array([4]), 0, 0)] == [0, 0]
    assert sum("in_batch_negatives" in m for m in caplog.messages) == 1


def test_rows_of_a_batch_are_its_questions_own_with_the_drawn_ones_behind(rows, encoder):
    whole = WholeQuestions(rows)
    plain = MicroBatches(rows, BatchPlan(12, 6), encoder, 4, 1, SEED, whole=whole)
    more = MicroBatches(
        rows, BatchPlan(12, 6), encoder, 4, 1, SEED, whole=whole, others=InBatchNegatives(3, SEED, whole)
    )
    for position in range(4):
        before, batch = lists_in(plain[position]), lists_in(more[position])
        documents = {pair[0][1] for pairs in before for pair in pairs}
        for own, all_of_them in zip(before, batch, strict=True):
            assert all_of_them[: len(own)] == own
            assert len(all_of_them) == len(own) + 3
            for (question, document), label, rank in all_of_them[len(own) :]:
                assert (question, label, rank) == (own[0][0][0], 0.0, -1)
                assert document in documents - {pair[0][1] for pair in own}


def test_micro_batches_and_processes_share_what_one_process_draws(rows, encoder):
    whole = WholeQuestions(rows)

    def lists(accumulate, processes):
        made = []
        for rank in range(processes):
            batches = MicroBatches(
                rows, BatchPlan(12, 6, accumulate * processes), encoder, 4, accumulate, SEED, rank=rank,
                processes=processes, whole=whole, others=InBatchNegatives(3, SEED, whole),
            )  # fmt: skip
            made += [(position // accumulate, pairs) for position in range(4 * accumulate)
                     for pairs in lists_in(batches[position])]  # fmt: skip
        return sorted(made)

    alone = lists(1, 1)
    assert len(alone) == 24
    assert lists(3, 1) == lists(1, 2) == lists(3, 2) == alone


def lists_in(batch):
    """Return the pairs of each list, as ((question, document), label, rank)."""
    parts = torch.tensor_split(batch.input_ids, batch.offsets[1:-1].long())
    types = torch.tensor_split(batch.token_type_ids, batch.offsets[1:-1].long())
    pairs = [
        (
            (tuple(ids[kind == 0].tolist()), tuple(ids[kind == 1].tolist())),
            float(label),
            int(rank),
        )
        for ids, kind, label, rank in zip(parts, types, batch.labels, batch.ranks, strict=True)
    ]
    return [[pairs[i] for i in (batch.query_index == q).nonzero().flatten()] for q in batch.query_index.unique()]


def test_scores_are_refused_for_the_others_have_none(rows_of):
    pairs = replace(labelled(), scored=True)
    with pytest.raises(DataError, match=r"scores, which those of other questions would lack; set data\.in_batch"):
        rows_of(pairs, "scored")


def test_texts_are_read_once_and_not_for_rows_that_are_there(tmp_path, encoder):
    source = CountingSource("ragged", labelled())
    for _ in range(2):
        rows = prepare_rows(source, NoMiner(), Policy(), encoder, tmp_path, signed=True)
        assert isinstance(rows.signatures, np.memmap)
        assert len(rows.signatures) == len(rows.document_tokens)
        assert source.loads == 1
    assert prepare_rows(source, NoMiner(), Policy(), encoder, tmp_path).signatures is None


def test_where_negatives_are_drawn_anew_each_epoch_the_epochs_own_are_left_out(tmp_path, encoder):
    policy = Policy(2, sampling="random", fresh=True)
    rows = prepare_rows(CountingSource(), BM25Miner(), policy, encoder, tmp_path, signed=True)
    whole = WholeQuestions(rows)
    others, visits, seen = InBatchNegatives(100, SEED, whole, quiet=True), np.arange(5), []
    for epoch in range(2):
        chosen, visit = whole.rows_of(visits)
        documents = rows.at(chosen, epoch)[1]
        found = drawn_by_visit(others.draw(visits, epoch, epoch), 5)
        for question, drawn in enumerate(found):
            assert set(drawn) <= set(documents) - set(documents[visit == question])
        seen.append(set().union(*found))
    assert seen[0] != seen[1]
