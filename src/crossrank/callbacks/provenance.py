"""Writes down what a run was made of: code, versions, machine, data."""

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

PACKAGES = ("crossrank", "torch", "lightning", "transformers", "sentence-transformers", "datasets", "numpy", "bm25s")


class Provenance(pl.Callback):
    """Writes `<run_dir>/provenance.json` at the start of training and its duration at the end."""

    def __init__(self, run_dir: str) -> None:
        self.file = Path(run_dir) / "provenance.json"
        self._started = 0.0
        self._facts: dict[str, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write everything that is known before the first step."""
        self._started = time.time()
        rows = trainer.datamodule.rows  # type: ignore[attr-defined]
        self._facts = {
            "code": _git(),
            "python": platform.python_version(),
            "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
            "machine": _machine(),
            "precision": trainer.precision,
            "data": {"rows": len(rows), "fingerprints": rows.fingerprints},
            "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._started)),
        }
        self._write()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add how long the training took, evaluations included."""
        self._facts |= {"steps": trainer.global_step, "training_seconds": round(time.time() - self._started, 1)}
        self._write()

    def _write(self) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.write_text(json.dumps(self._facts, indent=2) + "\n", encoding="utf-8")


def _git() -> dict[str, Any]:
    def ask(*words: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True, check=True, timeout=10
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    changes = ask("status", "--porcelain")
    return {"commit": ask("rev-parse", "HEAD"), "uncommitted_changes": None if changes is None else bool(changes)}


def _machine() -> dict[str, Any]:
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {"cpus": os.cpu_count(), "threads": torch.get_num_threads(), "gpus": gpus, "system": platform.platform()}
