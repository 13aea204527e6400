"""What a run ends with: the table, the calibration, the report, the card and the result on disk."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossrank.analysis.probabilities import CalibrationMethod, calibrated
from crossrank.analysis.report import run_report
from crossrank.analysis.run_view import RunView
from crossrank.analysis.runs import RunFolder
from crossrank.analysis.summary import SummaryRow
from crossrank.callbacks.evaluation import PeriodicEvaluation
from crossrank.callbacks.verdicts import KEPT, Verdict, best_of
from crossrank.card.written import write_card
from crossrank.data.cache import replace_text
from crossrank.data.lineage_record import LineageRecord
from crossrank.data.training_rows import TrainingRows
from crossrank.faults import left_behind
from crossrank.models.export import exported_files


@dataclass(frozen=True)
class Result:
    """What a run ended with."""

    run_dir: Path
    export: Path
    best_step: int
    documents: Path  # the source's training pairs in a file, whose answers can be ranked
    seconds: float
    averaged: str | None = None  # the average that was kept; `best_step` then only numbers its evaluation
    rows: Sequence[SummaryRow] = ()

    def words(self) -> list[str]:
        """Return what a person is told besides the table."""
        reports = [str(file) for name in ("report.html", "report.md") if (file := self.run_dir / name).is_file()]
        table = ["brackets hold 95 % intervals; gains are over the first stage; the report says where it fails"]
        best = f"best step {self.best_step}" if self.averaged is None else f"{self.averaged}, as step {self.best_step}"
        return [
            f"{best}, {self.seconds / 60:.1f} minutes",
            *(table if self.rows else []),
            f"model    {self.export}",
            f"report   {', '.join(reports)}",
            f"metrics  {self.run_dir}/metrics.jsonl, {self.run_dir}/evaluations/",
            f"log      {self.run_dir}/train.log",
            f"try it   python -m src.rerank reranker={self.export} documents={self.documents} query='your question'",
        ]

    def facts(self) -> dict[str, Any]:
        """Return the same for another program."""
        rows = [row.facts() for row in self.rows]
        facts = {"run": self.run_dir, "export": self.export, "documents": self.documents, "best_step": self.best_step}
        averaged = {"averaged": self.averaged} if self.averaged else {}
        return facts | averaged | {"seconds": round(self.seconds, 1), "rows": rows}


@dataclass(frozen=True)
class Trained:
    """What the outcome is written of, besides the run's folder."""

    name: str
    evaluation: PeriodicEvaluation | None
    calibration: CalibrationMethod
    pos_weight: float  # of the loss
    pruned_at: int | None = None  # the step after which a search stopped it
    averages: Sequence[Verdict] = ()


def write_outcome(run: Trained, result: Result, rows: TrainingRows) -> RunView:
    """Write card, calibration, report and, last, `result.json`: a run that has it has finished.

    Returns the view that they were written from, so that its tables are read and its intervals drawn once.
    """
    facts: dict[str, Any] = {
        "name": run.name,
        "best_step": result.best_step,
        "export": "export",
        "seconds": round(result.seconds, 1),
    }
    folder = RunFolder(result.run_dir)
    if run.pruned_at is not None:
        facts["pruned_at"] = run.pruned_at
    if run.evaluation:
        monitor = run.evaluation.monitor
        facts |= {"monitor": monitor, "best_value": run.evaluation.best_value}
        write_calibration(
            folder, result.export, result.best_step, monitor.split("/")[1], run.calibration, run.pos_weight
        )
        if run.averages:
            kept = best_of(run.averages)
            facts["averages"] = [verdict.facts() | {"exported": verdict is kept} for verdict in run.averages]
    LineageRecord(rows.lineage.published().steps, {}).write(result.export)
    best = [run.evaluation.best_checkpoint] if run.evaluation else []
    best += [best[0].with_name(KEPT)] if best_of(run.averages) else []
    files = [*best, *exported_files(result.export)]
    LineageRecord.read(result.run_dir).with_files(result.run_dir, files).write(result.run_dir)
    view = RunView(folder, facts)
    left_behind(lambda: write_card(view, result.export), f"python -m src.export {result.run_dir}")
    (result.run_dir / "report.md").write_text(run_report(view), encoding="utf-8")
    write_metrics(result.run_dir)
    replace_text(result.run_dir / "result.json", json.dumps(facts, indent=2) + "\n")  # last: now it has finished
    return view


def write_metrics(run_dir: Path) -> None:
    """Write what was logged as `metrics.csv` and `metrics.parquet`, one row a step, beside the live `metrics.jsonl`."""
    table = RunFolder(run_dir).wide_metrics
    replace_text(run_dir / "metrics.csv", table.to_csv())
    temporary = run_dir / ".metrics.parquet"
    table.reset_index().to_parquet(temporary, index=False)
    temporary.replace(run_dir / "metrics.parquet")


def write_calibration(
    run: RunFolder, export: Path, step: int, evaluator: str, method: CalibrationMethod, pos_weight: float
) -> None:
    """Fit on the scores of the set that chose the step, and write what was found beside the exported weights."""
    scores = run.scores(step)
    found = calibrated(scores[scores["evaluator"] == evaluator], pos_weight, method)
    content = {"calibration": found.to_dict(), "method": method, "fitted_on": evaluator}
    (export / "calibration.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
