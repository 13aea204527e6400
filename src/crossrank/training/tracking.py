"""What a run reports while it runs: a local record, always, and other loggers that it does not depend on."""

import json
import logging
import math
import time
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from torch.nn import Module

from crossrank.data.cache import replace_text
from crossrank.redaction import redact

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")


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

    def publish(self, run_dir: Path) -> None:
        """Do nothing: what a finished run left lies beside the record."""


class Guarded(Logger):
    """A logger that a training does not depend on: it is left out, with one warning, from its first error on.

    `build` makes the logger, and may fail as well; `title` is what the warning calls it. A run that goes on builds it
    anew. What it would have been told stands in `metrics.jsonl` all the same.
    """

    def __init__(self, title: str, build: Callable[[], Logger]) -> None:
        super().__init__()
        self.title = title
        self._logger: Logger | None = None
        try:
            self._logger = build()
        except Exception as error:  # a network, a disk or a server may raise anything
            self._leave_out(error)

    @property
    def name(self) -> str | None:
        """The logger's own name; None, as for all that follows, once it is left out."""
        return self._ask(lambda logger: logger.name)

    @property
    def version(self) -> int | str | None:
        """The logger's own version."""
        return self._ask(lambda logger: logger.version)

    @property
    def root_dir(self) -> str | None:
        """Where the logger keeps all versions."""
        return self._ask(lambda logger: logger.root_dir)

    @property
    def log_dir(self) -> str | None:
        """Where the logger keeps this version."""
        return self._ask(lambda logger: logger.log_dir)

    @property
    def save_dir(self) -> str | None:
        """Where the logger writes."""
        return self._ask(lambda logger: logger.save_dir)

    @property
    def group_separator(self) -> str:
        """What stands between the parts of a metric's name."""
        return self._ask(lambda logger: logger.group_separator) or super().group_separator

    @property
    def experiment(self) -> Any:
        """What the logger writes to, such as a W&B run, if it has any; Lightning asks for it to have it opened."""
        return self._ask(lambda logger: getattr(logger, "experiment", None))

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Pass the metrics on."""
        self._ask(lambda logger: logger.log_metrics(dict(metrics), step))

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Pass the hyperparameters on."""
        self._ask(lambda logger: logger.log_hyperparams(params, *args, **kwargs))

    def log_graph(self, model: Module, input_array: Tensor | None = None) -> None:
        """Pass the model on."""
        self._ask(lambda logger: logger.log_graph(model, input_array))

    def after_save_checkpoint(self, checkpoint_callback: ModelCheckpoint) -> None:
        """Say that a checkpoint was written."""
        self._ask(lambda logger: logger.after_save_checkpoint(checkpoint_callback))

    def save(self) -> None:
        """Have it written what was passed on."""
        self._ask(lambda logger: logger.save())

    def finalize(self, status: str) -> None:
        """Say how the training ended."""
        self._ask(lambda logger: logger.finalize(status))

    def publish(self, run_dir: Path) -> None:
        """Have the logger that can, one with a `publish` of its own, upload what a finished run left in its folder."""
        self._ask(lambda logger: getattr(logger, "publish", lambda _: None)(run_dir))

    def _ask(self, question: Callable[[Logger], Answer]) -> Answer | None:
        if self._logger is None:
            return None
        try:
            return question(self._logger)
        except Exception as error:
            self._leave_out(error)
            return None

    def _leave_out(self, error: Exception) -> None:
        self._logger = None
        log.warning(
            "logger %s failed and is left out from now on (%s: %s); the training goes on, its metrics are kept in "
            "metrics.jsonl", self.title, type(error).__name__, told(error),
        )  # fmt: skip


def forget_after(run_dir: Path, step: int) -> None:
    """Take out of a run's record what was logged and evaluated after a step, and a line that a kill cut short.

    What comes again must stand there once. `step` -1 takes out everything.
    """
    file = run_dir / "metrics.jsonl"
    if file.is_file():
        lines = file.read_text(encoding="utf-8").split("\n")[:-1]
        kept = [line for line in lines if _step_of(line) <= step]
        replace_text(file, "".join(f"{line}\n" for line in kept))
    for table in (run_dir / "evaluations").rglob("*step=*.parquet"):
        number = table.name.lstrip(".")[5:].partition("-")[0]
        if table.name.startswith(".") or (number.isdecimal() and int(number) > step):
            table.unlink()


def _step_of(line: str) -> float:
    """Return the step of a line of the record; a damaged line is of no step, and not kept."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf


def sweep_of(run_dir: Path) -> str | None:
    """Return the name of the sweep whose folder holds a run, with the folder that holds the sweep, if it is a job."""
    parent = run_dir.absolute().parent
    return f"{parent.parent.name}/{parent.name}" if parent.name.endswith("_sweep") else None


def told(error: Exception) -> str:
    """Return an error in one line that can be logged: a server's may quote the address, and who asked it."""
    return redact(" ".join(str(error).split()))
