import logging

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from crossrank.data.judged import Judged, offsets_of

labelled = st.tuples(st.integers(0, 3), st.integers(0, 4), st.sampled_from([0.0, 0.5, 1.0, -2.0]))


@settings(deadline=None)
@given(rows=st.lists(labelled, max_size=20))
def test_each_questions_documents_come_once_best_label_first_then_in_order(rows):
    keys = np.array([(q << 32) + d for q, d, _ in rows], np.int64)
    judged = Judged.of(keys, np.array([label for *_, label in rows], np.float32), True, 5)
    got = [
        [(int(judged.documents[i]), float(judged.labels[i])) for i in range(judged.offsets[q], judged.offsets[q + 1])]
        for q in range(5)
    ]
    for question in range(5):
        best: dict[int, float] = {}
        for q, d, label in rows:
            if q == question:
                best[d] = max(label, best.get(d, label))
        assert got[question] == sorted(best.items(), key=lambda item: -item[1])


def test_pairs_that_are_labelled_unlike_are_counted(caplog):
    keys = np.array([7, 9, 7, 9, 9], np.int64)
    judged = Judged.of(keys, np.float32([0, 1, 1, 1, 1]), False, 1)
    assert judged.documents.tolist() == [7, 9]
    assert judged.labels.tolist() == [1, 1]
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == ["1 pairs have several labels, of which the highest counts"]


def test_offsets_of_questions_without_a_row():
    assert offsets_of(np.int32([1, 1, 3]), 5).tolist() == [0, 0, 2, 2, 3, 3]
