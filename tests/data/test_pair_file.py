import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossrank.data import pair_file
from crossrank.data.pair_file import open_pairs, write_pairs, write_stream
from crossrank.data.pairs import QAPairs
from crossrank.data.readers import read_rows
from crossrank.data.texts import Texts

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
rows = st.lists(st.tuples(text, text, st.floats(width=32, allow_nan=False), st.integers(1, 9)), max_size=9)


@settings(deadline=None)
@given(rows=rows, labelled=st.booleans(), scored=st.booleans(), repeated=st.booleans(), block=st.integers(1, 4))
def test_pairs_come_back_as_they_were(tmp_path_factory, rows, labelled, scored, repeated, block):
    file = tmp_path_factory.getbasetemp() / "pairs.arrow"
    pairs = QAPairs(
        [row[0] for row in rows], [row[1] for row in rows],
        np.float32([row[2] for row in rows]) if labelled else None, scored and labelled,
        np.int32([row[3] for row in rows]) if repeated else None,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pair_file, "PAIRS_PER_BLOCK", block)
        write_pairs(file, pairs)
    assert open_pairs(file) == pairs
    assert len(open_pairs(file).take(np.arange(len(rows))[::-1])) == len(rows)


@pytest.mark.parametrize("labels", [None, "label", "score"])
def test_a_stream_is_written_as_it_comes(tmp_path, monkeypatch, labels):
    monkeypatch.setattr(pair_file, "PAIRS_PER_BLOCK", 2)
    rows = [("a", "b", 0.5), ("c", "d", 1.0), ("e", "f", 0.0)]
    write_stream(tmp_path / "a.arrow", (row if labels else row[:2] for row in rows), labels)
    pairs = open_pairs(tmp_path / "a.arrow")
    assert list(zip(pairs.questions, pairs.answers, strict=True)) == [row[:2] for row in rows]
    assert (pairs.labels is None) == (labels is None)
    assert pairs.scored == (labels == "score")
    if labels:
        assert pairs.labels.tolist() == [0.5, 1, 0]


def test_texts_lie_in_the_file_and_not_in_memory(tmp_path):
    write_pairs(tmp_path / "a.arrow", QAPairs(["q" * 1000] * 1000, ["a" * 1000] * 1000))
    before = pa.total_allocated_bytes()
    pairs = open_pairs(tmp_path / "a.arrow")
    assert isinstance(pairs.questions, Texts)
    assert pairs.answers[999] == "a" * 1000
    assert pa.total_allocated_bytes() - before < 10_000


def test_the_file_can_be_read_as_any_other(tmp_path):
    write_pairs(tmp_path / "a.arrow", QAPairs(["q", "p"], ["a", "b"], np.float32([1, 0])))
    assert [row for _, row in read_rows(tmp_path / "a.arrow")] == [
        {"question": "q", "answer": "a", "label": 1.0},
        {"question": "p", "answer": "b", "label": 0.0},
    ]


def test_an_interrupted_file_is_closed_and_no_whole_one(tmp_path):
    def broken():
        yield "a", "b"
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_stream(tmp_path / "a.arrow", broken())
    with pytest.raises(pa.ArrowInvalid):
        open_pairs(tmp_path / "a.arrow")
