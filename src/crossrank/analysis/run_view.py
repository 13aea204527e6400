"""What pages and card say of a run, read once: also of one that has not finished, or that never evaluated."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import OmegaConf

from crossrank.analysis.failures import Failures, failures
from crossrank.analysis.probabilities import CalibrationFindings, calibration_findings
from crossrank.analysis.runs import RunFolder
from crossrank.analysis.summary import SummaryRow, summary_of
from crossrank.errors import DataError
from crossrank.evaluation.calibration import Calibration
from crossrank.resume import CONFIG, read_config


@dataclass(frozen=True)
class Monitor:
    """The metric that chose the best step, by the parts of its key eval/<evaluator>/<dataset>/<metric>."""

    key: str
    evaluator: str
    dataset: str
    metric: str


@dataclass(frozen=True)
class RunView:
    """A run's folder, where what is missing is empty; `known` stands for a result.json that is yet to be written."""

    run: RunFolder
    known: Mapping[str, Any] | None = None

    @cached_property
    def config(self) -> dict[str, Any]:
        """The resolved config."""
        if not (self.run.path / CONFIG).is_file():
            return {}
        tree: Any = OmegaConf.to_container(read_config(self.run.path))
        return dict(tree)

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """What provenance.json holds."""
        return self.read("provenance.json")

    @cached_property
    def result(self) -> dict[str, Any]:
        """What result.json holds; empty where the run has not finished."""
        return self.read("result.json") if self.known is None else dict(self.known)

    @cached_property
    def log(self) -> list[str]:
        """The lines of train.log."""
        return self.text("train.log").splitlines()

    def text(self, name: str) -> str:
        """Return a text file of the run, empty where there is none."""
        file = self.run.path / name
        return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""

    def read(self, name: str) -> dict[str, Any]:
        """Return a JSON file of the run, empty where there is none.

        Raises:
            DataError: the file is damaged.
        """
        file = self.run.path / name
        if not file.is_file():
            return {}
        try:
            return dict(json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise DataError(f"{file} cannot be read ({error}); remove it to have a page without it") from error

    @property
    def name(self) -> str:
        """What the run is called."""
        return str(self.result.get("name") or self.config.get("name") or self.run.path.name)

    @cached_property
    def last_step(self) -> int:
        """The last step that was logged; one further on stands an average that was kept."""
        return int(self.run.metrics["step"].max()) - bool(self.averaged) if len(self.run.metrics) else 0

    @property
    def averaged(self) -> str | None:
        """The name of the average that was kept in place of the best step, if one was."""
        return next((str(a["name"]) for a in self.result.get("averages", ()) if a["exported"]), None)

    @cached_property
    def keys(self) -> set[str]:
        """The keys of the metrics that were logged."""
        return set(self.run.metrics["key"])

    @cached_property
    def evaluations(self) -> pd.DataFrame:
        """The rows of all evaluations; empty where there was none."""
        folder = self.run.path / "evaluations"
        return self.run.evaluations if any(folder.glob("step=*.parquet")) else pd.DataFrame()

    @cached_property
    def monitor(self) -> Monitor | None:
        """The metric that chooses the best step: the config's, else the first NDCG there is, else the first metric."""
        key = str(self.result.get("monitor") or self.config.get("monitor") or "")
        if key.startswith("eval/") and key.count("/") == 3 and key in self.keys:
            return Monitor(key, *key.split("/")[1:])
        if self.evaluations.empty:
            return None
        rows = self.evaluations[["evaluator", "dataset", "metric"]].drop_duplicates()
        first = next(iter(rows[rows["metric"].str.startswith("ndcg")].itertuples()), None) or next(rows.itertuples())
        return Monitor(f"eval/{first.evaluator}/{first.dataset}/{first.metric}", *first[1:])

    @cached_property
    def step(self) -> int | None:
        """The step that the page is about: the run's best, or the best so far; None where none was evaluated."""
        if self.evaluations.empty or self.monitor is None:
            return None
        stored = set(map(int, self.evaluations["step"]))
        if self.result.get("best_step") in stored:
            return int(self.result["best_step"])
        trained = sorted(step for step in stored if step > 0)
        if self.monitor.key in self.keys and trained:
            values = self.run.curve(self.monitor.key).reindex(trained).dropna()
            return int(values.idxmax()) if len(values) else trained[-1]
        return max(stored)

    def rows_at(self, step: int, evaluator: str) -> pd.DataFrame:
        """Return the evaluation of one evaluator at one step."""
        rows = self.evaluations
        return rows[(rows["step"] == step) & (rows["evaluator"] == evaluator)]

    @cached_property
    def summaries(self) -> dict[str, list[SummaryRow]]:
        """The rows of the summary of the page's step, by evaluator; before training stands step 0, if it is another."""
        if self.step is None:
            return {}
        rows = self.evaluations
        now = rows[rows["step"] == self.step]
        before = rows[(rows["step"] == 0) & (self.step > 0)]
        return {
            str(name): summary_of(part, before[before["evaluator"] == name])
            for name, part in now.groupby("evaluator", sort=False)
        }

    def calibration(self, kept: Mapping[str, Any]) -> tuple[str, CalibrationFindings | None]:
        """Return the evaluator that a calibration.json was fitted on, and how good its probabilities are there.

        There are no findings where nothing was evaluated, nor where all or none of the candidates are relevant.
        """
        evaluator = str(kept.get("fitted_on") or (self.monitor.evaluator if self.monitor else ""))
        if not kept or self.step is None:
            return evaluator, None
        key = evaluator, Calibration.from_dict(kept.get("calibration"))
        if key not in self._findings:
            self._findings[key] = calibration_findings(_of(self.scores, evaluator), key[1])
        return evaluator, self._findings[key]

    @cached_property
    def _findings(self) -> dict[tuple[str, Calibration], CalibrationFindings | None]:
        return {}

    @cached_property
    def scores(self) -> pd.DataFrame:
        """One row a pair that was scored at the page's step; empty where none were kept."""
        return pd.DataFrame() if self.step is None else self.run.scores(self.step)

    @cached_property
    def failures(self) -> Failures | None:
        """Where reranking helped and hurt by the monitored metric; None where nothing was evaluated."""
        if self.step is None or self.monitor is None:
            return None
        evaluator, rows = self.monitor.evaluator, self.rows_at(self.step, self.monitor.evaluator)
        if rows.empty:
            return None
        queries, scores, documents = (
            _of(table, evaluator) for table in (self.run.queries, self.scores, self.run.documents)
        )
        return failures(rows, queries, scores, documents, self.monitor.metric)

    @property
    def rows(self) -> list[SummaryRow]:
        """The summary of the page's step, of all evaluators."""
        return [row for rows in self.summaries.values() for row in rows]

    @property
    def headline(self) -> SummaryRow | None:
        """The row of the monitored metric."""
        if self.monitor is None:
            return None
        rows = [row for row in self.summaries.get(self.monitor.evaluator, ()) if row.metric == self.monitor.metric]
        named = [row for row in rows if row.dataset == self.monitor.dataset]
        return next(iter(named or rows), None)


def _of(table: pd.DataFrame, evaluator: str) -> pd.DataFrame:
    return table if table.empty else table[table["evaluator"] == evaluator]


def view(path: Path) -> RunView:
    """Return the view of a run's folder; DataError where it is none."""
    return RunView(RunFolder(path))
