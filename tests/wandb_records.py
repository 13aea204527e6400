"""Reads back what an offline W&B run holds, by W&B's own reader of its log."""

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

STEP = "trainer/global_step"


class WandbRecords(NamedTuple):
    """One offline run: its folder, its own record, its summary with config and exit, and all records by type."""

    folder: Path
    run: dict
    summary: dict
    records: dict[str, list[dict]]

    @property
    def rows(self):
        """The rows of the history that have a step, without what W&B adds."""
        items = [record["item"] for record in self.records["history"]]
        return [
            {key: value for key, value in item.items() if not key.startswith("_")} for item in items if STEP in item
        ]

    @property
    def exit_code(self):
        return [record.get("exit_code", 0) for record in self.records["exit"]]

    def artifacts(self, kind):
        """The artifacts of a type by name, their metadata read."""
        found = [record for record in self.records["artifact"] if record["type"] == kind]
        return {record["name"]: {**record, "metadata": json.loads(record["metadata"])} for record in found}

    def table(self, key):
        """A logged table's columns and rows, from the file that would be uploaded."""
        item = next(r["item"] for r in self.records["history"] if f"{key}.path" in r["item"])
        content = json.loads((self.folder / "files" / item[f"{key}.path"]).read_text(encoding="utf-8"))
        return content["columns"], content["data"]


def runs_in(folder):
    """The offline runs of a run's folder, oldest first."""
    return sorted(path for path in (folder / "wandb").iterdir() if path.name.startswith("offline-run-"))


def read_back(folder) -> WandbRecords:
    """Read one offline run."""
    records = {}
    for line in _inspect(folder).splitlines():
        record = json.loads(line)
        records.setdefault(record["type"], []).append(record[record["type"]])
    return WandbRecords(folder, records["run"][0], json.loads(_inspect(folder, "--summary")), records)


def _inspect(folder, *options):
    done = subprocess.run(
        [sys.executable, "-m", "wandb", "leet", "inspect", *options, "--json", str(folder)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout
