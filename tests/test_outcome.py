"""What a finished run leaves, read back from its folder."""

import json

import numpy as np
import pandas as pd
from sklearn.metrics import brier_score_loss

from crossrank.analysis.runs import RunFolder
from crossrank.evaluation.calibration import Calibration


def test_the_calibration_that_lies_beside_the_weights_fits_the_scores_that_chose_the_step(smoke_run):
    content = json.loads((smoke_run.folder / "export" / "calibration.json").read_text())
    run = RunFolder(smoke_run.folder)
    scores = run.scores(run.result["best_step"])
    assert content["fitted_on"] == run.result["monitor"].split("/")[1]
    scores = scores[(scores["evaluator"] == content["fitted_on"]) & (scores["first_stage_rank"] > 0)]
    logits, relevant = scores["score"].to_numpy(), scores["relevant"].to_numpy()
    found = brier_score_loss(relevant, Calibration(**content["calibration"]).probability(logits))
    assert found < brier_score_loss(relevant, 1 / (1 + np.exp(-logits)))


def test_the_metrics_are_tables_for_other_tools_too(smoke_run):
    lines = [json.loads(line) for line in (smoke_run.folder / "metrics.jsonl").read_text().splitlines()]
    tables = pd.read_csv(smoke_run.folder / "metrics.csv"), pd.read_parquet(smoke_run.folder / "metrics.parquet")
    pd.testing.assert_frame_equal(*tables)
    keys = {key for line in lines for key in line} - {"step", "time"}
    assert list(tables[0].columns) == ["step", *sorted(keys)]
    assert list(tables[0]["step"]) == [0, 1, 2, 3, 4, 6]
    by_step = tables[0].set_index("step")
    assert all(by_step.loc[line["step"], key] == line[key] for line in lines for key in set(line) - {"step", "time"})
    assert by_step.notna().to_numpy().sum() == sum(len(line) - 2 for line in lines)


def test_the_result_is_written_after_everything_else(smoke_run):
    written = (smoke_run.folder / "result.json").stat().st_mtime_ns
    for name in (
        "report.md",
        "lineage.json",
        "export/README.md",
        "export/calibration.json",
        "metrics.csv",
        "metrics.parquet",
    ):
        assert (smoke_run.folder / name).stat().st_mtime_ns <= written
