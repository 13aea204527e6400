"""A run's page as a whole: of a real run, and of what a run may lack."""

import json

from made_runs import HOSTILE, write_run
from page_reader import Reader

from crossrank.analysis.run_view import view
from crossrank.analysis.runs import RunFolder
from crossrank.analysis.summary import summary
from crossrank.pages.html_report import run_page
from crossrank.training.tracking import JsonlLogger

CHAPTERS = [
    "Headline", "Config", "Curves", "Results", "Queries", "Calibration", "Health", "Throughput", "Lineage",
    "Environment",
]  # fmt: skip
MEGABYTE = 2**20


def links(reader):
    return [attributes["href"] for tag, attributes in reader.elements if tag == "a"]


def test_the_page_of_a_real_run_holds_the_numbers_of_its_summary(smoke_run):
    run = RunFolder(smoke_run.folder)
    page = run_page(view(run.path))
    reader = Reader(page)
    row = next(row for row in summary(run, run.result["best_step"]) if row.metric == "ndcg@10")
    for number in (row.first_stage, row.before, row.after):
        assert f"{number.mean:.4f} [{number.low:.4f}, {number.high:.4f}]" in reader.text
    assert f"{row.gain.mean:+.4f} [{row.gain.low:+.4f}, {row.gain.high:+.4f}]" in reader.text
    assert links(reader) == [f"#{name.lower()}" for name in CHAPTERS]
    provenance = json.loads((run.path / "provenance.json").read_text())
    assert provenance["code"]["fingerprint"] in reader.text
    assert provenance["packages"]["torch"] in reader.text
    assert json.loads((run.path / "lineage.json").read_text())["steps"]["pool"]["id"] in reader.text
    assert len(page.encode()) < 5 * MEGABYTE


def test_a_run_that_only_began_has_a_page(tmp_path):
    JsonlLogger(tmp_path).log_metrics({"train/loss": 1.0}, step=1)
    reader = Reader(run_page(view(tmp_path)))
    assert "A training run that has not finished, 1 steps" in reader.text
    assert links(reader) == [f"#{name.lower()}" for name in CHAPTERS]
    assert reader.text.count("Nothing was evaluated") == 4


def test_a_run_that_logged_nothing_at_all_has_a_page(tmp_path):
    (tmp_path / "metrics.jsonl").touch()
    assert "No training step was logged." in Reader(run_page(view(tmp_path))).text


def test_every_hostile_text_is_shown_as_it_is(tmp_path):
    reader = Reader(run_page(view(write_run(tmp_path / "run", strength=3.0))))
    shown = {" ".join(text.split()) for text in HOSTILE}
    assert {text for text in shown if text in reader.text} == shown
