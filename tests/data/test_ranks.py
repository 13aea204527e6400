import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossrank.data import ranks
from crossrank.data.ranks import whole_questions, write_ranks

groups = st.lists(st.lists(st.sampled_from([0.0, 0.5, 1.0, 3.0]), min_size=1, max_size=6), max_size=6)


@settings(deadline=None)
@given(groups=groups, block=st.integers(1, 9), whole=st.booleans())
def test_a_negative_counts_those_before_it_of_its_question(tmp_path_factory, groups, block, whole):
    file = tmp_path_factory.getbasetemp() / "ranks.npy"
    labels = np.array([label for group in groups for label in group], np.float32)
    labels = (labels > 0).astype(np.uint8) if whole else labels
    questions = np.repeat(np.arange(len(groups), dtype=np.int32) * 2, [len(group) for group in groups])
    wanted = []
    for question in np.unique(questions):
        of_question, negatives = labels[questions == question], 0
        for label in of_question:
            is_negative = label == 0 or label < max(of_question)
            negatives += is_negative
            wanted.append(negatives if is_negative else 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranks, "ROWS_PER_BLOCK", block)
        write_ranks(questions, labels, file)
    got = np.load(file)
    assert got.tolist() == wanted
    assert got.dtype == np.uint8


def test_blocks_split_no_question(monkeypatch):
    monkeypatch.setattr(ranks, "ROWS_PER_BLOCK", 3)
    blocks = list(whole_questions(np.int32([0, 0, 1, 1, 1, 5, 6, 6])))
    assert [(block.start, block.stop) for block in blocks] == [(0, 5), (5, 8)]
