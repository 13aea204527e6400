"""What an evaluation leaves on disk is enough to compute its metrics again and to look into a query."""

import numpy as np
import pandas as pd
import pytest

from crossrank.evaluation.metrics import st_metrics
from crossrank.evaluation.reranking import RerankingTask
from crossrank.evaluation.store import EvaluationStore

TASK = RerankingTask(
    "set",
    {"q": "the question", "r": "another"},
    {"a": "A", "b": "B", "c": "C", "x": "X", "unused": "U"},
    {"q": ["a", "b", "c"], "r": ["c", "a"]},
    {"q": {"b": 1, "x": 1, "a": 0}, "r": {"c": 1}},
)
SCORES = {
    "the question": {"X": 0.1, "B": 0.2, "A": 0.9, "C": 0.4},
    "another": {"C": 0.3, "A": 0.7},
}


class Knows:
    """A scorer that says which pairs it cuts."""

    def __call__(self, pairs):
        return np.asarray([SCORES[question][text] for question, text in pairs], np.float32)

    def truncated(self, pairs):
        return np.asarray([text in "AX" for _, text in pairs])


def test_each_query_has_its_value_base_ranks_and_truncation(tmp_path):
    EvaluationStore(tmp_path).write("e", 40, TASK.evaluate(Knows()))
    rows = pd.read_parquet(tmp_path / "step=000040-e.parquet").set_index(["query_id", "metric"])
    q = rows.loc[("q", "mrr@10")]  # ranked A C B X; the first stage had A B C
    assert (q["value"], q["base_value"], q["ceiling"]) == (1 / 3, 1 / 2, 1)
    assert (q["first_rank"], q["base_rank"], q["truncated"]) == (3, 2, 2 / 4)
    assert (q["dataset"], q["evaluator"], q["step"]) == ("set", "e", 40)
    r = rows.loc[("r", "map")]
    assert (r["value"], r["base_value"], r["first_rank"], r["base_rank"], r["truncated"]) == (0.5, 1, 2, 1, 0.5)


def test_a_scorer_that_does_not_know_what_it_cuts_leaves_it_unknown():
    assert TASK.evaluate(Knows().__call__).rows["truncated"].isna().all()


def test_scores_give_the_metrics_again(tmp_path):
    evaluation = TASK.evaluate(Knows())
    EvaluationStore(tmp_path).write("e", 0, evaluation)
    scores = pd.read_parquet(tmp_path / "scores" / "step=000000-e.parquet")
    assert scores["document_id"].tolist() == ["b", "x", "a", "c", "c", "a"]
    assert scores["first_stage_rank"].tolist() == [2, 0, 1, 3, 1, 2]  # x was not found by it
    assert scores["relevant"].tolist() == [True, True, False, False, True, False]
    lengths = scores.groupby("query_id", sort=False).size()
    again = st_metrics(scores["relevant"], scores["score"].to_numpy(), lengths, 10)
    rows = evaluation.rows.pivot(index="query_id", columns="metric", values="value")
    assert again.ndcg == pytest.approx(rows["ndcg@10"].to_numpy())


def test_questions_and_texts_are_written_once(tmp_path):
    store = EvaluationStore(tmp_path)
    store.describe("e", [TASK])
    queries = pd.read_parquet(tmp_path / "queries" / "e.parquet").set_index("query_id")
    assert queries.loc["q", ["question", "positives", "candidates", "recall"]].tolist() == ["the question", 2, 3, 0.5]
    assert queries.loc["r", "recall"] == 1
    documents = pd.read_parquet(tmp_path / "documents" / "e.parquet")
    assert dict(zip(documents["document_id"], documents["text"], strict=True)) == {
        "a": "A",
        "b": "B",
        "c": "C",
        "x": "X",
    }
    before = (tmp_path / "queries" / "e.parquet").stat().st_mtime_ns
    store.describe("e", [TASK])
    assert (tmp_path / "queries" / "e.parquet").stat().st_mtime_ns == before
