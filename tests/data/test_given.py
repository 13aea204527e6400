import json
import logging

import numpy as np
import pytest
from hypothesis import given as examples
from hypothesis import settings
from hypothesis import strategies as st

from crossrank.data import ranks
from crossrank.data.given import Given, join_rows, write_given
from crossrank.data.pairs import PairIndex, QAPairs
from crossrank.errors import DataError

NAMES = ("questions", "documents", "labels")


def prepared(pairs: QAPairs, folder) -> Given:
    return Given.prepare(lambda: PairIndex.of(pairs), "texts", folder)


def rows_in(folder) -> list[tuple[int, int, float]]:
    columns = [np.load(folder / f"{name}.npy").tolist() for name in NAMES]
    return list(zip(*columns, strict=True))


def write_rows(folder, rows, dtype=np.uint8):
    folder.mkdir(exist_ok=True, parents=True)
    for i, (name, kind) in enumerate(zip(NAMES, (np.int32, np.int32, dtype), strict=True)):
        np.save(folder / f"{name}.npy", np.array([row[i] for row in rows], kind))
    return folder


LABELLED = QAPairs(["p", "p", "q", "r", "q"], ["a", "b", "c", "a", "d"], np.float32([0, 1, 1, 0, 0]))


def test_given_rows_stand_question_by_question_best_first(tmp_path):
    """p: b yes, a no; q: c yes, d no; r, which has no answer, comes last: a no."""
    folder = prepared(LABELLED, tmp_path).alone()
    index = PairIndex.of(LABELLED)
    texts = [(index.questions[q], index.documents[d], label) for q, d, label in rows_in(folder)]
    assert texts == [("p", "b", 1), ("p", "a", 0), ("q", "c", 1), ("q", "d", 0), ("r", "a", 0)]
    assert np.load(folder / "labels.npy").dtype == np.uint8
    assert prepared(QAPairs([], []), tmp_path).rows == 5  # the index is not asked again


@pytest.mark.parametrize(
    ("labels", "scored"), [([0, 2, 1, 0, 0], False), ([0, 0.5, 1, 0, 0], False), ([0, 1, 1, 0, 0], True)]
)
def test_grades_and_scores_are_float32(tmp_path, labels, scored):
    folder = prepared(QAPairs(LABELLED.questions, LABELLED.answers, np.float32(labels), scored), tmp_path).alone()
    assert np.load(folder / "labels.npy").dtype == np.float32
    assert sorted(label for *_, label in rows_in(folder)) == sorted(labels)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (QAPairs(["p"], ["a"]), "the source gives no negatives: there is nothing to tell apart; choose a miner"),
        (QAPairs(["p", "q"], ["a", "b"], np.float32([1, 1])), "the source labels all of its 2 pairs 1"),
        (QAPairs(["p", "q"], ["a", "b"], np.float32([0.5, 0.5]), True), "the source labels all of its 2 pairs 0.5"),
    ],
)
def test_rows_that_are_all_alike_teach_nothing(tmp_path, pairs, message):
    with pytest.raises(DataError, match=message):
        prepared(pairs, tmp_path).alone()


def test_questions_without_an_answer_are_counted(tmp_path, caplog):
    write_given(PairIndex.of(LABELLED), tmp_path)
    messages = [(record.levelno, record.getMessage()) for record in caplog.records]
    assert (logging.WARNING, "1 of 3 questions have no document that answers them") in messages
    assert (logging.INFO, "the source gives 3 documents besides the answers, 1.5 an answer") in messages


def test_what_mining_may_stand_beside(tmp_path):
    labelled = prepared(LABELLED, tmp_path / "a")
    labelled.allow_mining()
    with pytest.raises(DataError, match=r"which no epoch draws anew; set policy.fresh=false"):
        labelled.allow_mining(fresh=True)
    scored = prepared(QAPairs(["p"], ["a"], np.float32([3]), True), tmp_path / "b")
    with pytest.raises(DataError, match="have scores, which mined ones would lack; train with miner=none"):
        scored.allow_mining()
    pairs = prepared(QAPairs(["p"], ["a"]), tmp_path / "c")
    pairs.allow_mining(fresh=True)
    assert pairs.beside(tmp_path / "mined") == tmp_path / "mined"
    assert pairs.again(tmp_path / "mined") is None


row = st.tuples(st.integers(0, 4), st.integers(0, 5))


@settings(deadline=None)
@examples(
    first=st.dictionaries(row, st.sampled_from([0, 1]), min_size=1),
    second=st.dictionaries(row, st.just(0)),
    block=st.integers(1, 5),
)
def test_joined_rows_hold_each_pair_once_the_given_before_the_mined(tmp_path_factory, first, second, block):
    """As in a training, no question was mined for that has no given row."""
    folder = tmp_path_factory.mktemp("joined")
    asked = {q for q, _ in first}
    own = [(q, d, label) for (q, d), label in sorted(first.items())]
    mined = [(q, d, label) for (q, d), label in sorted(second.items()) if q in asked]
    (folder / "to").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranks, "ROWS_PER_BLOCK", block)
        join_rows(write_rows(folder / "given", own), write_rows(folder / "mined", mined), folder / "to")
    wanted = []
    for question in sorted(asked):
        wanted += [row for row in own if row[0] == question]
        wanted += [row for row in mined if row[0] == question and row[:2] not in first]
    assert rows_in(folder / "to") == wanted
    assert sorted(file.name for file in (folder / "to").iterdir()) == sorted(f"{name}.npy" for name in NAMES)


def test_joined_rows_lie_beside_the_mined_and_are_cached(tmp_path):
    mined = write_rows(tmp_path / "rows" / "mined", [(0, 3, 0), (1, 1, 1)])
    folder = prepared(LABELLED, tmp_path).beside(mined)
    assert folder == tmp_path / "rows" / "mined-and-given"
    assert len(rows_in(folder)) == 6  # (1, 1) is given, as the answer c of q


def test_a_question_with_copies_is_visited_again(tmp_path):
    pairs = QAPairs(["p", "q", "r", "q"], ["a", "b", "c", "d"], copies=np.int32([1, 3, 2, 3]))
    rows = write_rows(tmp_path / "rows" / "x", [(0, 0, 1), (0, 1, 0), (1, 1, 1), (1, 3, 1), (2, 2, 1), (2, 0, 0)])
    again = prepared(pairs, tmp_path).again(rows)
    assert again.tolist() == [2, 3, 4, 5, 2, 3]  # the rows of q and r, then those of q
    assert isinstance(again, np.memmap)
    assert json.loads((tmp_path / "given" / prepared(pairs, tmp_path).folder.name / "given.json").read_text()) == {
        "rows": 0, "scored": False, "copies": True,
    }  # fmt: skip
