import json

import pytest
from conftest import run_program


def test_the_printed_command_ranks_ones_own_documents(smoke_run, tmp_path):
    documents = tmp_path / "documents.txt"
    documents.write_text("Return the sum of two numbers.\nOpen a file and read it.\nSort a list in place.\n")
    done = run_program(
        "src.rerank",
        f"reranker={smoke_run.folder / 'export'}",
        f"documents={documents}",
        "query=how do I sort a list",
        "top_k=2",
    )
    assert done.returncode == 0, done.stderr
    assert "how do I sort a list" in done.stderr
    assert done.stderr.count("│ 1 ") >= 1
    assert "│ 3    │" not in done.stderr  # two were asked for
    assert len(json.loads(done.stdout)["ranking"]) == 2, done.stdout


def test_the_sources_own_answers_can_be_ranked(smoke_run):
    command = smoke_run.output.splitlines()[-1].split("python -m ")[1]
    documents = command.split("documents=")[1].split()[0]
    done = run_program(
        "src.rerank", f"reranker={smoke_run.folder / 'export'}", f"documents={documents}", "query=open a file"
    )
    assert done.returncode == 0, done.stderr
    assert "open a file" in done.stderr


@pytest.mark.parametrize(("overrides", "message"), [
    (["reranker=nowhere/at-all", "query=x"], "could not fetch"),
    (["query=x"], "reranker: required and missing"),
    (["reranker=./nowhere", "query=x", "top_k=0"], "top_k"),
    (["reranker=./nowhere", "query=x"], "no such folder"),
])  # fmt: skip
def test_bad_input_is_one_sentence(overrides, message, tmp_path):
    documents = tmp_path / "documents.txt"
    documents.write_text("one document\n")
    done = run_program("src.rerank", f"documents={documents}", *overrides)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
