"""Run notebooks in place and keep what they show: python -m notebooks.execute [NAME ...], or make notebooks."""

import logging
import os
import sys
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient

FOLDER = Path(__file__).parent
SOURCES = FOLDER.parent / "src"

log = logging.getLogger(__name__)


def executed(path: Path, timeout: int = 300, kernel: KernelManager | None = None) -> nbformat.NotebookNode:
    """Return a notebook with the outputs of a run, without times, which change with each.

    It runs in a kernel of its own, or in the given one, which forgets the names that another notebook left.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed; its traceback is in the message.
    """
    notebook = nbformat.read(path, as_version=4)
    paths = [str(SOURCES), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    if kernel is not None and kernel.has_kernel:
        _execute(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("%reset -f")]), path, timeout, kernel)
    _execute(notebook, path, timeout, kernel, env=environment)
    notebook.metadata = {key: notebook.metadata[key] for key in ("kernelspec",)} | {"language_info": {"name": "python"}}
    return notebook


def _execute(
    notebook: nbformat.NotebookNode, path: Path, timeout: int, kernel: KernelManager | None, **options: Any
) -> None:
    client = NotebookClient(
        notebook, timeout=timeout, kernel_name="python3", record_timing=False,
        resources={"metadata": {"path": str(path.parent)}}, km=kernel,
    )  # fmt: skip
    client.execute(**options)
    if kernel is not None:
        client.kc.stop_channels()  # of a kernel of its own it has done so


def main(names: list[str]) -> None:
    """Execute the notebooks whose names begin so, all of them without a name, and write them."""
    for path in sorted(FOLDER.glob("*.ipynb")):
        if not names or any(path.stem.startswith(name) for name in names):
            nbformat.write(executed(path), path)
            log.info("%s: %d kB", path.name, path.stat().st_size / 1000)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main(sys.argv[1:])
