"""The notebooks run on finished runs, hold little but figures, and can be read as they are committed."""

import asyncio
import json
import os
import re
import shutil

import nbformat
import pytest
from conftest import ROOT, run_program
from jupyter_client.manager import AsyncKernelManager

from notebooks import execute
from notebooks.execute import executed

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FIGURES = {"01_training_run": 8, "02_errors": 3, "03_compare": 4, "04_negatives": 3, "05_sweep": 4}
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:work|tmp|home|root|Users|private|mnt|opt|usr)/")
MOST_BYTES = 400_000


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def figures(cells):
    return sum("image/png" in output.get("data", {}) for cell in cells for output in cell.outputs)


def words(notebook):
    """All that a reader sees of a notebook, but its figures."""
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    shown = [
        text for output in outputs for kind, text in output.get("data", {}).items() if not kind.startswith("image")
    ]
    streams = [output.get("text", "") for output in outputs]
    return "\n".join([*(cell.source for cell in notebook.cells), *shown, *streams])


@pytest.fixture(scope="session")
def sweep(smoke_run, tmp_path_factory):
    """A sweep of two jobs, of which the first is the run of this session."""
    folder = tmp_path_factory.mktemp("runs") / "smoke_sweep"
    shutil.copytree(smoke_run.folder, folder / "one")
    done = run_program(
        "src.train", "experiment=smoke", "optimizer.lr=1e-4", "seed=13", f"hydra.run.dir={folder / 'two'}",
        f"cache_dir={smoke_run.cache}",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for job, overrides in (("one", []), ("two", ["optimizer.lr=1e-4", "seed=13"])):
        (folder / job / "job.json").write_text(json.dumps({"overrides": ["experiment=smoke", *overrides]}))
    return folder


@pytest.fixture
def at_hand(smoke_run, sweep, monkeypatch):
    """What the notebooks look at."""
    monkeypatch.setenv("CROSSRANK_RUN", str(smoke_run.folder))
    systems = ["first_stage", *(str(sweep / job) for job in ("one", "two"))]
    monkeypatch.setenv("CROSSRANK_SYSTEMS", os.pathsep.join(systems))
    monkeypatch.setenv("CROSSRANK_SWEEP", str(sweep))


def test_these_are_the_notebooks():
    assert [path.stem for path in NOTEBOOKS] == list(FIGURES)


@pytest.fixture(scope="module")
def kernel():
    """A kernel that all notebooks run in, one after the other: most of their time is imports."""
    manager = AsyncKernelManager(kernel_name="python3")
    yield manager
    asyncio.run(manager.shutdown_kernel(now=True))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore")  # jupyter's own, about its sockets
def test_it_runs_and_every_cell_that_makes_a_figure_shows_it(path, at_hand, kernel):
    cells = code_cells(executed(path, kernel=kernel))
    assert figures(cells) == FIGURES[path.stem]
    for cell in cells[1:]:
        assert figures([cell]) == ("plt.subplots" in cell.source), cell.source
        assert cell.outputs, f"shows nothing: {cell.source}"
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type in ("error", "stream")]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_cell_holds_two_lines_and_the_first_what_it_needs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    first, *others = code_cells(notebook)
    assert "import" in first.source
    for cell in others:
        assert len(cell.source.splitlines()) <= 2, cell.source
        assert "import" not in cell.source
    assert sum(cell.cell_type == "markdown" for cell in notebook.cells) >= len(others) // 2


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_committed_with_what_it_shows_and_nothing_of_the_machine(path):
    notebook = nbformat.read(path, as_version=4)
    cells = code_cells(notebook)
    assert figures(cells) == FIGURES[path.stem], "fill it: make notebooks"
    assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)]
    assert not [output for cell in cells for output in cell.outputs if output.output_type in ("error", "stream")]
    assert not MACHINE_PATH.findall(words(notebook))
    assert not [cell.metadata for cell in notebook.cells if cell.metadata]  # times, above all
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert path.stat().st_size < MOST_BYTES


def test_the_command_fills_those_that_are_named(tmp_path, monkeypatch):
    for name in ("01_a", "02_b"):
        cell = nbformat.v4.new_code_cell("1 + 1", id="one")
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / f"{name}.ipynb")
    monkeypatch.setattr(execute, "FOLDER", tmp_path)
    asked = []

    def filled(path):
        asked.append(path.stem)
        notebook = nbformat.read(path, as_version=4)
        notebook.cells[0].outputs = [nbformat.v4.new_output("display_data", {"text/plain": "2"})]
        return notebook

    monkeypatch.setattr(execute, "executed", filled)
    execute.main(["02"])
    assert asked == ["02_b"]
    assert [len(nbformat.read(tmp_path / f"{name}.ipynb", 4).cells[0].outputs) for name in ("01_a", "02_b")] == [0, 1]
    execute.main([])
    assert asked[1:] == ["01_a", "02_b"]
