"""What turns logits into probabilities is fitted on what the first stage found."""

import logging
import math

import numpy as np
import pandas as pd
import pytest

from crossrank.analysis.probabilities import calibrated
from crossrank.evaluation.calibration import Calibration, fit_platt

QUERIES, DEPTH = 40, 12


def scores_of(seed, weight=5.0):
    """Logits of a model whose probabilities are right but for the weight on positives."""
    draws = np.random.default_rng(seed)
    truth = draws.beta(0.6, 1.4, QUERIES * DEPTH)
    return pd.DataFrame(
        {
            "dataset": "d", "query_id": np.repeat([f"q{i}" for i in range(QUERIES)], DEPTH),
            "document_id": [f"d{i}" for i in range(QUERIES * DEPTH)],
            "first_stage_rank": np.tile(np.arange(1, DEPTH + 1), QUERIES),
            "score": (np.log(truth / (1 - truth)) + math.log(weight)).astype(np.float32),
            "relevant": draws.random(QUERIES * DEPTH) < truth, "evaluator": "e", "step": 4,
        }
    )  # fmt: skip


def test_the_shift_is_analytic_and_the_rest_is_fitted():
    scores = scores_of(0)
    assert calibrated(scores, 5.0, "shift") == Calibration.of_pos_weight(5.0)
    assert calibrated(scores, 5.0, "platt") == fit_platt(scores["score"], scores["relevant"], math.log(5.0))
    fitted = calibrated(scores, 5.0, "temperature")
    assert fitted.bias == 0
    assert fitted.temperature == pytest.approx(1, abs=0.15)


def test_positives_that_were_handed_to_the_model_are_not_fitted_on():
    """No user's list holds what the first stage missed."""
    scores = scores_of(1)
    handed = scores.head(50).assign(first_stage_rank=0, relevant=True)
    assert calibrated(pd.concat([scores, handed]), 5.0, "platt") == calibrated(scores, 5.0, "platt")


@pytest.mark.parametrize("scores", [scores_of(2).assign(relevant=False), pd.DataFrame()], ids=["none relevant", "none"])
def test_what_cannot_be_fitted_is_left_out_with_a_warning(scores, caplog):
    with caplog.at_level(logging.WARNING):
        assert calibrated(scores, 5.0, "platt") == Calibration.of_pos_weight(5.0)
    assert "only pos_weight is undone, platt is not fitted" in caplog.text
