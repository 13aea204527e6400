"""What of a run's folder a tracker shows: the best step's values, a row a question, two curves of the scores."""

import json
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.calibration import calibration_curve

from crossrank.analysis.runs import RunFolder
from crossrank.evaluation.calibration import Calibration

QUERY = ["evaluator", "dataset", "query_id"]
ROWS = 10_000  # of a table; more than that a browser does not show
BINS = 40  # of the scores


class Curves(NamedTuple):
    """Lines over one axis, by name: (x values, y values)."""

    title: str
    axis: str
    lines: dict[str, tuple[list[float], list[float]]]


def best_step(run: RunFolder, monitor: str) -> int | None:
    """Return the first step after training began at which `monitor` was highest, None before there is one."""
    rows = run.metrics[(run.metrics["key"] == monitor) & (run.metrics["step"] > 0)].dropna()
    return int(rows["step"].iloc[rows["value"].astype(float).argmax()]) if len(rows) else None


def values_at(run: RunFolder, step: int) -> dict[str, float]:
    """Return what was evaluated at a step, by the key that it was logged as."""
    rows = run.metrics[run.metrics["key"].str.startswith("eval/") & (run.metrics["key"] != "eval/seconds")]
    rows = rows[rows["step"] == step].dropna()
    return dict(zip(rows["key"], rows["value"].astype(float), strict=True))


def query_table(run: RunFolder, step: int, rows: int = ROWS) -> pd.DataFrame:
    """Return one row a question that was evaluated at a step, the same `rows` of them each time where there are more.

    Columns: evaluator, dataset, query_id, question, candidates (how many the first stage gave), recall (the share of
    the relevant documents among them), base_rank and first_rank (where the first relevant document stood in the first
    stage and after reranking, NaN: nowhere), and three of each metric: its value, its value in the first stage and the
    change from there.
    """
    found = run.evaluations[run.evaluations["step"] == step]
    table = found.groupby(QUERY, sort=False)[["base_rank", "first_rank"]].first()
    for metric, values in found.groupby("metric", sort=False):
        by_query = values.set_index(QUERY)
        table[str(metric)] = by_query["value"]
        table[f"{metric} first stage"] = by_query["base_value"]
        table[f"{metric} change"] = by_query["value"] - by_query["base_value"]
    asked = run.queries
    if not asked.empty:
        table = asked.set_index(QUERY)[["question", "candidates", "recall"]].join(table, how="right")
    table = table.reset_index()
    return table if len(table) <= rows else table.sample(rows, random_state=0).sort_index()


def score_curves(run: RunFolder, step: int, evaluator: str) -> list[Curves]:
    """Return how scores spread and how probabilities held, on the candidates of one evaluator; none without scores.

    Probabilities are those that `export/calibration.json` makes of the scores.
    """
    scores = run.scores(step)
    if not scores.empty:
        scores = scores[(scores["evaluator"] == evaluator) & (scores["first_stage_rank"] > 0)]
    if scores.empty or scores["relevant"].nunique() < 2 or not np.isfinite(scores["score"]).all():
        return []
    logits, relevant = scores["score"].to_numpy(float), scores["relevant"].to_numpy(bool)
    edges = np.histogram_bin_edges(logits, BINS)
    middles = ((edges[:-1] + edges[1:]) / 2).tolist()
    spread = {
        name: (middles, np.histogram(logits[chosen], edges, density=True)[0].tolist())
        for name, chosen in (("relevant", relevant), ("other", ~relevant))
    }
    content = json.loads((run.path / "export" / "calibration.json").read_text(encoding="utf-8"))
    probabilities = Calibration.from_dict(content["calibration"]).probability(logits)
    share, mean = calibration_curve(relevant, probabilities, n_bins=10)
    held = {"found": (mean.tolist(), share.tolist()), "as it should be": ([0.0, 1.0], [0.0, 1.0])}
    return [
        Curves(f"Scores of {evaluator}, step {step} (density)", "logit", spread),
        Curves(f"Share relevant of {evaluator}, step {step}", "probability", held),
    ]
