"""The page of HTML that a run and a sweep leave in their folders, each written whole or not at all."""

from pathlib import Path

from crossrank.analysis.run_view import RunView, view
from crossrank.analysis.sweeps import SweepFolder
from crossrank.data.cache import replace_text
from crossrank.errors import DataError
from crossrank.pages.html_report import run_page
from crossrank.pages.sweep_report import REPORT, sweep_page


def write_run_report(run: RunView, file: Path | None = None) -> Path:
    """Write the page of a run, by default its `report.html`, and return where.

    Raises:
        DataError: a file of the run is damaged, or the page cannot be written.
    """
    return _write(run_page(run), file or run.run.path / REPORT)


def write_sweep_report(sweep: SweepFolder, file: Path | None = None) -> Path:
    """Write the page of a sweep, by default its `report.html`, and return where.

    Raises:
        DataError: a file of a job is damaged, or the page cannot be written.
    """
    return _write(sweep_page(sweep), file or sweep.path / REPORT)


def write_report(folder: Path, file: Path | None = None) -> Path:
    """Write the page of whichever a folder is, a run or a sweep, and return where.

    Raises:
        DataError: it is neither, one of its files is damaged, or the page cannot be written.
    """
    if (folder / "metrics.jsonl").is_file():
        return write_run_report(view(folder), file)
    try:
        sweep = SweepFolder(folder)
    except DataError:
        raise DataError(
            f"{folder}: neither a run (no metrics.jsonl) nor a sweep (no job lies there); give a run's folder, such as "
            "runs/quickstart/<time>, or a sweep's, such as runs/quickstart/lr_sweep"
        ) from None
    return write_sweep_report(sweep, file)


def _write(page: str, file: Path) -> Path:
    try:
        replace_text(file, page)
    except OSError as error:
        raise DataError(f"{file}: the page cannot be written ({error.strerror or error})") from error
    return file
