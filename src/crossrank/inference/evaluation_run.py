"""Evaluates a trained model outside training: what goes in, what comes out, and the files it leaves."""

import json
import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from crossrank.evaluation import Evaluation, Evaluator, Protocols
from crossrank.evaluation.budget import candidate_scores
from crossrank.evaluation.reranking import RerankingTask
from crossrank.evaluation.store import EvaluationStore
from crossrank.hub import Asset, require
from crossrank.inference.budget_study import (
    BudgetGrid,
    budget_markdown,
    budget_study,
    hardware,
    own_length,
    refuse_too_long,
    refuse_unranked,
)
from crossrank.inference.padded import PaddedScorer, Precision, load_scorer, place_of
from crossrank.inference.scorer import PairScorer

log = logging.getLogger(__name__)

TAG = "crossrank"  # the last column of a TREC run


@dataclass(frozen=True)
class EvaluationRun:
    """A reranker (an export, the folder of a run, `pypi:<distribution>`, a hub id) and what it is evaluated on.

    `max_length` is in tokens of a pair and defaults to the model's own; with `grid`, depth and budget are studied too.
    """

    reranker: str
    evaluators: Mapping[str, Evaluator]
    protocol: Protocols
    main_metric: str
    run_dir: Path
    max_length: int | None = None
    tokens_per_batch: int | None = None
    precision: Precision = "fp32"
    grid: BudgetGrid | None = None

    @property
    def model(self) -> str:
        """The model's place; of a run's folder, its export."""
        return place_of(self.reranker)


@dataclass(frozen=True)
class Findings:
    """What an evaluation found: the rows of all evaluators with the column `evaluator`, and what went with them."""

    rows: pd.DataFrame
    budget: pd.DataFrame | None  # `budget_study` with the column `evaluator`
    facts: Mapping[str, Any]  # result.json


def execute(run: EvaluationRun) -> Findings:
    """Fetch, prepare, load, evaluate, and write evaluations/, runs/, result.json and budget.parquet.

    Raises:
        CrossrankError: something that was given is wrong; what can be checked without the model is checked before.
    """
    require([Asset("model", run.model), *(a for evaluator in run.evaluators.values() for a in evaluator.assets())])
    for evaluator in run.evaluators.values():
        evaluator.prepare()
        if run.grid:
            refuse_unranked(evaluator.tasks)
    scorer = load_scorer(run.model, run.max_length, run.tokens_per_batch, run.precision)
    if run.grid:
        refuse_too_long(run.grid, own_length(scorer))
    run.run_dir.mkdir(parents=True, exist_ok=True)
    evaluations, facts = _evaluate(run, scorer)
    rows = pd.concat([one.rows.assign(evaluator=name) for name, one in evaluations.items()], ignore_index=True)
    (run.run_dir / "result.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return Findings(rows, _budget(run, scorer, evaluations), facts)


def rows_of_models(
    evaluators: Mapping[str, Evaluator], protocol: Protocols, main_metric: str, folder: Path
) -> Callable[[str], pd.DataFrame]:
    """Return a function that evaluates a model, keeps what it finds below `folder`, and returns the rows."""

    def rows(reranker: str) -> pd.DataFrame:
        place = folder / re.sub(r"[^\w.-]+", "_", reranker).strip("_") / time.strftime("%Y-%m-%d_%H-%M-%S")
        return execute(EvaluationRun(reranker, evaluators, protocol, main_metric, place)).rows

    return rows


def report(run: EvaluationRun, findings: Findings, table: str) -> str:
    """Return report.md; `table` is the summary in markdown."""
    facts = findings.facts
    parts = [
        f"# {run.reranker}",
        f"Evaluated outside training, under the protocol {run.protocol}; max length {facts['max_length']} "
        f"tokens, {run.precision}, {facts['path']} path, {facts['hardware']}: {facts['pairs']:,} pairs in "
        f"{facts['seconds']} s, {facts['pairs_per_second']:,.0f} a second.",
        table,
    ]
    if findings.budget is not None and run.grid is not None:
        parts.append(
            "## Depth and budget\n\nOnly the first candidates, as many as the depth says, are reranked; depth 0 is the "
            "first stage, and relevant documents that it missed stay missed. Latency is that of one call a query, "
            f"from text to scores, over {run.grid.latency_queries} queries at most, on {facts['hardware']}."
        )
        for name, frame in findings.budget.groupby("evaluator", sort=False):
            parts.append(f"{name}, mean over datasets:\n\n{budget_markdown(frame)}")
    return "\n\n".join(parts) + "\n"


def write_trec_run(task: RerankingTask, scores: pd.DataFrame, file: Path) -> None:
    """Write what the first stage retrieved as a TREC run, in trec_eval's order: by score, ties by falling document id.

    A query that was not scored, because nothing relevant is in its list, has no line; its metrics are 0. Ids with
    blanks cannot stand in such a file: a warning is logged then, and nothing written.
    """
    lines = []
    for query, found in candidate_scores(task, scores).items():
        ranked = sorted(found, key=lambda document: (found[document], document), reverse=True)
        lines += [(query, "Q0", d, str(rank), f"{found[d]:.9g}", TAG) for rank, d in enumerate(ranked, start=1)]
    blank = next((cell for line in lines for cell in (line[0], line[2]) if len(cell.split()) != 1), None)
    if blank is not None:
        log.warning("%s: no TREC run is written, because the id %r has blanks", task.name, blank)
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(" ".join(line) + "\n" for line in lines), encoding="utf-8")


def _evaluate(run: EvaluationRun, scorer: PairScorer | PaddedScorer) -> tuple[dict[str, Evaluation], dict[str, Any]]:
    store = EvaluationStore(run.run_dir / "evaluations")
    named = Counter(dataset for evaluator in run.evaluators.values() for dataset in evaluator.datasets)
    evaluations, seconds = {}, 0.0
    for name, evaluator in run.evaluators.items():
        started = time.perf_counter()
        evaluations[name] = found = evaluator(scorer)
        seconds += time.perf_counter() - started
        log.info("%s: %d pairs", name, len(found.scores))
        store.write(name, 0, found)
        store.describe(name, evaluator.tasks)
        for task in evaluator.tasks:
            stem = task.name if named[task.name] == 1 else f"{name}-{task.name}"
            write_trec_run(task, found.scores, run.run_dir / "runs" / f"{stem.replace('/', '_')}.trec")
    pairs = sum(len(found.scores) for found in evaluations.values())
    means = {name: float(found.means().loc[("mean", run.main_metric), "value"]) for name, found in evaluations.items()}
    return evaluations, {
        "model": run.model, "evaluators": list(run.evaluators), "protocol": run.protocol,
        "main_metric": run.main_metric, "value": means, "max_length": own_length(scorer), "precision": run.precision,
        "path": "padded" if isinstance(scorer, PaddedScorer) else "packed", "hardware": hardware(scorer),
        "pairs": pairs, "seconds": round(seconds, 2), "pairs_per_second": round(pairs / seconds, 1),
    }  # fmt: skip


def _budget(
    run: EvaluationRun, scorer: PairScorer | PaddedScorer, evaluations: Mapping[str, Evaluation]
) -> pd.DataFrame | None:
    if run.grid is None:
        return None
    frames = [
        budget_study(run.evaluators[name].tasks, scorer, found.scores, run.grid).assign(evaluator=name)
        for name, found in evaluations.items()
    ]
    frame = pd.concat(frames, ignore_index=True)
    frame.to_parquet(run.run_dir / "budget.parquet", index=False)
    return frame
