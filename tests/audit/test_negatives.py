import csv

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from table_miner import TableMiner, mined

from crossrank.audit import negatives
from crossrank.audit.negatives import (
    Sampled,
    closest,
    duplicates,
    judged,
    rate,
    read_labels,
    sample,
    sections,
    write_sheet,
)
from crossrank.data.pairs import QAPairs
from crossrank.data.policy import Policy
from crossrank.errors import DataError


class Table:
    candidates = 5

    def __init__(self, answers) -> None:
        self.answers = answers

    def probabilities(self, pairs):
        return np.float32([self.answers[document] for _, document in pairs])


@pytest.fixture
def pool(tmp_path):
    """Question p has the answers a (3) and b (2) and finds c (5), d (4), e (1); q has b (4) and finds e (5), d (3)."""
    table = [[3, 2, 5, 4, 1], [1, 4, 2, 3, 5]]
    pairs = QAPairs(["p", "p", "q"], ["a", "b", "b"])
    return mined(pairs, TableMiner(table), 4, tmp_path / "pool", list("cde"))


def test_the_sample_has_the_policys_negatives_with_rank_and_margin_to_the_lowest_answer(pool):
    index, mined_pool = pool
    found = sample(mined_pool, Policy(2, rank_max=4), index, 10, seed=0)
    assert (found.questions, found.without, found.asked) == (2, 0, False)
    columns = ["question", "answer", "candidate", "rank", "score", "margin"]
    assert found.rows[columns].to_numpy().tolist() == [
        ["p", "b", "c", 1, 5.0, -3.0], ["p", "b", "d", 2, 4.0, -2.0],
        ["q", "b", "e", 1, 5.0, -1.0], ["q", "b", "d", 3, 3.0, 1.0],
    ]  # fmt: skip


def test_questions_without_a_negative_are_counted(pool):
    index, mined_pool = pool
    found = sample(mined_pool, Policy(2, rank_max=4, max_score=1.0), index, 10, seed=0)
    assert (found.questions, found.without, found.rows["candidate"].tolist()) == (2, 0, ["e", "a"])
    found = sample(mined_pool, Policy(2, rank_max=4, max_score=1.0, min_score=1.0, absolute_margin=1.5), index, 10, 0)
    assert (found.questions, found.without) == (2, 1)
    nothing = sample(mined_pool, Policy(2, rank_max=4, max_score=0.5), index, 10, seed=0)
    assert (nothing.questions, nothing.without, len(nothing.rows)) == (2, 2, 0)
    assert "2 of which have none" in sections(nothing, 0.9)[1].note


def test_a_sample_is_a_function_of_its_seed(pool):
    index, mined_pool = pool
    for seed in range(4):
        one, again = (sample(mined_pool, Policy(2, rank_max=4), index, 1, seed) for _ in range(2))
        pd.testing.assert_frame_equal(one.rows, again.rows)
        assert one.questions == 1


def test_a_teacher_judges_negatives_against_the_best_answer_of_their_question(pool):
    index, mined_pool = pool
    answers = {"a": 0.9, "b": 0.5, "c": 0.95, "d": 0.7, "e": 0.4}
    found = judged(sample(mined_pool, Policy(2, rank_max=4), index, 10, 0), mined_pool, index, Table(answers))
    np.testing.assert_allclose(found.rows["teacher"], [0.95, 0.7, 0.4, 0.7])
    np.testing.assert_allclose(found.rows["teacher_of_answer"], [0.9, 0.9, 0.5, 0.5])
    margins, rates, suspects = sections(found, threshold=0.9)
    assert [row[:2] for row in rates.rows] == [
        ("the miner scores it above an answer", "75.0%"),  # 2 of 2 and 1 of 2
        ("the teacher scores it above every answer", "50.0%"),
        ("its probability is above 0.9", "25.0%"),
    ]
    assert [(row[0], row[2], row[3]) for row in suspects.rows] == [("q", "d", "3"), ("p", "c", "1")]
    assert sum(int(row[1]) for row in margins.rows) == 4


def test_the_closest_negatives_stand_by_their_margin(pool):
    index, mined_pool = pool
    section = closest(sample(mined_pool, Policy(2, rank_max=4), index, 10, seed=0), most=3)
    assert [tuple(row) for row in section.rows] == [
        ("p", "b", "c", "1", "-3.000"), ("p", "b", "d", "2", "-2.000"), ("q", "b", "e", "1", "-1.000"),
    ]  # fmt: skip
    assert section.note.startswith("3 of 4 negatives score above an answer; these 3 ")


def test_the_rate_resamples_questions_not_negatives():
    """50 questions whose five negatives are all false or all not: the width is that of 50 draws, not of 250."""
    rng = np.random.default_rng(0)
    of_question = rng.random(50) < 0.3
    flags, questions = pd.Series(np.repeat(of_question, 5)), pd.Series(np.repeat(np.arange(50), 5))
    found = rate(flags, questions)
    share = of_question.mean()
    wanted = 2 * stats.t.ppf(0.975, 49) * np.sqrt(share * (1 - share) / 49)
    assert found.mean == pytest.approx(share)
    assert found.high - found.low == pytest.approx(wanted, rel=0.08)


def test_rates_of_nothing_and_of_one_question_claim_nothing():
    assert np.isnan(rate(pd.Series([], dtype=bool), pd.Series([], dtype=int)).mean)
    assert rate(pd.Series([True, False]), pd.Series([1, 1])) == (0.5, 0.0, 1.0)


def test_none_of_thirty_is_not_never():
    """Clopper and Pearson: the upper end for 0 of n is 1 - 0.025 ** (1 / n)."""
    none, every = (rate(pd.Series([flag] * 60), pd.Series(np.repeat(np.arange(30), 2))) for flag in (False, True))
    assert none == pytest.approx((0.0, 0.0, 1 - 0.025 ** (1 / 30)))
    assert every == pytest.approx((1.0, 0.025 ** (1 / 30), 1.0))


def test_a_sheet_filled_in_by_a_person_gives_a_rate(pool, tmp_path):
    index, mined_pool = pool
    found = sample(mined_pool, Policy(2, rank_max=4), index, 10, seed=0)
    file = tmp_path / "sheet.csv"
    assert write_sheet(found, 3, 1, file) == 3
    with file.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {"question", "answer", "candidate", "relevant"} <= set(rows[0])
    assert [row["relevant"] for row in rows] == [""] * 3
    with pytest.raises(DataError, match="no row has a label"):
        read_labels(file)
    for row, label in zip(rows, ["1", "no", ""], strict=True):
        row["relevant"] = label
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    assert read_labels(file).mean == 0.5
    file.write_text(file.read_text().replace(",no,", ",perhaps,"))
    with pytest.raises(DataError, match="row 2: 'relevant' is 'perhaps'; 1, 0 or nothing is wanted"):
        read_labels(file)
    file.write_text("question,answer\na,b\n")
    with pytest.raises(DataError, match="no column 'relevant'"):
        read_labels(file)


def test_labels_stand_in_the_report_and_texts_are_shown_as_they_are(pool):
    found = Sampled(sample(pool[1], Policy(2, rank_max=4), pool[0], 10, 0).rows, 2, 0)
    rates = sections(found, 0.9, negatives.Interval(0.25, 0.1, 0.4))[1]
    assert rates.rows[-1] == ("a person labelled it relevant", "25.0%", "10.0% to 40.0%")
    section = duplicates([[0, 3], [1, 2]], 4, ["<b>a|b</b>", "c", "c.", "A B"])
    assert "4 of 4 documents stand in 2 groups" in section.note
    assert "<b>" not in section.as_markdown(2)
