"""Which runs a notebook looks at, by what is there and by what is named."""

import json
import os

import pytest

from crossrank.analysis.chosen import BestStep, best_step, chosen_run, chosen_sweep, chosen_systems
from crossrank.analysis.runs import RunFolder
from crossrank.errors import DataError


@pytest.fixture(autouse=True)
def clone(tmp_path, monkeypatch):
    """A clone whose notebooks are run in their own folder."""
    for name in ("CROSSRANK_RUN", "CROSSRANK_SYSTEMS", "CROSSRANK_SWEEP"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    return tmp_path


def finished(folder, at, **facts):
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").touch()
    (folder / "result.json").write_text(json.dumps({"name": "quick", "best_step": 3} | facts))
    os.utime(folder / "result.json", (at, at))
    return folder


def test_the_newest_run_of_the_clone_is_taken_unless_one_is_named(clone, monkeypatch):
    old, new = (finished(clone / "runs" / "quick" / str(at), at) for at in (1, 2))
    evaluated = finished(clone / "runs" / "evaluate" / "9", 9)
    (evaluated / "metrics.jsonl").unlink()  # what src.evaluate writes is no training
    assert chosen_run().path == new
    monkeypatch.setenv("CROSSRANK_RUN", str(old))
    assert chosen_run().path == old
    monkeypatch.setenv("CROSSRANK_RUN", "runs/quick/1")  # as it is called where make notebooks is run
    assert chosen_run().path == old


def test_without_a_run_the_error_says_how_to_make_one():
    with pytest.raises(DataError, match="no finished run; make one with: make train"):
        chosen_run()
    with pytest.raises(DataError, match="no finished run"):
        chosen_systems()
    with pytest.raises(DataError, match=r"no sweep; make one with: python -m src\.train -m"):
        chosen_sweep()


def test_the_first_stage_and_the_three_newest_runs_of_one_name_are_compared_unless_others_are_named(clone, monkeypatch):
    runs = [finished(clone / "runs" / "quick" / str(at), at) for at in (4, 1, 3, 2)]
    finished(clone / "runs" / "other", 3.5, name="other")
    assert chosen_systems() == ["first_stage", *map(str, (runs[3], runs[2], runs[0]))]
    monkeypatch.setenv("CROSSRANK_SYSTEMS", os.pathsep.join(["first_stage", "runs/quick/1,runs/quick/2", "a b"]))
    assert chosen_systems() == ["first_stage", f"{runs[1]},{runs[3]}", "a b"]


def test_the_newest_sweep_is_taken_unless_one_is_named(clone, monkeypatch):
    for at in (2, 1):
        (clone / "runs" / "quick" / f"{at}_sweep").mkdir(parents=True)
        os.utime(clone / "runs" / "quick" / f"{at}_sweep", (at, at))
    assert chosen_sweep() == clone / "runs" / "quick" / "2_sweep"
    monkeypatch.setenv("CROSSRANK_SWEEP", "elsewhere")
    assert str(chosen_sweep()) == "elsewhere"


def test_the_best_step_comes_with_what_chose_it(clone):
    run = RunFolder(finished(clone / "run", 1, monitor="eval/beir/nq/test/ndcg@10"))
    assert best_step(run) == BestStep("beir", "nq/test", "ndcg@10", 3)
    with pytest.raises(DataError, match="nothing was evaluated, so no step is the best"):
        best_step(RunFolder(finished(clone / "other", 1)))
