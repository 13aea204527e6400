import importlib.util

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from crossrank.data import search
from crossrank.data.search import NO_CANDIDATE, ExactSearch, top_k
from crossrank.errors import DataError

LIBRARIES = ["torch", pytest.param("faiss", marks=pytest.mark.skipif(
    importlib.util.find_spec("faiss") is None, reason="FAISS is not installed"))]  # fmt: skip


def brute_force(questions, vectors, k):
    """Sort every document by its float64 product, rounded to float32, then by id."""
    products = (questions.astype(np.float64) @ vectors.astype(np.float64).T).astype(np.float32)
    ids = np.stack([np.lexsort((np.arange(len(vectors)), -row))[:k] for row in products])
    return ids, np.take_along_axis(products, ids, 1)


def unit(rng, *shape):
    vectors = rng.normal(size=shape)
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("k", [1, 7, 100])
def test_the_nearest_are_those_of_a_sort_of_all(library, k, monkeypatch):
    monkeypatch.setattr(search, "DOCUMENTS_PER_BLOCK", 300)
    monkeypatch.setattr(search, "VALUES_PER_BLOCK", 10_000)
    rng = np.random.default_rng(k)
    vectors, questions = unit(rng, 1000, 24), unit(rng, 50, 24)
    found = ExactSearch(vectors, library).nearest(questions, k)
    ids, scores = brute_force(questions, vectors, k)
    np.testing.assert_array_equal(found.ids, ids)
    np.testing.assert_array_equal(found.scores, scores)


@pytest.mark.parametrize("library", LIBRARIES)
def test_equal_documents_stand_in_the_order_of_their_ids_however_many_they_are(library, monkeypatch):
    """500 of 600 documents are one of three: far more ties at the cut than are proposed at first."""
    monkeypatch.setattr(search, "DOCUMENTS_PER_BLOCK", 128)
    rng = np.random.default_rng(0)
    vectors = unit(rng, 600, 16)
    few = unit(rng, 3, 16)
    vectors[rng.permutation(600)[:500]] = few[rng.integers(3, size=500)]
    questions = np.concatenate([few, unit(rng, 5, 16)])
    found = ExactSearch(vectors, library).nearest(questions, 40)
    ids, _ = brute_force(questions, vectors, 40)
    np.testing.assert_array_equal(found.ids, ids)


@pytest.mark.parametrize("library", LIBRARIES)
def test_nearly_equal_scores_are_told_apart_as_float64_does(library):
    """Documents that differ by less than a float32 product's rounding: libraries order these each in its own way."""
    rng = np.random.default_rng(1)
    base = unit(rng, 1, 384)
    vectors = (base + rng.normal(size=(2000, 384)) * 1e-7).astype(np.float32)
    questions = unit(rng, 8, 384)
    found = ExactSearch(vectors, library).nearest(questions, 25)
    ids, scores = brute_force(questions, vectors, 25)
    np.testing.assert_array_equal(found.scores, scores)
    np.testing.assert_array_equal(found.ids, ids)
    rough = (questions @ vectors.T).argsort(axis=1)[:, ::-1][:, :25]
    assert (rough != ids).any()  # the plain product would not do


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), documents=st.integers(1, 80), k=st.integers(1, 90), copies=st.booleans())
def test_both_libraries_find_the_same(seed, documents, k, copies):
    if importlib.util.find_spec("faiss") is None:
        pytest.skip("FAISS is not installed")
    rng = np.random.default_rng(seed)
    vectors, questions = unit(rng, documents, 8), unit(rng, 4, 8)
    if copies:
        vectors = vectors[rng.integers(documents, size=documents)]
    one, other = (ExactSearch(vectors, library).nearest(questions, k) for library in ("torch", "faiss"))
    np.testing.assert_array_equal(one.ids, other.ids)
    np.testing.assert_array_equal(one.scores, other.scores)
    assert (one.ids[:, documents:] == NO_CANDIDATE).all()


def test_scores_of_given_documents_are_those_of_the_search():
    rng = np.random.default_rng(3)
    vectors, questions = unit(rng, 90, 32), unit(rng, 6, 32)
    index = ExactSearch(vectors, "torch")
    found = index.nearest(questions, 20)
    for row, question in enumerate(questions):
        np.testing.assert_array_equal(index.scores(question, found.ids[row]), found.scores[row])
    assert index.scores(questions[0], np.zeros(0, np.int32)).tolist() == []


def test_a_coarser_product_proposes_more_and_finds_the_same():
    """As a GPU's TF32 would be: products rounded to 11 bits, and torch told so."""
    rng = np.random.default_rng(4)
    vectors = (unit(rng, 1, 16) + rng.normal(size=(3000, 16)) * 1e-3).astype(np.float32)
    questions = unit(rng, 10, 16)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        index = ExactSearch(vectors, "torch")
    finally:
        torch.set_float32_matmul_precision(before)
    asked = []

    def coarse(questions, k):
        asked.append(len(questions))
        products = (questions @ vectors.T).astype(np.float16)
        ids = np.argsort(-products, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(products, ids, 1).astype(np.float32), ids

    index._proposals.propose = coarse
    np.testing.assert_array_equal(index.nearest(questions, 30).ids, brute_force(questions, vectors, 30)[0])
    assert len(asked) > 1


@pytest.mark.parametrize("library", LIBRARIES)
def test_vectors_that_are_not_finite_are_refused_and_named(library):
    vectors = np.eye(4, dtype=np.float32)
    index = ExactSearch(vectors, library)
    with pytest.raises(DataError, match="vector of question 1 of a block is not finite"):
        index.nearest(np.float32([[0, 0, 0, 1], [np.nan, 0, 0, 1]]), 2)
    vectors[2, 1] = np.inf
    with pytest.raises(DataError, match="the vector of document 2 is not finite"):
        ExactSearch(vectors, library)


def test_faiss_asked_for_and_missing_is_said(monkeypatch):
    monkeypatch.setattr(search, "faiss_installed", lambda: False)
    with pytest.raises(DataError, match="pip install faiss-cpu, or take torch"):
        ExactSearch(np.eye(2, dtype=np.float32), "faiss")
    assert ExactSearch(np.eye(2, dtype=np.float32)).nearest(np.eye(2, dtype=np.float32), 1).ids.tolist() == [[0], [1]]


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
