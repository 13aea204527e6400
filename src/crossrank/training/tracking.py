"""What a run reports while it runs: a local record, always, and Weights & Biases where it is wanted."""

import json
import logging
import math
import os
import socket
import time
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import wandb
from lightning.pytorch.loggers import Logger, WandbLogger

log = logging.getLogger(__name__)


class JsonlLogger(Logger):
    """One line a logged step in `metrics.jsonl`, flushed at once: the record that reports and notebooks read."""

    def __init__(self, run_dir: str | Path) -> None:
        super().__init__()
        self.file = Path(run_dir) / "metrics.jsonl"

    @property
    def name(self) -> str:
        """The logger's name."""
        return "jsonl"

    @property
    def version(self) -> str:
        """There is one record a run."""
        return ""

    def log_hyperparams(self, params: Mapping[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the resolved config lies beside the record."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append the metrics; a value that is not finite is written as null, which JSON can hold."""
        values = {key: value if math.isfinite(value) else None for key, value in metrics.items()}
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"step": step, "time": round(time.time(), 3), **values}) + "\n")


def wandb_logger(run_dir: str, name: str, project: str = "crossrank", group: str | None = None) -> WandbLogger:
    """Return a W&B logger that is online where a key and the network are there, and offline elsewhere.

    Offline never asks and never fails: one line says so, and how to upload the run later. WANDB_MODE, where set,
    decides.
    """
    mode = os.environ.get("WANDB_MODE") or ("online" if _can_reach_wandb() else "offline")
    if mode == "offline":
        log.info("W&B: offline (no key or no network); upload later with: wandb sync %s/wandb/offline-run-*", run_dir)
    settings = wandb.Settings(init_timeout=30, silent=True, console="off")
    run = wandb.init(project=project, name=name, group=group, dir=run_dir, mode=mode, settings=settings)  # type: ignore[arg-type]
    return WandbLogger(experiment=run)


def finish_wandb(failed: bool) -> None:
    """Close the W&B run, if one is open, so that the next job of a multirun gets its own."""
    if wandb.run is not None:
        wandb.finish(exit_code=int(failed))


def _can_reach_wandb() -> bool:
    settings = wandb.setup().settings  # wandb.Settings() alone does not read WANDB_BASE_URL or the settings files
    if not (settings.api_key or wandb.api.api_key):
        return False
    url = urlsplit(settings.base_url)
    try:
        with socket.create_connection((url.hostname or "", url.port or 443), timeout=3):
            return True
    except OSError:
        return False
