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
from lightning.pytorch.utilities import rank_zero_only

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

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append the metrics; a value that is not finite is written as null, which JSON can hold."""
        values = {key: value if math.isfinite(value) else None for key, value in metrics.items()}
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"step": step, "time": round(time.time(), 3), **values}) + "\n")


def forget_after(run_dir: Path, step: int) -> None:
    """Take out of a run's record what was logged and evaluated after a step, and a line that a kill cut short.

    What comes again must stand there once. `step` -1 takes out everything.
    """
    file = run_dir / "metrics.jsonl"
    if file.is_file():
        lines = file.read_text(encoding="utf-8").split("\n")[:-1]
        kept = [line for line in lines if json.loads(line)["step"] <= step]
        temporary = file.with_name(f".{file.name}.tmp")
        temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        temporary.replace(file)
    for table in (run_dir / "evaluations").rglob("*step=*.parquet"):
        if int(table.name.lstrip(".")[5:11]) > step or table.name.startswith("."):
            table.unlink()


def wandb_logger(run_dir: str, name: str, project: str = "crossrank", group: str | None = None) -> WandbLogger:
    """Return a W&B logger that is online where a key and the network are there, and offline elsewhere.

    Offline never asks and never fails: one line says so, and how to upload the run later. WANDB_MODE, where set,
    decides.
    """
    mode = os.environ.get("WANDB_MODE") or ("online" if _can_reach_wandb() else "offline")
    if mode == "offline":
        log.info("W&B: offline (no key or no network); upload later with: wandb sync %s/wandb/offline-run-*", run_dir)
    settings = wandb.Settings(init_timeout=30, silent=True, console="off")
    kept = Path(run_dir) / "wandb_run_id"  # a run that goes on is one run there too
    known = kept.read_text(encoding="utf-8").strip() if kept.is_file() else None
    run = wandb.init(
        project=project, name=name, group=group, dir=run_dir, mode=mode, settings=settings, id=known,  # type: ignore[arg-type]
        resume="allow" if known else None,
    )  # fmt: skip
    kept.write_text(f"{run.id}\n", encoding="utf-8")
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
