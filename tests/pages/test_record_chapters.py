"""What a run's page says of how it came about is what the run wrote down."""

import json

import pytest
from made_runs import write_run

from crossrank.analysis.run_view import RunView, view
from crossrank.analysis.runs import RunFolder
from crossrank.pages import record_chapters as record
from crossrank.pages.page_parts import Code, Fold, Grid, Plot, Text
from crossrank.training.tracking import JsonlLogger

PROVENANCE = {
    "code": {"commit": "abc", "uncommitted_changes": True, "fingerprint": "f00d"},
    "python": "3.11.7",
    "packages": {"torch": "2.13.0"},
    "machine": {"cpus": 2, "threads": 1, "gpus": [], "system": "Linux"},
    "command": ["train.py", "experiment=smoke", "name=a b"],
    "training_seconds": 150.0,
    "resumed": [{"after_step": 4, "at": "later"}],
    "config": {
        "overrides": ["optimizer.lr=0.1"],
        "base": "experiment=smoke",
        "differences": {"optimizer.lr": [0.001, 0.1], "model.path": [None, "<b>"]},
    },
}


@pytest.fixture
def run(tmp_path):
    folder = write_run(tmp_path / "run")
    (folder / "provenance.json").write_text(json.dumps(PROVENANCE))
    (folder / "train.log").write_text(
        "00:00:01 health, step 4: scores hardly differ\n00:00:02 step 5 of 8: loss 1\n00:00:03 health, step 4: scores "
        "hardly differ\n"
    )
    step = {"id": "1234567890123456", "description": {"kind": "pydocs", "packages": ["numpy"], "seed": 1}}
    content = {"steps": {"source": step}, "caches": {"texts": "ff"}, "files": {"export/model.safetensors": "ee"}}
    (folder / "lineage.json").write_text(json.dumps(content))
    return view(folder)


@pytest.fixture
def bare(tmp_path):
    JsonlLogger(tmp_path).log_metrics({"other": 1.0}, step=3)
    return RunView(RunFolder(tmp_path))


def of(chapter, kind):
    return [part for part in chapter.parts if isinstance(part, kind)]


def rows(grid):
    return [[cell.text for cell in row] for row in grid.cells]


def test_the_command_and_what_differs_from_the_base(run):
    chapter = record.config(run)
    assert of(chapter, Code)[0].text == "python -m src.train experiment=smoke 'name=a b'"
    (grid,) = of(chapter, Grid)
    assert grid.title == "Differences from experiment=smoke"
    assert rows(grid) == [["optimizer.lr", "0.001", "0.1"], ["model.path", "null", "<b>"]]
    (fold,) = of(chapter, Fold)
    assert "monitor: eval/dev/mean/ndcg@10" in fold.parts[0].text


def test_no_difference_and_an_unrecorded_one_are_told_apart(tmp_path):
    folder = write_run(tmp_path / "run")
    for said, words in (
        ({"base": "b", "differences": {}}, "No difference from b."),
        ({"base": "b", "differences": None}, "What differs from b is not known."),
        (None, "was not recorded"),
    ):
        (folder / "provenance.json").write_text(json.dumps({"config": said}))
        assert words in of(record.config(view(folder)), Text)[0].text


def test_a_warning_is_given_once(run, tmp_path):
    chapter = record.health(run)
    assert [(part.text, part.tone) for part in of(chapter, Text)] == [("Step 4: scores hardly differ", "warning")]
    (plot,) = of(chapter, Plot)
    assert (plot.title, plot.figure.data[0].y) == ("Pair accuracy", (0.75, 0.75, 0.75))
    healthy = view(write_run(tmp_path / "healthy"))
    assert of(record.health(healthy), Text)[0].text == "No warning was given."


def test_throughput_is_a_median_and_a_share_of_the_whole_is_the_last(run):
    (grid,) = of(record.throughput(run), Grid)
    assert rows(grid) == [["tokens a second", "104", "100", "108"], ["evaluating, of all time", "80.0%", "-", "-"]]
    assert "2.5 minutes" in grid.note


@pytest.mark.parametrize(("seconds", "words"), [(1.5, "1.5 seconds"), (150, "2.5 minutes"), (9000, "2.5 hours")])
def test_a_time_has_the_unit_that_suits_it(seconds, words):
    assert record.duration(seconds) == words


def test_lineage_is_what_was_recorded(run):
    chapter = record.lineage(run)
    assert rows(of(chapter, Grid)[0]) == [["source", "1234567890123456", 'kind pydocs, packages ["numpy"], seed 1']]
    assert [rows(fold.parts[0]) for fold in of(chapter, Fold)] == [
        [["texts", "ff"]], [["export/model.safetensors", "ee"]]
    ]  # fmt: skip


def test_the_environment_is_what_was_recorded(run):
    facts, packages = of(record.environment(run), Grid)
    told = dict(rows(facts))
    assert told["commit"] == "abc with uncommitted changes"
    assert told["CPUs"] == "2, of which torch used 1"
    assert told["GPUs"] == "none"
    assert told["resumed after step 4"] == "later"
    assert rows(packages) == [["torch", "2.13.0"]]


def test_what_else_a_run_wrote_of_its_machine_is_shown(run):
    machine = {"cpu": "EPYC", "cpus": 2, "threads": 1, "memory_gib": 23.5, "cuda": "13", "system": "Linux"}
    machine["gpus"] = [{"name": "H100", "memory_gib": 79.6}]
    code = {"commit": "abc", "uncommitted_changes": True, "untracked": ["a.py", "b.py"]}
    folder = run.run.path
    (folder / "provenance.json").write_text(json.dumps({"machine": machine, "code": code}))
    energy = {"all_kwh": 0.01234, "co2_kg": 0.0056, "country": "SWE", "estimated_by": "codecarbon 3"}
    (folder / "energy.json").write_text(json.dumps(energy))
    (folder / "requirements.txt").write_text("torch==2\n")
    (folder / "uncommitted.diff").write_text("+" * 100_007)
    chapter = record.environment(view(folder))
    told = dict(rows(of(chapter, Grid)[0]))
    assert told["CPUs"] == "EPYC: 2, of which torch used 1"
    assert (told["memory"], told["GPUs"], told["CUDA"]) == ("23.5 GiB", "H100 (79.6 GiB)", "13")
    assert told["files unknown to git"] == "a.py, b.py"
    assert told["electricity"] == "about 0.0123 kWh, 0.0056 kg of CO2 in SWE, estimated by codecarbon 3"
    installed, changed = (fold.parts[0].text for fold in of(chapter, Fold))
    assert installed == "torch==2"
    assert changed == "+" * 100_000 + "\n… and 7 characters more"


def test_what_is_missing_is_said(bare):
    chapters = (record.health, record.throughput, record.lineage, record.environment)
    said = [of(chapter(bare), Text)[0].text for chapter in chapters]
    assert said == [
        "No health was logged.", "No throughput was logged.", "There is no lineage.json.",
        "There is no provenance.json.",
    ]  # fmt: skip
    assert "There is no config.yaml." in [part.text for part in of(record.config(bare), Text)]
