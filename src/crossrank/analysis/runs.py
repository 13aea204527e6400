"""A run's folder as tables."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from crossrank.errors import DataError


def stored(file: Path) -> dict[str, Any]:
    """Return the content of a JSON file, empty where it is absent or damaged."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


@dataclass(frozen=True)
class RunFolder:
    """`runs/<name>/<time>`: metrics.jsonl, evaluations/, result.json, provenance.json, config.yaml."""

    path: Path

    def __post_init__(self) -> None:
        if not (self.path / "metrics.jsonl").is_file():
            raise DataError(f"{self.path}: no metrics.jsonl; a run's folder is wanted, such as runs/quickstart/<time>")

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """One row a logged step and key: step, key, value."""
        lines = (self.path / "metrics.jsonl").read_text(encoding="utf-8").split("\n")[:-1]  # a kill may cut the last
        rows = [
            (record["step"], key, value)
            for record in map(self._record, range(1, len(lines) + 1), lines)
            for key, value in record.items()
            if key not in ("step", "time")
        ]
        return pd.DataFrame(rows, columns=["step", "key", "value"])

    @property
    def wide_metrics(self) -> pd.DataFrame:
        """One row a logged step and one column a key, both sorted; NaN where nothing was logged, or nothing finite."""
        last = self.metrics.drop_duplicates(["step", "key"], keep="last")
        return last.pivot(index="step", columns="key", values="value").astype(float).rename_axis(columns=None)

    def _record(self, number: int, line: str) -> dict[str, Any]:
        try:
            return dict(json.loads(line))
        except json.JSONDecodeError as error:
            raise DataError(f"{self.path / 'metrics.jsonl'}, row {number}: cannot be parsed ({error})") from error

    @cached_property
    def evaluations(self) -> pd.DataFrame:
        """One row a step, evaluator, dataset, query and metric: value and base_value."""
        files = sorted((self.path / "evaluations").glob("step=*.parquet"))
        if not files:
            raise DataError(f"{self.path}: no evaluation was written; the run has none or stopped before its first")
        return pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)

    def scores(self, step: int) -> pd.DataFrame:
        """Return one row a scored pair of an evaluated step; see `Evaluation`. Empty where none were kept."""
        return _together(sorted((self.path / "evaluations" / "scores").glob(f"step={step:06d}-*.parquet")))

    @cached_property
    def queries(self) -> pd.DataFrame:
        """One row a question that was evaluated on; see `EvaluationStore`. Empty where none were kept."""
        return _together(sorted((self.path / "evaluations" / "queries").glob("*.parquet")))

    @cached_property
    def documents(self) -> pd.DataFrame:
        """One row a document that was scored; see `EvaluationStore`. Empty where none were kept."""
        return _together(sorted((self.path / "evaluations" / "documents").glob("*.parquet")))

    @cached_property
    def result(self) -> dict[str, Any]:
        """What the run ended with: best step and value, where the export lies."""
        file = self.path / "result.json"
        if not file.is_file():
            raise DataError(f"{self.path}: no result.json; the run has not finished")
        return dict(json.loads(file.read_text(encoding="utf-8")))

    def curve(self, key: str) -> pd.Series:
        """Return the values of one metric by step.

        Raises:
            DataError: the run never logged it.
        """
        chosen = self.metrics[self.metrics["key"] == key]
        if chosen.empty:
            known = ", ".join(sorted(self.metrics["key"].unique()))
            raise DataError(f"{self.path}: never logged {key!r}; it logged: {known}")
        return chosen.set_index("step")["value"].astype(float)


def _together(files: Sequence[Path]) -> pd.DataFrame:
    tables = [pd.read_parquet(file) for file in files]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def settings(config: Path) -> set[str]:
    """Return a config's lines without its own folder; of an evaluation also those of its reranker's training."""
    lines = _lines(config)
    reranker = next((line for line in lines if line.startswith("reranker: ")), "")
    trained = Path(reranker.removeprefix("reranker: ")).parent / "config.yaml"
    return lines - {reranker} | _lines(trained) if reranker and trained.is_file() else lines


def _lines(config: Path) -> set[str]:
    text = config.read_text(encoding="utf-8", errors="replace")
    folder = re.search(r"^run_dir: (.+)$", text, re.MULTILINE)
    return set((text.replace(folder[1], "") if folder else text).splitlines())


def finished_runs(runs: Path) -> list[Path]:
    """Return the finished runs under `runs`, the one that ended last at the end."""
    results = (file for file in runs.rglob("result.json") if (file.parent / "metrics.jsonl").is_file())
    return [file.parent for file in sorted(results, key=lambda file: file.stat().st_mtime)]


def newest_run(runs: Path) -> Path:
    """Return the finished run under `runs` that ended last.

    Raises:
        DataError: there is none.
    """
    finished = finished_runs(runs)
    if not finished:
        raise DataError(f"{runs}: no finished run; make one with: make train")
    return finished[-1]


def load_runs(paths: Sequence[Path]) -> pd.DataFrame:
    """Return the evaluations of several runs as one table, with a column `run`."""
    return pd.concat([RunFolder(path).evaluations.assign(run=str(path)) for path in paths], ignore_index=True)
