"""Writes down what a run was made of: code, versions, machine, data."""

import importlib.metadata
import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from crossrank.callbacks.surroundings import git_state, installed, machine, uncommitted_diff
from crossrank.data.cache import replace_text
from crossrank.data.fingerprint import file_fingerprints, fingerprint
from crossrank.errors import ResumeError
from crossrank.redaction import redact_command
from crossrank.resume import ORIGIN

PACKAGES = (
    "crossrank", "torch", "lightning", "transformers", "tokenizers", "sentence-transformers", "datasets", "numpy",
    "bm25s", "PyStemmer",
)  # fmt: skip
CODE = "crossrank's code"
INSTALLED, DIFF = "requirements.txt", "uncommitted.diff"


class Provenance(pl.Callback):
    """Writes `<run_dir>/provenance.json` at the start of training and its duration at the end.

    Beside it stand every installed distribution with its version, `requirements.txt`, and what was changed in the code
    since its commit, `uncommitted.diff`: with these and the config the run can be done again, `rerun=RUN`.

    A run that goes on keeps what was written and adds when, and after which step, it was taken up again.
    """

    def __init__(self, run_dir: str) -> None:
        self.file = Path(run_dir) / "provenance.json"
        self._started = self._clock = 0.0
        self._facts: dict[str, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write everything that is known before the first step."""
        self._started, self._clock = time.time(), time.monotonic()
        if trainer.global_step and self.file.is_file():
            self._facts = _facts(self.file)
            again = {"after_step": trainer.global_step, "at": _clock(self._started), "code": git_state()}
            self._facts["resumed"] = [*self._facts.get("resumed", ()), again]
            self._write(trainer)
            return
        rows = trainer.datamodule.rows  # type: ignore[attr-defined]
        self._facts = {
            "code": git_state() | {"fingerprint": code_fingerprint()},
            "python": platform.python_version(),
            "packages": _packages(),
            "machine": machine(),
            "precision": trainer.precision,
            "data": {"rows": len(rows), "fingerprints": rows.fingerprints},
            "config": _facts(origin) if (origin := self.file.with_name(ORIGIN)).is_file() else None,
            "command": redact_command([Path(sys.argv[0]).name, *sys.argv[1:]]),
            "started": _clock(self._started),
        }
        self._write(trainer)
        if trainer.is_global_zero:
            replace_text(self.file.with_name(INSTALLED), installed())
            if diff := uncommitted_diff():
                replace_text(self.file.with_name(DIFF), diff)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add how long the training took, evaluations included."""
        self._facts |= {"steps": trainer.global_step, "training_seconds": round(time.monotonic() - self._clock, 1)}
        self._write(trainer)

    def _write(self, trainer: pl.Trainer) -> None:
        if trainer.is_global_zero:
            replace_text(self.file, json.dumps(self._facts, indent=2) + "\n")


def changed_since(run_dir: Path) -> list[str]:
    """Return what of code and packages is not what it was when a run was started; nothing where that is not known.

    Raises:
        ResumeError: the run's provenance.json is damaged.
    """
    was, now = then_and_now(run_dir)
    return [f"{name} was {was[name]} and is {now[name]}" for name in was if was[name] != now[name]]


def then_and_now(run_dir: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Return the versions of code and packages when a run was started, those that are known, and the same today.

    Raises:
        ResumeError: the run's provenance.json is damaged.
    """
    file = run_dir / "provenance.json"
    facts = _facts(file) if file.is_file() else {}
    was = {CODE: facts.get("code", {}).get("fingerprint"), **facts.get("packages", {})}
    now = {CODE: code_fingerprint(), **_packages()}
    known = [name for name in now if was.get(name) is not None]
    return {name: was[name] for name in known}, {name: now[name] for name in known}


def _facts(file: Path) -> dict[str, Any]:
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ResumeError(
            f"{file} cannot be read ({error}); remove it to go on without knowing what changed"
        ) from error
    parts = [facts, facts.get("code", {}), facts.get("packages", {})] if isinstance(facts, dict) else [None]
    if not all(isinstance(part, dict) for part in parts) or not isinstance(facts.get("resumed", []), list):
        raise ResumeError(f"{file} is no record of a run; remove it to go on without knowing what changed")
    return facts  # type: ignore[no-any-return]


def code_fingerprint() -> str:
    """Return 16 hex digits of the content of every file of this package."""
    root = Path(__file__).parents[1]
    return fingerprint(file_fingerprints(root, root.rglob("*.py")))


def _packages() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
