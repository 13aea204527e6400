import datasets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossrank.data.pairs import PairIndex, QAPairs, split_dev, split_questions
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


def test_labels_say_which_documents_are_answers():
    """c, then a of a later row, answer why; z has d; how has none and comes last, as does b."""
    labels = np.float32([0, 0, 2, 1, 1])
    index = PairIndex.of(QAPairs(["why", "how", "why", "why", "z"], ["a", "b", "c", "a", "d"], labels), ["e", "c"])
    assert index.questions == ["why", "z", "how"]
    assert index.documents == ["c", "a", "d", "b", "e"]
    assert [index.positives_of(i).tolist() for i in range(3)] == [[0, 1], [2], []]
    assert index.judged.documents.tolist() == [0, 1, 2, 3]
    assert index.judged.labels.tolist() == [2, 1, 1, 0]
    minable = index.answered()
    assert (minable.questions, minable.documents) == (["why", "z"], ["c", "a", "d"])
    assert [minable.positives_of(i).tolist() for i in range(2)] == [[0, 1], [2]]


def test_the_best_scored_documents_count_as_answers():
    labels = np.float32([-3, 0, -2, 0, -2])
    index = PairIndex.of(QAPairs(["why", "how", "why", "how", "why"], ["a", "b", "c", "d", "e"], labels, True))
    assert [[index.documents[d] for d in index.positives_of(i)] for i in range(2)] == [["b", "d"], ["c", "e"]]
    assert index.judged.scored


labelled = st.tuples(small, small, st.sampled_from([0.0, 0.5, 1.0]))


@settings(deadline=None)
@given(rows=st.lists(labelled, max_size=20), scored=st.booleans())
def test_an_index_of_labelled_pairs_holds_the_best_label_of_each(rows, scored):
    pairs = QAPairs([q for q, *_ in rows], [d for _, d, _ in rows], np.float32([label for *_, label in rows]), scored)
    index, best = PairIndex.of(pairs), {}
    for q, d, label in rows:
        best[q, d] = max(label, best.get((q, d), 0))
    top = {q: max(label for (other, _), label in best.items() if other == q) for q, _ in best}
    asked = np.repeat(np.arange(len(index.questions)), np.diff(index.judged.offsets))
    held = [(index.questions[q], index.documents[d]) for q, d in zip(asked, index.judged.documents, strict=True)]
    assert dict(zip(held, index.judged.labels.tolist(), strict=True)) == best
    assert len(held) == len(best)
    positives = {
        (question, index.documents[d]) for i, question in enumerate(index.questions) for d in index.positives_of(i)
    }
    assert positives == {pair for pair, label in best.items() if (label == top[pair[0]] if scored else label > 0)}
    minable = index.answered()
    assert set(minable.questions) == {q for q, _ in positives}
    assert set(minable.documents) == {d for _, d in positives}


def test_copies_are_a_questions_most():
    index = PairIndex.of(QAPairs(["p", "q", "p"], ["a", "b", "c"], copies=np.int32([2, 1, 3])))
    assert index.copies.tolist() == [3, 1]


def test_pairs_are_equal_when_every_column_is():
    one = QAPairs(["q"], ["a"], np.float32([1]), copies=np.int32([2]))
    assert one == QAPairs(["q"], ["a"], np.float32([1]), copies=np.int32([2]))
    others = [
        QAPairs(["q"], ["a"]), QAPairs(["q"], ["a"], np.float32([0]), copies=np.int32([2])), "q",
        QAPairs(["q"], ["a"], np.float32([1])), QAPairs(["q"], ["a"], np.float32([1]), True, np.int32([2])),
        QAPairs(["q"], ["b"], np.float32([1]), copies=np.int32([2])),
    ]  # fmt: skip
    assert all(one != other for other in others)


@pytest.mark.parametrize(("count", "dev_size", "seed"), [(2, 1, 0), (50, 7, 12)])
def test_held_out_questions_are_the_rows_of_split_dev_where_none_is_repeated(count, dev_size, seed):
    assert split_questions(numbered(count), dev_size, seed) == split_dev(numbered(count), dev_size, seed)


def test_held_out_questions_take_all_their_pairs_along():
    pairs = QAPairs([f"q{i % 6}" for i in range(18)], [f"a{i}" for i in range(18)])
    splits = split_questions(pairs, 2, 12)
    assert not set(splits.train.questions) & set(splits.dev.questions)
    assert (len(splits.train), len(splits.dev)) == (12, 6)
    for part in (splits.train, splits.dev):
        assert [int(a[1:]) % 6 for a in part.answers] == [int(q[1:]) for q in part.questions]
