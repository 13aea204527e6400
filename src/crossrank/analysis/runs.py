"""A run's folder as tables."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from crossrank.errors import DataError


@dataclass(frozen=True)
class RunFolder:
    """`runs/<name>/<time>`: metrics.jsonl, evaluations/*.parquet, result.json, provenance.json, config.yaml."""

    path: Path

    def __post_init__(self) -> None:
        if not (self.path / "metrics.jsonl").is_file():
            raise DataError(f"{self.path}: no metrics.jsonl; a run's folder is wanted, such as runs/quickstart/<time>")

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """One row a logged step and key: step, key, value."""
        with (self.path / "metrics.jsonl").open(encoding="utf-8") as stream:
            lines = [json.loads(line) for line in stream]
        rows = [
            (line["step"], key, value) for line in lines for key, value in line.items() if key not in ("step", "time")
        ]
        return pd.DataFrame(rows, columns=["step", "key", "value"])

    @cached_property
    def evaluations(self) -> pd.DataFrame:
        """One row a step, evaluator, dataset, query and metric: value and base_value."""
        files = sorted((self.path / "evaluations").glob("step=*.parquet"))
        if not files:
            raise DataError(f"{self.path}: no evaluation was written; the run has none or stopped before its first")
        return pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)

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


def load_runs(paths: Sequence[Path]) -> pd.DataFrame:
    """Return the evaluations of several runs as one table, with a column `run`."""
    return pd.concat([RunFolder(path).evaluations.assign(run=str(path)) for path in paths], ignore_index=True)
