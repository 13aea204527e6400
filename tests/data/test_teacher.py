import numpy as np
import pytest
from table_miner import TableMiner, mined

from crossrank.data import cache, teacher
from crossrank.data.cache import cached
from crossrank.data.pairs import QAPairs
from crossrank.data.policy import Policy
from crossrank.data.teacher import ask, filters_of
from crossrank.errors import DataError


class Table:
    """Answers from a table of texts."""

    def __init__(self, answers, candidates=2) -> None:
        self.answers, self.candidates, self.asked = answers, candidates, []

    def probabilities(self, pairs):
        self.asked += pairs
        return np.float32([self.answers[document] for _, document in pairs])


@pytest.fixture
def pool(tmp_path):
    """Two questions, of which "p" finds c, d, a, b, e and "q" finds e, b, d, c, a."""
    table = [[3, 2, 5, 4, 1], [1, 4, 2, 3, 5]]
    return mined(QAPairs(["p", "q"], ["a", "b"]), TableMiner(table), 4, tmp_path / "pool", list("cde"))


ANSWERS = {"a": 0.9, "b": 0.8, "c": 0.95, "d": 0.2, "e": 0.4}


def test_the_best_survivors_are_asked_about_and_nobody_else(pool, tmp_path):
    index, mined_pool = pool
    ask(asked := Table(ANSWERS), mined_pool, Policy(3, rank_max=4), index, tmp_path)
    np.testing.assert_array_equal(
        np.load(tmp_path / "teacher.npy"),
        np.float32([[0.95, 0.2, np.nan, np.nan, np.nan], [0.4, np.nan, 0.2, np.nan, np.nan]]),
    )
    assert asked.asked == [("p", "c"), ("p", "d"), ("q", "e"), ("q", "d")]


def test_what_the_filters_leave_out_is_not_asked_about(pool, tmp_path):
    index, mined_pool = pool
    policy = Policy(3, rank_max=4, absolute_margin=0.0)  # below 3 for p: e; below 4 for q: d, c, a
    ask(asked := Table(ANSWERS), mined_pool, policy, index, tmp_path)
    assert asked.asked == [("p", "b"), ("p", "e"), ("q", "d"), ("q", "c")]


def test_how_many_are_drawn_and_what_the_verdict_does_is_no_other_question_to_the_teacher():
    policy = Policy(3, rank_max=40)
    for other in (Policy(5, rank_max=40, sampling="random", fresh=True), Policy(3, rank_max=40, teacher_above=0.5)):
        assert filters_of(policy) == filters_of(other)
    for other in (Policy(3, rank_max=41), Policy(3, rank_max=40, max_score=1.0), Policy(3, 1, 40)):
        assert filters_of(policy) != filters_of(other)
    assert set(filters_of(policy)) | set(teacher.NOT_OF_THE_FILTERS) == set(Policy.__dataclass_fields__)


def test_interrupted_asking_goes_on_where_it_stopped(pool, tmp_path, monkeypatch):
    index, mined_pool = pool
    monkeypatch.setattr(cache.Unfinished.__init__, "__defaults__", (0.0,))
    monkeypatch.setattr(teacher, "QUESTIONS_PER_BLOCK", 1)
    ask(Table(ANSWERS), mined_pool, Policy(3, rank_max=4), index, tmp_path)
    broken = Table({text: answer for text, answer in ANSWERS.items() if text != "e"})
    again = Table(ANSWERS)
    with pytest.raises(KeyError):
        cached(tmp_path / "asked", lambda to: ask(broken, mined_pool, Policy(3, rank_max=4), index, to), True)
    cached(tmp_path / "asked", lambda to: ask(again, mined_pool, Policy(3, rank_max=4), index, to), True)
    assert again.asked == [("q", "e"), ("q", "d")]
    np.testing.assert_array_equal(np.load(tmp_path / "asked" / "teacher.npy"), np.load(tmp_path / "teacher.npy"))


@pytest.mark.parametrize("wrong", [-0.1, 1.5, np.nan])
def test_an_answer_that_is_no_probability_is_refused(pool, tmp_path, wrong):
    index, mined_pool = pool
    with pytest.raises(DataError, match=r"Table gave .* near question 0; a probability between 0 and 1"):
        ask(Table({**ANSWERS, "d": wrong}), mined_pool, Policy(3, rank_max=4), index, tmp_path)
