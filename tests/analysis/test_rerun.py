import json

import pytest

from crossrank.analysis.rerun import compared
from crossrank.errors import DataError


def run(folder, *lines, weights=b"weights"):
    (folder / "export").mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if weights:
        (folder / "export" / "model.safetensors").write_bytes(weights)
    return folder


FIRST = {"step": 1, "time": 5.0, "train/loss": 0.5, "train/pairs_per_second": 9.0, "health/x": None}
LAST = {"step": 3, "time": 9.0, "eval/dev/dev/ndcg@10": 0.25, "eval/seconds": 3.0}


def test_what_depends_on_the_clock_is_not_compared(tmp_path):
    later = [{**FIRST, "time": 6.0, "train/pairs_per_second": 1.0}, {**LAST, "eval/seconds": 1.0}]
    found = compared(run(tmp_path / "a", FIRST, LAST), run(tmp_path / "b", *later))
    assert found == (3, [])
    assert found.words(tmp_path / "a") == (
        f"the same as {tmp_path / 'a'}: 3 logged values and the exported weights, bit for bit"
    )


def test_every_difference_is_named_the_earliest_first(tmp_path):
    """A value in its last bit, one that is missing, one that is new, and the weights."""
    again = [{**FIRST, "train/loss": 0.5000000000000001}, {"step": 3, "time": 1.0, "eval/dev/dev/map": 0.5}]
    found = compared(run(tmp_path / "a", FIRST, LAST), run(tmp_path / "b", *again, weights=b"others"))
    assert found.differences == [
        "step 1, train/loss was 0.5 and is 0.5000000000000001",
        "step 3, eval/dev/dev/map was not logged and is 0.5",
        "step 3, eval/dev/dev/ndcg@10 was 0.25 and is not logged",
        "the weights in export/model.safetensors differ",
    ]
    assert found.words(tmp_path / "a").startswith(
        f"not the same as {tmp_path / 'a'}: 4 differences, the first: step 1,"
    )


def test_weights_that_are_gone_are_no_proof(tmp_path):
    found = compared(run(tmp_path / "a", FIRST, weights=None), run(tmp_path / "b", FIRST))
    assert found.differences == [
        f"the exported weights cannot be compared, {tmp_path / 'a' / 'export' / 'model.safetensors'} is not there"
    ]


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(DataError, match="a run's folder is wanted"):
        compared(tmp_path / "nothing", run(tmp_path / "b", FIRST))
