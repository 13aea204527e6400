import json

import pytest
from made_runs import write_run

from crossrank.analysis.run_view import RunView, view
from crossrank.analysis.runs import RunFolder
from crossrank.analysis.summary import summary
from crossrank.errors import DataError
from crossrank.training.tracking import JsonlLogger


def test_a_finished_run_is_seen_at_its_best_step(tmp_path):
    found = view(write_run(tmp_path / "run"))
    assert found.name == "made"
    assert found.step == found.result["best_step"]
    assert found.last_step == 8
    assert (found.monitor.evaluator, found.monitor.dataset, found.monitor.metric) == ("dev", "mean", "ndcg@10")
    expected = {(row.dataset, row.metric): row for row in summary(found.run, found.step)}
    assert found.headline == expected["mean", "ndcg@10"]


def test_an_unfinished_run_is_seen_at_the_best_step_so_far(tmp_path):
    found = view(write_run(tmp_path / "run", finished=False, steps=(0, 4, 8, 12)))
    curve = found.run.curve("eval/dev/mean/ndcg@10").drop(0)
    assert found.result == {}
    assert found.step == curve.idxmax()


def test_a_run_that_was_only_evaluated_before_training_is_seen_there_and_compared_with_nothing(tmp_path):
    found = view(write_run(tmp_path / "run", finished=False, steps=(0,)))
    assert found.step == 0
    assert found.headline.before.mean != found.headline.before.mean


def test_a_run_without_an_evaluation_has_no_step(tmp_path):
    JsonlLogger(tmp_path).log_metrics({"train/loss": 1.0}, step=3)
    found = RunView(RunFolder(tmp_path))
    assert (found.step, found.monitor, found.headline, found.summaries) == (None, None, None, {})
    assert (found.config, found.provenance, found.log, found.last_step) == ({}, {}, [], 3)
    assert found.name == tmp_path.name


def test_without_a_config_the_first_ndcg_is_the_metric(tmp_path):
    folder = write_run(tmp_path / "run", finished=False)
    (folder / "config.yaml").unlink()
    assert view(folder).monitor.key == "eval/dev/one/ndcg@10"


def test_a_damaged_file_is_named(tmp_path):
    folder = write_run(tmp_path / "run")
    for content in ("{", json.dumps([1])):
        (folder / "provenance.json").write_text(content)
        with pytest.raises(DataError, match=r"provenance\.json cannot be read"):
            _ = view(folder).provenance
