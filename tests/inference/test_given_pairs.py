import numpy as np
import pytest

from crossrank.errors import DataError
from crossrank.inference.given_pairs import given_pairs, query_pairs

PAIRS = [("q", "a"), ("q", "b")]


@pytest.mark.parametrize("form", [
    PAIRS, tuple(PAIRS), [list(p) for p in PAIRS], np.array(PAIRS), np.array(PAIRS, object), iter(PAIRS),
    [np.array(p) for p in PAIRS],
])  # fmt: skip
def test_several_pairs(form):
    found, single = given_pairs(form)
    if isinstance(form, list) and isinstance(form[0], np.ndarray):
        assert all(type(text) is str for pair in found for text in pair)
    assert (found, single) == (PAIRS, False)


@pytest.mark.parametrize("form", [("q", "a"), ["q", "a"], np.array(["q", "a"])])
def test_a_single_pair(form):
    assert given_pairs(form) == ([("q", "a")], True)


def test_no_pair():
    assert given_pairs([]) == given_pairs(np.zeros((0, 2), "U1")) == ([], False)


@pytest.mark.parametrize(("given", "message"), [
    ("abc", "a pair of two texts or a list of pairs is wanted, got str$"),
    (None, "a list of pairs is wanted, got NoneType$"),
    (["a", "b", "c"], "the pair must be two texts, a question and a document, got list of 3$"),
    ([("a", "b"), ("c",)], "pair 1 must be two texts, a question and a document, got tuple of 1$"),
    ([("a", "b"), "cd"], "pair 1 must be two texts, a question and a document, got str$"),
    ([("a", "b"), None], "pair 1 must be two texts, .* got NoneType$"),
    ([("a", None)], "text 1 of pair 0 must be a string, got NoneType$"),
    ([(1.5, "b")], "text 0 of pair 0 must be a string, got float$"),
    ([("a", "\ud800")], "text 1 of pair 0 holds half a character, which is no valid Unicode$"),
    (np.array([[1, 2]]), "text 0 of pair 0 must be a string, got int$"),
])  # fmt: skip
def test_what_is_no_pair_is_named(given, message):
    with pytest.raises(DataError, match=message):
        given_pairs(given)


@pytest.mark.parametrize(("query", "documents", "message"), [
    (3, ["a"], "the question 7 must be a string, got int"),
    ("q", "abc", "a list of documents is wanted for the question 7, got str"),
    ("q", ["a", None], "document 1 of the question 7 must be a string, got NoneType"),
    ("q", [], "no document to rank for the question 7; give at least one"),
])  # fmt: skip
def test_what_cannot_be_ranked_is_named(query, documents, message):
    with pytest.raises(DataError, match=message):
        query_pairs(query, documents, " 7")
