"""What the figures of a pool draw, read back from the axes."""

import dataclasses

import matplotlib as mpl

mpl.use("Agg")

import numpy as np
import pytest
from matplotlib.figure import Figure
from table_miner import TableMiner, mined

from crossrank.audit.negative_figures import (
    ANSWER,
    LEFT,
    REFUSED,
    TAKEN,
    Candidates,
    candidates_of,
    fates_by_rank,
    margin_histogram,
    scores_by_rank,
)
from crossrank.data.pairs import QAPairs
from crossrank.data.policy import Policy


@pytest.fixture
def axes():
    return Figure().subplots()


@pytest.fixture
def pool(tmp_path):
    """Question p has the answers a (3) and b (2) and finds c (5), d (4), e (1); q has b (4) and finds e (5), d (3)."""
    table = [[3, 2, 5, 4, 1], [1, 4, 2, 3, 5]]
    pairs = QAPairs(["p", "p", "q"], ["a", "b", "b"])
    return mined(pairs, TableMiner(table), 4, tmp_path / "pool", list("cde"))[1]


def test_each_candidate_has_its_fate_and_its_margin_to_the_lowest_answer(pool):
    """In the order of the pool p finds c d a b e, and q finds e b d c a."""
    found = candidates_of(pool, Policy(1, rank_max=4, max_score=4.0))
    assert found.fate.tolist() == [[REFUSED, TAKEN, ANSWER, ANSWER, LEFT], [REFUSED, ANSWER, TAKEN, LEFT, LEFT]]
    assert found.margins.tolist() == [[-3, -2, -1, 0, 1], [-1, 0, 1, 2, 3]]
    assert found.answer_scores.tolist() == [2, 4]
    twins = dataclasses.replace(pool, twins=np.uint8([[0, 1, 0, 0, 0], [0] * 5]))
    found = candidates_of(twins, Policy(1, rank_max=4, max_score=4.0))
    assert found.fate[0].tolist() == [REFUSED, REFUSED, ANSWER, ANSWER, TAKEN]


def test_a_sample_of_questions_is_a_function_of_its_seed(pool):
    drawn = {tuple(candidates_of(pool, Policy(1, rank_max=4), most=1, seed=seed).answer_scores) for seed in range(8)}
    assert drawn == {(2.0,), (4.0,)}
    one, again = (candidates_of(pool, Policy(1, rank_max=4), most=1, seed=3) for _ in range(2))
    assert one.fate.tolist() == again.fate.tolist()


def candidates():
    """Four questions of three candidates; the second question has but two."""
    fate = np.array([[ANSWER, TAKEN, LEFT], [TAKEN, TAKEN, ""], [REFUSED, TAKEN, LEFT], [REFUSED, ANSWER, LEFT]])
    scores = np.float32([[9, 5, 1], [8, 4, -np.inf], [6, 3, 2], [7, 5, 3]])
    answers = np.float32([9, 6, 4, 5])
    return Candidates(scores, answers[:, None] - scores, fate, answers)


def test_scores_are_the_medians_of_what_is_no_answer(axes):
    scores_by_rank(candidates(), axes)
    ours, answers = axes.lines
    assert dict(zip(*ours.get_data(), strict=True)) == {1: 7.0, 2: 4.0, 3: 2.0}  # of 8 6 7, of 5 4 3, of 1 2 3
    assert answers.get_ydata()[0] == 5.5
    band = axes.collections[0].get_paths()[0].vertices
    assert {(1.0, 6.2), (1.0, 7.8)} <= {(x, round(y, 6)) for x, y in band.tolist()}
    assert axes.get_title() == "Scores of 4 questions"


def test_fates_are_stacked_shares_of_the_questions(axes):
    fates_by_rank(candidates(), axes)
    heights = {bars.get_label(): [bar.get_height() for bar in bars] for bars in axes.containers}
    assert heights == {ANSWER: [25, 25, 0], TAKEN: [25, 75, 0], LEFT: [0, 0, 75], REFUSED: [50, 0, 0]}
    assert [bar.get_y() for bar in axes.containers[3]] == [50, 100, 75]
    assert axes.get_title() == "1.00 negatives a question; 1 of 4 questions have none"


def test_margins_of_all_candidates_and_of_those_taken_are_two_outlines(axes):
    """Of the 9 that are no answers the margins are 4 8, -2 2, -2 1 2, -2 2; of the taken 4, -2, 2, 1."""
    margin_histogram(candidates(), axes)
    every, taken = (patch.get_data() for patch in axes.patches)
    for values, count, below in ((every, 9, 3), (taken, 4, 1)):
        edges = values.edges
        assert 0.0 in edges
        assert np.allclose(np.diff(edges), edges[1] - edges[0])
        assert values.values.sum() == pytest.approx(100)
        assert values.values[edges[:-1] < 0].sum() == pytest.approx(100 * below / count)
    place = np.searchsorted(taken.edges, 4.0, side="right") - 1
    assert taken.values[place] == pytest.approx(25)
    assert axes.get_title() == "25.0% of the negatives that are taken score above an answer"


def test_a_pool_of_answers_alone_is_drawn_empty(axes):
    nothing = Candidates(np.float32([[1]]), np.float32([[0]]), np.array([[ANSWER]]), np.float32([1]))
    margin_histogram(nothing, axes)
    assert all(patch.get_data().values.sum() == 0 for patch in axes.patches)
