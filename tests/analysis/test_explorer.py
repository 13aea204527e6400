"""Single queries of a run, against frames worked out by hand."""

import json
import math

import pandas as pd
import pytest

from crossrank.analysis.chosen import BestStep
from crossrank.analysis.explorer import failures_at, query_rows, show_query
from crossrank.analysis.runs import RunFolder
from crossrank.errors import DataError

BEST = BestStep("dev_set", "a", "map", 4)
ROWS = ["dataset", "query_id", "metric", "value", "base_value", "ceiling", "first_rank", "base_rank", "truncated"]
SCORES = ["dataset", "query_id", "document_id", "first_stage_rank", "score", "relevant"]


def write(folder, kind, evaluator, frame, step=None):
    name = f"{evaluator}.parquet" if step is None else f"step={step:06d}-{evaluator}.parquet"
    (folder / "evaluations" / kind).mkdir(parents=True, exist_ok=True)
    known = {"evaluator": evaluator} if step is None else {"evaluator": evaluator, "step": step}
    frame.assign(**known).to_parquet(folder / "evaluations" / kind / name)


@pytest.fixture
def run(tmp_path):
    """The query q of two datasets, and another evaluator with other values of a query of the same name."""
    (tmp_path / "metrics.jsonl").touch()
    (tmp_path / "result.json").write_text(json.dumps({"best_step": 4, "monitor": "eval/dev_set/a/map"}))
    rows = [
        ("a", "q", "map", 0.5, 0.25, 1.0, 2, 4, 0.0), ("a", "r", "map", 0.0, 1.0, 1.0, 3, 1, 0.0),
        ("b", "s", "map", 1.0, 1.0, 1.0, 1, 1, 0.0), ("b", "r", "map", 1.0, 0.5, 1.0, 1, 2, 0.0),
        ("a", "q", "ndcg@10", 0.1, 0.2, 1.0, 2, 4, 0.0),
    ]  # fmt: skip
    frame = pd.DataFrame(rows, columns=ROWS)
    write(tmp_path, "", "dev_set", frame, 4)
    write(tmp_path, "", "dev_set", frame.assign(value=0.0), 0)
    write(tmp_path, "", "other", frame.assign(value=0.125), 4)
    scores = [
        ("a", "q", "d1", 1, 2.0, False), ("a", "q", "d2", 2, -1.5, False), ("a", "q", "d3", 3, 2.0, False),
        ("a", "q", "d4", 4, 0.25, True), ("a", "q", "d5", 0, -3.0, True), ("b", "q", "d1", 1, 9.0, True),
    ]  # fmt: skip
    frame = pd.DataFrame(scores, columns=SCORES)
    write(tmp_path, "scores", "dev_set", frame, 4)
    write(tmp_path, "scores", "other", frame.assign(score=-frame["score"]), 4)
    queries = pd.DataFrame([("a", "q", "how high?"), ("a", "r", "why?")], columns=["dataset", "query_id", "question"])
    documents = [("a", f"d{i}", f"text {i}") for i in range(1, 6)] + [("b", "d1", "of b")]
    for evaluator in ("dev_set", "other"):
        write(tmp_path, "queries", evaluator, queries)
        write(tmp_path, "documents", evaluator, pd.DataFrame(documents, columns=["dataset", "document_id", "text"]))
    return RunFolder(tmp_path)


def test_the_rows_are_of_one_evaluator_metric_and_step_with_question_and_change(run):
    rows = query_rows(run, BEST)
    assert rows[["dataset", "query_id", "change"]].to_numpy().tolist() == [
        ["a", "q", 0.25], ["a", "r", -1.0], ["b", "s", 0.0], ["b", "r", 0.5],
    ]  # fmt: skip
    assert rows["question"].tolist()[:2] == ["how high?", "why?"]
    with pytest.raises(DataError, match="dev_set has no map at step 3"):
        query_rows(run, BEST._replace(step=3))


def test_failures_are_those_of_the_best_step(run):
    found = failures_at(run, BEST, count=1)
    assert (found.counts.helped, found.counts.hurt, found.counts.unchanged) == (2, 1, 1)
    assert found.helped[["dataset", "query_id", "change"]].to_numpy().tolist() == [["b", "r", 0.5]]
    assert found.hurt[["query_id", "question", "change"]].to_numpy().tolist() == [["r", "why?", -1.0]]


def test_a_query_is_shown_in_both_orders_with_its_relevant_documents_at_any_rank(run):
    """By score d1 and d3 tie, and stand as in the first stage; then d4, d2, d5, which the first stage lacks."""
    section = show_query(run, BEST, "q", most=2)
    assert section.title == "q: how high?"
    assert section.note.startswith("map 0.2500 to 0.5000. 5 documents were scored.")
    assert [tuple(row) for row in section.rows] == [
        ("1", "text 1", "1", "text 1", "2.000", "1"),
        ("2", "text 2", "4", "text 3", "2.000", "3"),
        ("3", "text 3", "2", "● text 4", "0.250", "4"),
        ("4", "● text 4", "3", "text 2", "-1.500", "2"),
        ("5", "", "", "● text 5", "-3.000", "—"),
    ]


def test_asking_for_what_is_not_there_is_an_error(run, tmp_path):
    with pytest.raises(DataError, match="no query 'x'; there are: q, r, s"):
        show_query(run, BEST, "x")
    with pytest.raises(DataError, match="'r' is a query of a, b; give one of them as dataset"):
        show_query(run, BEST, "r")
    with pytest.raises(DataError, match="no query 'q'"):
        show_query(run, BEST, "q", dataset="b")
    for file in (tmp_path / "evaluations" / "scores").glob("*"):
        file.unlink()
    with pytest.raises(DataError, match="keeps no scores of step 4"):
        show_query(run, BEST, "q")


def test_without_stored_questions_the_rest_is_shown(run, tmp_path):
    for file in (tmp_path / "evaluations" / "queries").glob("*"):
        file.unlink()
    section = show_query(RunFolder(tmp_path), BEST, "q", dataset="a", most=1)
    assert section.title == "q: "
    assert math.isclose(float(section.rows[0][4]), 2.0)
