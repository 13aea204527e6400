"""Which run, systems or sweep a notebook looks at: what an environment variable names, else the newest there is."""

import os
from pathlib import Path
from typing import NamedTuple

from crossrank.analysis.runs import RunFolder, finished_runs, newest_run
from crossrank.analysis.systems import FIRST_STAGE
from crossrank.errors import DataError

RUN = "CROSSRANK_RUN"  # a run's folder
SYSTEMS = "CROSSRANK_SYSTEMS"  # words as of src.compare, joined as the folders of PATH are
SWEEP = "CROSSRANK_SWEEP"  # a sweep's folder
MOST = 3  # runs that are compared unless they are named


class BestStep(NamedTuple):
    """The step whose weights a run exported, and what chose it."""

    evaluator: str
    dataset: str
    metric: str
    step: int


def chosen_run() -> RunFolder:
    """Return the run that CROSSRANK_RUN names, else the finished one under `runs/` that ended last.

    Raises:
        DataError: there is none.
    """
    named = os.environ.get(RUN)
    return RunFolder(Path(_found(named)) if named else newest_run(_runs()))


def chosen_systems() -> list[str]:
    """Return the words that CROSSRANK_SYSTEMS names, else the first stage and the newest finished runs of one name.

    The runs are at most three, called as the one that ended last, in the order in which they ended.

    Raises:
        DataError: there is no finished run.
    """
    if named := os.environ.get(SYSTEMS):
        return [",".join(map(_found, word.split(","))) for word in named.split(os.pathsep)]
    name = RunFolder(newest_run(_runs())).result.get("name")
    alike = [run for run in finished_runs(_runs()) if RunFolder(run).result.get("name") == name]
    return [FIRST_STAGE, *map(str, alike[-MOST:])]


def chosen_sweep() -> Path:
    """Return the folder that CROSSRANK_SWEEP names, else the newest `*_sweep` under `runs/`.

    Raises:
        DataError: there is none.
    """
    if named := os.environ.get(SWEEP):
        return Path(_found(named))
    sweeps = sorted(_runs().rglob("*_sweep"), key=lambda folder: folder.stat().st_mtime)
    if not sweeps:
        raise DataError(
            f"{_runs()}: no sweep; make one with: python -m src.train -m experiment=quickstart optimizer.lr=1e-4,2e-4"
        )
    return sweeps[-1]


def best_step(run: RunFolder) -> BestStep:
    """Return a run's best step.

    Raises:
        DataError: the run has not finished, or nothing was evaluated.
    """
    if "monitor" not in run.result:
        raise DataError(f"{run.path}: nothing was evaluated, so no step is the best; give the run an evaluator")
    _, evaluator, *dataset, metric = str(run.result["monitor"]).split("/")
    return BestStep(evaluator, "/".join(dataset), metric, int(run.result["best_step"]))


def _runs() -> Path:
    return Path(_found("runs"))


def _found(word: str) -> str:
    """Return a path below the nearest folder above that has it: notebooks run in their own. Else the word as it is."""
    here = Path.cwd()
    return next((str(folder / word) for folder in (here, *here.parents) if (folder / word).exists()), word)
