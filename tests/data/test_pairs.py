import datasets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossrank.data.pairs import PairIndex, QAPairs, split_dev
from crossrank.errors import DataError


def numbered(count: int) -> QAPairs:
    return QAPairs([f"q{i}" for i in range(count)], [f"a{i}" for i in range(count)])


@pytest.mark.parametrize(("count", "dev_size", "seed"), [(2, 1, 0), (50, 7, 12), (333, 332, 3)])
def test_the_split_is_that_of_datasets_train_test_split(count, dev_size, seed):
    pairs = numbered(count)
    wanted = datasets.Dataset.from_dict({"question": pairs.questions, "answer": pairs.answers}).train_test_split(
        test_size=dev_size, seed=seed
    )
    splits = split_dev(pairs, dev_size, seed)
    for got, reference in ((splits.train, wanted["train"]), (splits.dev, wanted["test"])):
        assert list(got.questions) == reference["question"][:]
        assert list(got.answers) == reference["answer"][:]


def test_the_recipes_dev_set_starts_with_known_rows():
    splits = split_dev(numbered(100_000), 1000, 12)
    assert splits.dev.questions[:5] == ["q59161", "q10844", "q12155", "q34727", "q93926"]
    assert (len(splits.train), len(splits.dev)) == (99_000, 1000)


@pytest.mark.parametrize("dev_size", [5, 6])
def test_a_split_that_leaves_nothing_to_train_on_is_refused(dev_size):
    with pytest.raises(DataError, match=rf"5 pairs, of which {dev_size} were to be held out"):
        split_dev(numbered(5), dev_size, 12)


def test_questions_without_an_answer_each_are_refused():
    with pytest.raises(DataError, match="2 questions and 1 answers"):
        QAPairs(["a", "b"], ["c"])


def test_an_index_of_repeated_questions_answers_and_pairs():
    pairs = QAPairs(["why", "how", "why", "why", "who"], ["so", "thus", "because", "so", "so"])
    index = PairIndex.of(pairs, extra_documents=["thus", "else", "else"])
    assert index.questions == ["why", "how", "who"]
    assert index.documents == ["so", "thus", "because", "else"]
    assert [index.positives_of(i).tolist() for i in range(3)] == [[0, 2], [1], [0]]


small = st.text("ab", max_size=2)


@settings(deadline=None)
@given(st.lists(st.tuples(small, small), max_size=30))
def test_an_index_holds_exactly_the_pairs_it_was_made_of(pairs):
    index = PairIndex.of(QAPairs([q for q, _ in pairs], [a for _, a in pairs]))
    held = [(question, index.documents[d]) for i, question in enumerate(index.questions) for d in index.positives_of(i)]
    assert len(held) == len(set(pairs))
    assert set(held) == set(pairs)
    assert len(set(index.documents)) == len(index.documents)
    assert index.positives.dtype == np.int32
