"""Makes the export of a run again, from its best checkpoint."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from crossrank.analysis.run_view import RunView
from crossrank.analysis.runs import RunFolder
from crossrank.callbacks.evaluation import BEST
from crossrank.callbacks.verdicts import KEPT
from crossrank.card.written import write_card
from crossrank.config import build_parts
from crossrank.data.fingerprint import sha256
from crossrank.data.lineage_record import LineageRecord
from crossrank.errors import ExportError
from crossrank.exports import export_checked
from crossrank.hub import require
from crossrank.inference.elsewhere import refuse_missing
from crossrank.inference.parity import PARITY
from crossrank.models.export import exported_files
from crossrank.models.onnx_export import refuse_without_onnx
from crossrank.outcome import write_calibration
from crossrank.resume import read_config
from crossrank.training.checkpoints import newest_whole_state, read_checkpoint

log = logging.getLogger(__name__)

CHOSEN = (f"checkpoints/{KEPT}", f"checkpoints/{BEST}")  # an average is kept only where it is better
PREFIX = "model."  # of the module that was trained


@dataclass(frozen=True)
class Reexported:
    """What came of it."""

    run_dir: Path
    folder: Path
    step: int
    parity: list[dict[str, Any]]

    def table(self) -> Table:
        """Return one row a consumer."""
        table = Table("consumer", "version", "pairs", "largest gap", "tolerance", "note")
        for row in self.parity:
            gaps = ("-" if row[key] is None else f"{row[key]:.1e}" for key in ("largest_gap", "tolerance"))
            table.add_row(*map(Text, (row["consumer"], row["version"], str(row["pairs"]), *gaps, row["note"])))
        return table


def reexport(
    run_dir: Path, folder: Path | None = None, interpreters: Sequence[str] = (), onnx: bool = False
) -> Reexported:
    """Write a run's best weights into `folder`, by default its `export/`, with all that lies beside them there.

    Arguments as for `export_checked`. What the run recorded of its export is brought up to date.

    Raises:
        DataError: the folder holds no run.
        ResumeError: its config cannot be read.
        ConfigError: its config is none that can be built, or an interpreter or ONNX is missing.
        ExportError: its best weights are gone or are not what they were, or a consumer scores otherwise.
    """
    run, record, config = RunFolder(run_dir), LineageRecord.read(run_dir), read_config(run_dir)
    _refuse_to_replace(folder)
    refuse_missing(interpreters)
    if onnx:
        refuse_without_onnx()
    parts = build_parts(config, ("model", "adapter", "loss"))
    require(parts["model"].assets())
    file = _best(run_dir, record)
    step, weights = _read(file)
    model, encoder = parts["model"].build(config.seed), parts["model"].encoder()
    if "adapter" in parts:
        model = parts["adapter"].adapt(model, config.seed)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        said = " ".join(str(error).split())
        raise ExportError(f"{file} holds other weights than {run_dir}'s config describes: {said}") from error
    made = export_checked(model, encoder, run_dir, folder, interpreters, onnx)
    LineageRecord(record.lineage.published().steps, {}).write(made)
    if file.name in (BEST, KEPT):
        weight = float(getattr(parts["loss"], "pos_weight", 1.0))
        write_calibration(run, made, step, config.monitor.split("/")[1], config.calibration, weight)
    write_card(RunView(run), made)
    if record.files and folder is None:  # it has finished
        kept = [run_dir / name for name in CHOSEN if name in record.files]
        record.with_files(run_dir, [*kept, *exported_files(made)]).write(run_dir)
    return Reexported(run_dir, made, step, json.loads((made / PARITY).read_text(encoding="utf-8")))


def _refuse_to_replace(folder: Path | None) -> None:
    """Check that a folder that would be replaced is an export, and no folder of something else."""
    if folder is None or not folder.exists() or (folder / PARITY).is_file():
        return
    if not folder.is_dir() or any(folder.iterdir()):
        raise ExportError(f"{folder} would be replaced, and is no export (no {PARITY}); name a new folder")


def _best(run_dir: Path, record: LineageRecord) -> Path:
    """Return the checkpoint to export: an average that was kept, the best evaluated step, or without both the last.

    Raises:
        ExportError: it is gone, or is not what was recorded of it.
    """
    averaged, best = (run_dir / name for name in CHOSEN)
    recorded = [run_dir / name for name in CHOSEN if name in record.files]
    if recorded:
        file = recorded[0]
        if not file.is_file():
            raise ExportError(f"{file}: no such file, and without it nothing can be exported of {run_dir}")
        if sha256(file) != record.files[file.relative_to(run_dir).as_posix()]:
            raise ExportError(f"{file} is not the file that the run ended with; see python -m src.verify {run_dir}")
        return file
    if best.is_file():  # of a run that has not finished; an older average is of an earlier attempt
        newer = averaged.is_file() and averaged.stat().st_mtime_ns >= best.stat().st_mtime_ns
        return averaged if newer else best
    evaluated = any((run_dir / "evaluations").glob("step=*"))
    state = None if evaluated else newest_whole_state(run_dir / "checkpoints")
    if state is None:
        raise ExportError(f"{best}: no such file, and without it nothing can be exported of {run_dir}")
    return state.file


def _read(file: Path) -> tuple[int, dict[str, Any]]:
    """Return a checkpoint's step and the weights of its model."""
    try:
        saved = read_checkpoint(file)
        named = {name: weight for name, weight in saved["state_dict"].items() if name.startswith(PREFIX)}
        return int(saved["global_step"]), {name.removeprefix(PREFIX): weight for name, weight in named.items()}
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ExportError(f"{file} is no checkpoint that can be read: {type(error).__name__}: {error}") from error
