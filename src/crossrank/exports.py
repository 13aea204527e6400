"""Writes a run's model as the folder that its users load, and lets nothing into place that scores otherwise."""

from collections.abc import Sequence
from pathlib import Path

from crossrank.data.tokens import PairEncoder
from crossrank.errors import ExportError
from crossrank.inference.parity import ParityGate
from crossrank.models.cross_encoder import CrossEncoder
from crossrank.models.export import export
from crossrank.models.onnx_export import write_onnx


def export_checked(
    model: CrossEncoder,
    encoder: PairEncoder,
    run_dir: Path,
    folder: Path | None = None,
    interpreters: Sequence[str] = (),
    onnx: bool = False,
) -> Path:
    """Write the model into `folder`, by default the run's `export/`, once every consumer scores the same with it.

    `interpreters` are Pythons of other environments to check it in too; with `onnx` it holds ONNX files as well.

    Raises:
        ExportError: a consumer scores otherwise; what was written is left beside the folder, which is as it was.
    """
    gate = ParityGate(model, encoder, tuple(interpreters))

    def check(written: Path) -> None:
        if onnx:
            write_onnx(written)
        gate(written)

    try:
        return export(model, encoder, folder or run_dir / "export", check)
    except ExportError as error:
        raise ExportError(
            f"{error}; checkpoints and evaluations are whole: once it is mended, python -m src.export {run_dir} makes "
            f"the export, and python -m src.train resume={run_dir} also what a run ends with"
        ) from error
