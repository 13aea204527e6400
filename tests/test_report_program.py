"""The program as a person calls it, and the page that a training leaves by itself."""

import json

from conftest import run_program


def test_a_training_ends_with_its_page(smoke_run):
    assert f"{smoke_run.folder / 'report.html'}" in smoke_run.output
    page = (smoke_run.folder / "report.html").read_text(encoding="utf-8")
    assert "Reranking" in page
    assert "has not finished" not in page


def test_the_page_can_be_made_again_elsewhere(smoke_run, tmp_path):
    done = run_program("src.report", str(smoke_run.folder), f"output={tmp_path / 'page.html'}")
    assert done.returncode == 0
    assert json.loads(done.stdout) == {"report": str(tmp_path / "page.html")}
    again = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert again == (smoke_run.folder / "report.html").read_text(encoding="utf-8")


def test_mistakes_are_one_sentence(tmp_path):
    for words, said in (
        ((str(tmp_path),), "neither a run (no metrics.jsonl) nor a sweep"),
        ((), "run: required and missing"),
        (("a", "b"), "one run at a time, got 2: a, b"),
        ((str(tmp_path), "+outptu=x"), "did you mean"),
    ):
        done = run_program("src.report", *words)
        assert done.returncode == 2, words
        assert said in done.stderr
        assert "Traceback" not in done.stderr
