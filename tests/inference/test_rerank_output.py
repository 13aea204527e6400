import errno
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crossrank.errors import CacheError, DataError, ResumeError
from crossrank.evaluation.formats import read_ranking
from crossrank.inference.rerank_output import SCHEMA, Done, RerankOutput, opened

INPUTS = {"run": "abc", "rerank_k": 100}


def part(query, *documents):
    logits = [2.0 - i for i in range(len(documents))]
    rows = [(query, d, i + 1, 0.5, logits[i], 9, i == 0) for i, d in enumerate(documents)]
    return pa.table([pa.array(c, f.type) for c, f in zip(zip(*rows, strict=True), SCHEMA, strict=True)], SCHEMA)


def test_parts_become_one_table_and_one_run(tmp_path):
    with opened(tmp_path / "out", INPUTS) as output:
        output.add(part("q1", "d2", "d1"), 1, 2, 1)
        output.add(part("q2", "d1"), 1, 1, 0)
        assert output.done == Done(2, 2, 3, 1)
        output.finish()
    assert sorted(file.name for file in (tmp_path / "out").iterdir() if file.name != ".lock") == [
        "progress.json", "run.trec", "scores.parquet",
    ]  # fmt: skip
    assert pq.read_table(tmp_path / "out" / "scores.parquet").equals(
        pa.concat_tables([part("q1", "d2", "d1"), part("q2", "d1")])
    )
    assert (tmp_path / "out" / "run.trec").read_text().splitlines()[1] == "q1 Q0 d1 2 1 crossrank"
    assert read_ranking(tmp_path / "out" / "run.trec", None, None) == {"q1": ["d2", "d1"], "q2": ["d1"]}


def test_what_is_on_the_disk_is_gone_on_with_and_a_part_that_is_not_counted_is_written_again(tmp_path):
    with opened(tmp_path, INPUTS) as output:
        output.add(part("q1", "d1"), 1, 1, 0)
        output._count = lambda **_: None  # a kill between a part and its count
        output.add(part("q2", "broken"), 1, 1, 0)
    with opened(tmp_path, INPUTS) as output:
        assert output.done == Done(1, 1, 1, 0)
        output.add(part("q2", "d2"), 1, 1, 0)
        output.finish()
    assert pq.read_table(tmp_path / "scores.parquet")["document_id"].to_pylist() == ["d1", "d2"]
    before = (tmp_path / "run.trec").stat().st_mtime_ns
    with opened(tmp_path, INPUTS) as output:
        assert output.done.finished
        output.finish()
    assert (tmp_path / "run.trec").stat().st_mtime_ns == before


def test_other_inputs_are_refused_by_name(tmp_path):
    with opened(tmp_path, INPUTS) as output:
        output.add(part("q1", "d1"), 1, 1, 0)
    message = "holds scores of something else: rerank_k differs; give what it was begun with, or another output="
    with pytest.raises(ResumeError, match=message), opened(tmp_path, INPUTS | {"rerank_k": 5}):
        pass
    with (
        pytest.raises(ResumeError, match="candidates, run differ;"),
        opened(tmp_path, {"candidates": 1, "rerank_k": 100}),
    ):
        pass
    assert json.loads((tmp_path / "progress.json").read_text())["queries"] == 1


def test_a_folder_that_is_not_ones_own_is_refused(tmp_path):
    (tmp_path / "run.trec").write_text("")
    with pytest.raises(DataError, match=r"holds results without a progress\.json"), opened(tmp_path, INPUTS):
        pass
    (tmp_path / "progress.json").write_text("{")
    with pytest.raises(ResumeError, match=r"progress\.json cannot be read"), opened(tmp_path, INPUTS):
        pass
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match=r"cannot write .*file"), opened(tmp_path / "file", INPUTS):
        pass


def test_one_process_writes_at_a_time(tmp_path):
    with (
        opened(tmp_path, INPUTS),
        pytest.raises(ResumeError, match="another process is writing to"),
        opened(tmp_path, INPUTS),
    ):
        pass


def test_a_full_disk_is_one_sentence_and_what_was_done_is_there(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with opened(tmp_path, INPUTS) as output:
        output.add(part("q1", "d1"), 1, 1, 0)
    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(CacheError, match=r"the disk is full .* goes on from the last part"):
        _add(tmp_path, part("q2", "d1"))
    assert RerankOutput(tmp_path, INPUTS).done == Done(1, 1, 1, 0)


def _add(folder, rows):
    with opened(folder, INPUTS) as output:
        output.add(rows, 1, 1, 0)
