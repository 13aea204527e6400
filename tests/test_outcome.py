"""What a finished run leaves, read back from its folder."""

import json

import numpy as np
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


def test_the_result_is_written_after_everything_else(smoke_run):
    written = (smoke_run.folder / "result.json").stat().st_mtime_ns
    for name in ("report.md", "lineage.json", "export/README.md", "export/calibration.json"):
        assert (smoke_run.folder / name).stat().st_mtime_ns <= written
