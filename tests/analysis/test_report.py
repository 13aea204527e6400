"""A run's page: what stands in it is what was measured."""

import json

import numpy as np
import pytest

from crossrank.analysis.report import run_report
from crossrank.analysis.run_view import view
from crossrank.analysis.runs import RunFolder
from crossrank.evaluation.calibration import Calibration, reliability
from crossrank.evaluation.reranking import RerankingTask
from crossrank.evaluation.store import EvaluationStore
from crossrank.outcome import write_calibration

MONITOR = "eval/e/set/ndcg@10"


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
    (folder / "metrics.jsonl").write_text(json.dumps({"step": 4, MONITOR: 0.5}) + "\n")
    (folder / "result.json").write_text(json.dumps({"name": "my run", "best_step": 4, "monitor": MONITOR}))
    return RunFolder(folder)


def page_of(run):
    export = run.path / "export"
    export.mkdir()
    write_calibration(run, export, 4, "e", "platt", 5.0)
    kept = json.loads((export / "calibration.json").read_text(encoding="utf-8"))
    return run_report(view(run.path)), Calibration.from_dict(kept["calibration"])


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
    page = run_report(view(run.path))
    assert "## Calibration" not in page
    assert "## Where it fails" in page
