import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossrank.data import whole_questions
from crossrank.data.order import epoch_order
from crossrank.data.whole_questions import WholeQuestions


@dataclasses.dataclass
class Rows:
    folder: Path
    questions: np.ndarray
    again: np.ndarray | None = None

    @property
    def labels(self):
        return np.zeros(len(self.questions))


def test_a_question_brings_all_its_rows_and_each_row_knows_its_visit(tmp_path):
    whole = WholeQuestions(Rows(tmp_path / "rows", np.int32([0, 0, 2, 5, 5, 5])))  # questions may lack rows
    assert len(whole) == 3
    rows, visit = whole.rows_of(np.array([2, 0]))
    assert rows.tolist() == [3, 4, 5, 0, 1]
    assert visit.tolist() == [0, 0, 0, 1, 1]


def test_a_question_that_is_visited_again_is_a_list_of_its_own(tmp_path):
    """Rows 2 to 4, question 7, are visited three times."""
    whole = WholeQuestions(Rows(tmp_path / "rows", np.int32([3, 3, 7, 7, 7]), np.array([2, 3, 4, 2, 3, 4])))
    assert len(whole) == 4
    rows, visit = whole.rows_of(np.array([3, 0, 2, 1]))
    assert rows.tolist() == [2, 3, 4, 0, 1, 2, 3, 4, 2, 3, 4]
    assert visit.tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 3, 3, 3]


@settings(deadline=None, max_examples=30)
@given(lengths=st.lists(st.integers(1, 5), min_size=1, max_size=30), block=st.integers(1, 7))
def test_an_epoch_visits_every_row_once_however_the_questions_are_read(tmp_path_factory, lengths, block):
    rows = Rows(tmp_path_factory.mktemp("q") / "rows", np.repeat(np.arange(len(lengths), dtype=np.int32), lengths))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(whole_questions, "ROWS_PER_BLOCK", block)
        whole = WholeQuestions(rows)
        order = whole.order(12, 3)
    assert order.tolist() == epoch_order(len(lengths), 12, 3).tolist()
    visited, visit = whole.rows_of(order)
    assert sorted(visited) == list(range(sum(lengths)))
    assert np.bincount(visit).tolist() == [lengths[q] for q in order]


def test_orders_and_offsets_are_written_once_and_mapped(tmp_path, monkeypatch):
    rows = Rows(tmp_path / "rows", np.int32([0, 0, 1]))
    first = WholeQuestions(rows).order(12, 0)
    monkeypatch.setattr(whole_questions, "permute", lambda *_: pytest.fail("the order was there already"))
    monkeypatch.setattr(whole_questions, "growing_arrays", lambda *_: pytest.fail("the offsets were there already"))
    again = WholeQuestions(SimpleNamespace(**vars(rows))).order(12, 0)
    assert isinstance(again, np.memmap)
    assert again.tolist() == first.tolist()
