"""A run's page: what stands in it is what was measured; calibration is fitted on what the first stage found."""

import json
import logging
import math

import numpy as np
import pandas as pd
import pytest

from crossrank.analysis.report import calibrated, run_report
from crossrank.analysis.runs import RunFolder
from crossrank.analysis.summary import summary
from crossrank.evaluation.calibration import Calibration, fit_platt, reliability
from crossrank.evaluation.reranking import RerankingTask
from crossrank.evaluation.store import EvaluationStore

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


@pytest.fixture
def run(tmp_path):
    draws = np.random.default_rng(3)
    documents = {f"d{i}": f"document {i}" for i in range(60)}
    queries = {f"q{i}": f"question {i}" for i in range(15)}
    candidates = {q: [f"d{i}" for i in draws.permutation(60)[:8]] for q in queries}
    qrels = {q: {ids[2]: 1, f"d{draws.integers(60)}": 1} for q, ids in candidates.items()}
    task = RerankingTask("set", queries, documents, candidates, qrels)
    folder = tmp_path / "run"
    store = EvaluationStore(folder / "evaluations")
    for step in (0, 4):
        store.write("e", step, task.evaluate(lambda pairs: draws.normal(size=len(pairs)).astype(np.float32)))
    store.describe("e", [task])
    (folder / "metrics.jsonl").touch()
    (folder / "result.json").write_text(json.dumps({"best_step": 4}))
    return RunFolder(folder)


def page_of(run):
    calibration = calibrated(run.scores(4), 5.0, "platt")
    return run_report(run, "my run", 4, summary(run, 4), "eval/e/set/ndcg@10", calibration), calibration


def test_the_page_holds_what_was_measured(run):
    page, calibration = page_of(run)
    assert page.startswith("# my run\n\nBest step: 4, by eval/e/set/ndcg@10")
    recall = run.queries["recall"].mean()
    assert f"| set | 15 | 8.0 | {recall:.4f} [" in page
    found = run.scores(4)
    found = found[found["first_stage_rank"] > 0]
    probabilities = calibration.probability(found["score"])
    expected = reliability(probabilities, found["relevant"], query_index=found.groupby("query_id", sort=False).ngroup())
    assert f"| calibrated | {expected.brier.mean:.4f} [{expected.brier.low:.4f}, {expected.brier.high:.4f}] |" in page
    for part in expected.bins:
        assert f"| {part.pairs:,} | {part.mean_probability:.4f} | {part.share_relevant:.4f} [" in page
    assert "## Where it fails: ndcg@10" in page


def test_a_precision_that_cannot_be_had_is_said(run):
    page, calibration = page_of(run)
    found = run.scores(4)
    found = found[found["first_stage_rank"] > 0]
    order = np.argsort(-calibration.probability(found["score"]), kind="stable")
    best = (np.cumsum(found["relevant"].to_numpy()[order]) / np.arange(1, len(found) + 1)).max()
    for precision in (0.5, 0.8, 0.9, 0.95):
        assert (f"| {precision:.0%} | cannot be had |" in page) == (best < precision)


def test_a_run_that_kept_no_scores_has_a_page_all_the_same(run):
    """One of an earlier version."""
    for kind in ("scores", "queries", "documents"):
        for file in (run.path / "evaluations" / kind).iterdir():
            file.unlink()
    run = RunFolder(run.path)
    page = run_report(run, "old", 4, summary(run, 4), "eval/e/set/ndcg@10", Calibration(0.0))
    assert "## Calibration" not in page
    assert "## Where it fails" in page
