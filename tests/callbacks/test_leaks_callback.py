import json
import logging
from types import SimpleNamespace

import pandas as pd
import pytest

from crossrank.audit.leaks import Leaks
from crossrank.callbacks.evaluation import PeriodicEvaluation
from crossrank.callbacks.leaks import LeakAudit
from crossrank.data.pair_file import write_pairs
from crossrank.data.pairs import QAPairs
from crossrank.errors import DataError
from crossrank.evaluation.reranking import RerankingTask

TASK = RerankingTask(
    "dev",
    {"q1": "why are there tides", "q2": "who bakes bread"},
    {"d1": "The moon moves the sea.", "d2": "A baker."},
    {"q1": ["d1", "d2"], "q2": ["d2", "d1"]},
    {"q1": {"d1": 1}, "q2": {"d2": 1}},
)


@pytest.fixture
def trainer(tmp_path):
    """What the callback sees of a training on two pairs, one of which asks the first query."""
    texts = tmp_path / "texts"
    texts.mkdir()
    write_pairs(texts / "train.arrow", QAPairs(["Why are there tides?", "other"], ["something", "else"]))
    evaluator = SimpleNamespace(tasks=[TASK], at_k=10, protocol="st", datasets=["dev"])
    evaluation = PeriodicEvaluation({"one": evaluator, "two": evaluator}, "eval/one/dev/ndcg@10", str(tmp_path))
    lineage = SimpleNamespace(folders=lambda cache: {"texts": texts})
    module = SimpleNamespace(rows=SimpleNamespace(lineage=lineage), cache_dir=tmp_path)
    return SimpleNamespace(is_global_zero=True, callbacks=[evaluation], datamodule=module)


def test_a_query_that_was_trained_on_is_named_and_warned_of(trainer, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        LeakAudit(str(tmp_path)).on_train_start(trainer, None)
    found = Leaks.read(tmp_path / "leaks")
    assert found.keys == {("dev", "q1")}
    assert found.queries == {"dev": 2}
    assert "1 of 2 evaluated queries stand in the training set" in caplog.text
    pd.testing.assert_frame_equal(found.touched, pd.read_parquet(tmp_path / "leaks" / "leaks.parquet"))


def test_it_looks_once_and_never_at_too_many_pairs(trainer, tmp_path):
    LeakAudit(str(tmp_path), most_pairs=1).on_train_start(trainer, None)
    assert Leaks.read(tmp_path / "leaks") is None
    LeakAudit(str(tmp_path)).on_train_start(trainer, None)
    file = tmp_path / "leaks" / "queries.json"
    file.write_text(json.dumps({"dev": 99}))
    LeakAudit(str(tmp_path)).on_train_start(trainer, None)
    assert json.loads(file.read_text()) == {"dev": 99}
    (tmp_path / "leaks" / "leaks.parquet").write_text("no table")
    with pytest.raises(DataError, match="holds no record of leaks"):
        Leaks.read(tmp_path / "leaks")


@pytest.mark.parametrize("change", [{"is_global_zero": False}, {"callbacks": []}])
def test_a_further_process_or_a_run_without_evaluation_writes_nothing(change, trainer, tmp_path):
    LeakAudit(str(tmp_path)).on_train_start(SimpleNamespace(**{**vars(trainer), **change}), None)
    assert not (tmp_path / "leaks").exists()


def test_a_negative_limit_is_refused(tmp_path):
    with pytest.raises(ValueError, match="most_pairs counts training pairs and must be at least 0, got -1"):
        LeakAudit(str(tmp_path), most_pairs=-1)


def test_a_run_knows_its_leaks(smoke_run):
    assert Leaks.read(smoke_run.folder / "leaks").queries == {"dev": 20}
