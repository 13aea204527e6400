"""More of them, through the loader that streams them, stands in test_datamodule.py."""

import numpy as np
import pytest
import torch
from test_training_rows import CountingSource, some_pairs

from crossrank.data.micro_batches import MicroBatches
from crossrank.data.miners.none import NoMiner
from crossrank.data.order import BatchPlan
from crossrank.data.pairs import QAPairs
from crossrank.data.policy import Policy
from crossrank.data.training_rows import prepare_rows
from crossrank.data.whole_questions import WholeQuestions


@pytest.fixture
def rows(tmp_path, encoder):
    """Question i has i % 3 + 2 documents, the first of them an answer; every other question is visited twice."""
    pairs = some_pairs(40)
    counts = np.arange(12) % 3 + 2
    which = np.repeat(np.arange(12), counts)
    labels = np.float32(np.diff(which, prepend=-1) > 0)
    documents = [f"{pairs.answers[q]} {i}" for i, q in enumerate(which)]
    copies = np.int32(1 + which % 2)
    source = QAPairs([f"{pairs.questions[q]} {q}" for q in which], documents, labels, copies=copies)
    return prepare_rows(CountingSource("ragged", source), NoMiner(), Policy(), encoder, tmp_path)


def test_a_batch_of_whole_questions_keeps_two_visits_of_one_question_apart(rows, encoder):
    whole = WholeQuestions(rows)
    assert len(whole) == 18
    batches = MicroBatches(rows, BatchPlan(18, 18), encoder, 1, 1, 12, whole=whole)
    batch = batches[0]
    assert len(batch) == sum(i % 3 + 2 for i in range(12)) + sum(i % 3 + 2 for i in range(12) if i % 2)
    assert batch.query_index.unique().tolist() == list(range(18))
    for number in range(18):
        assert batch.labels[batch.query_index == number].sum() == 1


def test_a_batch_is_the_same_whenever_it_is_asked_for(rows, encoder):
    def made():
        return MicroBatches(rows, BatchPlan(18, 4, 2), encoder, 20, 2, 12, whole=WholeQuestions(rows))

    streamed, asked = list(map(made().__getitem__, range(40))), made()
    for position in np.random.default_rng(0).permutation(40):
        assert torch.equal(asked[position].input_ids, streamed[position].input_ids)
        assert torch.equal(asked[position].query_index, streamed[position].query_index)


def test_its_length_is_that_of_the_training(rows, encoder):
    assert len(MicroBatches(rows, BatchPlan(len(rows), 4, 2), encoder, 7, 2, 12)) == 14
