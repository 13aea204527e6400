"""st's metrics against hand-worked lists, a brute-force reading of the definitions, and sentence-transformers."""

from itertools import groupby
from math import log2

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers.cross_encoder.evaluation import CrossEncoderRerankingEvaluator

from crossrank.errors import DataError
from crossrank.evaluation.metrics import RankingMetrics, st_metrics

NOTHING_FOUND = (0, 0, 0)


def ranking_metrics(relevant, scores, k):
    """MAP, MRR and NDCG of one list."""
    return RankingMetrics(*(column.item() for column in st_metrics(relevant, scores, [len(relevant)], k)))


@st.composite
def ranked_lists(draw, levels):
    """At least two documents, at least one relevant; few levels give ties, None gives distinct scores."""
    size = draw(st.integers(2, 40))
    relevant = draw(st.lists(st.integers(0, 1), min_size=size, max_size=size).filter(any))
    if levels is None:
        scores = draw(st.permutations(range(size)))
    else:
        scores = draw(st.lists(st.integers(0, levels - 1), min_size=size, max_size=size))
    return relevant, np.asarray(scores, np.float32) / 7, draw(st.integers(1, 15))


def tie_groups(relevant, scores):
    """Documents by falling score, those of one score together."""
    order = sorted(zip(scores.tolist(), relevant, strict=True), key=lambda pair: -pair[0])
    return [[label for _, label in group] for _, group in groupby(order, key=lambda pair: pair[0])]


def by_definition(relevant, scores, k):
    """MAP with a tie as one step; NDCG@k with the gain of a tie spread evenly over its ranks."""
    total, seen, found, average_precision, dcg = sum(relevant), 0, 0, 0.0, 0.0
    for group in tie_groups(relevant, scores):
        first = seen + 1
        seen, found = seen + len(group), found + sum(group)
        average_precision += sum(group) / total * found / seen
        dcg += sum(group) / len(group) * sum(1 / log2(rank + 1) for rank in range(first, seen + 1) if rank <= k)
    ideal = sum(1 / log2(rank + 1) for rank in range(1, min(k, total) + 1))
    return average_precision, dcg / ideal


def test_hand_worked_list():
    """Ranked N P N P: precision 1/2 and 2/4 at the hits; hits at ranks 2 and 4."""
    found = ranking_metrics([0, 1, 0, 1], [0.9, 0.8, 0.7, 0.1], 10)
    assert found.map == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert found.mrr == pytest.approx(1 / 2)
    assert found.ndcg == pytest.approx((1 / log2(3) + 1 / log2(5)) / (1 / log2(2) + 1 / log2(3)))


def test_the_list_is_sorted_by_score_and_not_by_position():
    assert ranking_metrics([1, 0, 0], [-3.0, 2.0, 5.0], 10) == pytest.approx((1 / 3, 1 / 3, 1 / log2(4), 3))


def test_map_looks_past_k_and_the_others_do_not():
    scores = np.arange(12, 0, -1)
    found = ranking_metrics([0] * 11 + [1], scores, 10)
    assert found == pytest.approx((1 / 12, 0.0, 0.0, 12))
    assert ranking_metrics([0] * 9 + [1, 0, 0], scores, 10).mrr == pytest.approx(1 / 10)


def test_a_tie_of_five_counts_against_the_positive_in_mrr_only():
    """sentence-transformers puts the relevant documents first and reads numpy's ascending order backwards."""
    found = ranking_metrics([1, 0, 0, 0, 0], np.zeros(5, np.float32), 10)
    assert found.mrr == pytest.approx(0.2)
    assert found.map == pytest.approx(0.2)
    assert found.ndcg == pytest.approx(sum(1 / log2(r + 1) for r in range(1, 6)) / 5)


def test_a_tie_of_sixteen_pushes_the_positive_past_k():
    assert ranking_metrics([1] + [0] * 15, np.zeros(16, np.float32), 10).mrr == 0.0


@given(ranked_lists(levels=4))
def test_map_and_ndcg_follow_their_definitions_with_ties(case):
    found = ranking_metrics(*case)
    assert (found.map, found.ndcg) == pytest.approx(by_definition(*case), abs=1e-12)


@given(ranked_lists(levels=None))
def test_all_three_follow_their_definitions_without_ties(case):
    relevant, scores, k = case
    found = ranking_metrics(relevant, scores, k)
    hits = [rank for rank, i in enumerate(np.argsort(-scores), start=1) if relevant[i]]
    assert (found.map, found.ndcg) == pytest.approx(by_definition(*case), abs=1e-12)
    assert found.map == pytest.approx(np.mean([n / rank for n, rank in enumerate(hits, start=1)]), abs=1e-12)
    assert found.mrr == (1 / hits[0] if hits[0] <= k else 0)


@settings(max_examples=200)
@given(st.sampled_from([2, 5, None]).flatmap(ranked_lists))
def test_equals_sentence_transformers(case):
    relevant, scores, k = case
    reference = CrossEncoderRerankingEvaluator([], at_k=k)
    mrr, ndcg, average_precision = reference.compute_metrics(relevant, scores)
    assert ranking_metrics(relevant, scores, k)[:3] == pytest.approx((average_precision, mrr, ndcg), abs=1e-12)


def test_nothing_relevant_is_nothing_found():
    assert ranking_metrics([0, 0], [1.0, 2.0], 10)[:3] == NOTHING_FOUND
    assert np.isnan(ranking_metrics([0, 0], [1.0, 2.0], 10).first_rank)


@pytest.mark.parametrize(("relevant", "expected"), [(1, 1.0), (0, 0.0)])
def test_one_document_is_defined(relevant, expected):
    assert ranking_metrics([relevant], [0.3], 10)[:3] == (expected,) * 3


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("relevant", [[1, 0, 0], [0, 0, 0]])
def test_scores_that_are_not_finite_are_refused(relevant, bad):
    with pytest.raises(DataError, match="2 of 3 scores are NaN or infinite"):
        ranking_metrics(relevant, [0.1, bad, bad], 10)


@given(st.lists(st.sampled_from([2, None]).flatmap(ranked_lists), min_size=1, max_size=6), st.integers(1, 12))
def test_lists_do_not_meet(cases, k):
    """Several queries in one call are as each alone, an empty list among them too."""
    relevant = np.concatenate([*(case[0] for case in cases), []])
    scores = np.concatenate([*(case[1] for case in cases), []])
    together = st_metrics(relevant, scores, [*(len(case[0]) for case in cases), 0], k)
    for i, case in enumerate(cases):
        alone = ranking_metrics(case[0], case[1], k)
        assert [column[i] for column in together] == pytest.approx(list(alone), abs=1e-12)
    assert [column[-1] for column in together[:3]] == [0, 0, 0]
