"""The pool of a finished run, found again."""

import json
import shutil

import numpy as np
import pytest

from crossrank.audit.negatives import sample
from crossrank.audit.run_pool import open_run_pool
from crossrank.data.lineage_record import LineageRecord
from crossrank.errors import DataError


def test_it_is_the_pool_that_the_run_trained_on(smoke_run):
    """The rows of the run: each question's answers and what its policy took, as the cache holds them."""
    found = open_run_pool(smoke_run.folder)
    assert (len(found.pool), found.pool.candidates.shape[1]) == (200, 101)
    taken = sample(found.pool, found.policy, found.index, 200, 0).rows
    rows = LineageRecord.read(smoke_run.folder).lineage.folders(smoke_run.cache)["rows"]
    questions, documents, labels = (np.load(rows / f"{name}.npy") for name in ("questions", "documents", "labels"))
    trained = {*zip(questions[labels == 0].tolist(), documents[labels == 0].tolist(), strict=True)}
    assert {*zip(taken["question_id"], taken["candidate_id"], strict=True)} == trained


def test_a_relative_cache_is_found_below_the_folders_in_which_the_run_lies(smoke_run, tmp_path, monkeypatch):
    run = shutil.copytree(smoke_run.folder, tmp_path / "clone" / "runs" / "smoke" / "1")
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace(f"cache_dir: {smoke_run.cache}", "cache_dir: .cache"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"not cached any more, \.cache/\w+/[\w-]+; give cache_dir"):
        open_run_pool(run)
    assert len(open_run_pool(run, smoke_run.cache).pool) == 200
    (tmp_path / "clone" / ".cache").symlink_to(smoke_run.cache)
    assert len(open_run_pool(run).pool) == 200


def test_a_run_that_mined_nothing_has_no_pool(smoke_run, tmp_path):
    run = shutil.copytree(smoke_run.folder, tmp_path / "run")
    record = (run / "lineage.json").read_text()
    (run / "lineage.json").write_text(record.replace('"pool"', '"other"'))
    with pytest.raises(DataError, match="the run mined nothing"):
        open_run_pool(run)
    with pytest.raises(DataError, match=r"no lineage\.json"):
        open_run_pool(tmp_path)


def test_twins_and_a_teachers_answers_come_with_the_pool_and_may_not_be_missing(smoke_run, tmp_path):
    run = shutil.copytree(smoke_run.folder, tmp_path / "run")
    record = json.loads((run / "lineage.json").read_text())
    record["steps"] |= {"twins": {"id": "1" * 16, "description": {}}, "answers": {"id": "2" * 16, "description": {}}}
    (run / "lineage.json").write_text(json.dumps(record))
    cache = tmp_path / "cache"
    for kind, identity, name, part in (("twins", "1", "twins", np.uint8), ("teachers", "2", "teacher", np.float32)):
        (cache / kind / (identity * 16)).mkdir(parents=True)
        np.save(cache / kind / (identity * 16) / f"{name}.npy", np.full((200, 101), 1, part))
    for kind in ("pools", "sources"):
        (cache / kind).symlink_to(smoke_run.cache / kind)
    pool = open_run_pool(run, cache).pool
    assert pool.twins.sum() == pool.teacher.sum() == 200 * 101
    with pytest.raises(DataError, match="twins/1111111111111111; give cache_dir"):
        open_run_pool(run, smoke_run.cache)


def test_another_policy_than_ours_cannot_be_told(smoke_run, tmp_path):
    run = shutil.copytree(smoke_run.folder, tmp_path / "run")
    (run / "lineage.json").write_text((run / "lineage.json").read_text().replace('"kind": "Policy"', '"kind": "Own"'))
    with pytest.raises(DataError, match="its policy was a Own"):
        open_run_pool(run)
