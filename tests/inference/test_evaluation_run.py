"""What an evaluation leaves behind, read back, and what it refuses before it computes anything."""

import json
import logging

import numpy as np
import pandas as pd
import pytest
from conftest import MINILM

from crossrank.errors import AssetError, DataError, ModelError
from crossrank.evaluation.formats import read_ranking
from crossrank.evaluation.lists import RerankingLists
from crossrank.evaluation.metrics import trec_metrics
from crossrank.evaluation.reranking import OverTasks, RerankingTask
from crossrank.inference import evaluation_run
from crossrank.inference.budget_study import BudgetGrid
from crossrank.inference.evaluation_run import EvaluationRun, execute, report, write_trec_run
from crossrank.inference.padded import load_scorer
from crossrank.models.backbones import RandomInit
from crossrank.models.export import export

SENTENCE = "how do you write a file of rivers and mountains in python without losing the last line again"
WORDS = SENTENCE.split()


class Given(OverTasks):
    """An evaluator of tasks that are there already."""

    at_k = 10
    tasks = ()

    def __init__(self, *tasks, protocol="st"):
        self.tasks, self.protocol = tasks, protocol

    @property
    def datasets(self):
        return [task.name for task in self.tasks]

    def assets(self):
        return ()


def task(name, seed, protocol="st", prefix="", **options):
    """Graded; a relevant document that was missed, two candidates with one text, a query with nothing to find."""
    draws = np.random.default_rng(seed)
    texts = {f"{prefix}d{i:02}": " ".join(draws.choice(WORDS, int(n))) for i, n in enumerate(draws.integers(2, 60, 30))}
    texts[f"{prefix}twin"] = texts[f"{prefix}d03"]
    ids = sorted(texts)
    queries = {f"q{i}": " ".join(draws.choice(WORDS, 4)) for i in range(4)}
    candidates = {q: list(draws.choice(ids[:20], 8, replace=False)) for q in queries}
    candidates["q0"][:2] = [f"{prefix}d03", f"{prefix}twin"]
    qrels = {q: {found[5]: 2, found[2]: 1, ids[25]: 1} for q, found in candidates.items()}
    qrels["q3"] = {ids[25]: 1}
    return RerankingTask(name, queries, texts, candidates, qrels, protocol=protocol, **options)


@pytest.fixture(scope="module")
def model(tmp_path_factory, encoder):
    return export(
        RandomInit(MINILM, hidden_size=32).build(1), encoder, tmp_path_factory.mktemp("runs") / "a" / "export"
    )


def run(model, folder, **options):
    defaults = {
        "evaluators": {"e": Given(task("one", 1), task("two", 2))}, "protocol": "st", "main_metric": "ndcg@10",
    }  # fmt: skip
    return EvaluationRun(str(model), run_dir=folder / "out", **defaults | options)


@pytest.fixture(scope="module")
def finished(model, tmp_path_factory):
    grid = BudgetGrid([2, 4], [32], latency_queries=2)
    one = run(model.parent, tmp_path_factory.mktemp("finished"), grid=grid, tokens_per_batch=300)
    return one, execute(one)


def test_the_numbers_are_those_of_the_evaluator(model, finished):
    one, findings = finished
    expected = one.evaluators["e"](load_scorer(str(model), tokens_per_batch=300))
    pd.testing.assert_frame_equal(findings.rows.drop(columns="evaluator"), expected.rows)
    stored = pd.read_parquet(one.run_dir / "evaluations" / "step=000000-e.parquet")
    pd.testing.assert_frame_equal(stored.drop(columns=["evaluator", "step"]), expected.rows, check_dtype=False)
    for kind in ("scores/step=000000-e", "queries/e", "documents/e"):
        assert (one.run_dir / "evaluations" / f"{kind}.parquet").is_file()
    assert findings.facts["value"] == {"e": expected.means().loc[("mean", "ndcg@10"), "value"]}


def test_of_a_runs_folder_the_export_is_taken(model, finished, tmp_path):
    one, findings = finished
    assert one.reranker == str(model.parent)
    assert one.model == findings.facts["model"] == str(model)
    assert run(model, tmp_path).model == str(model)
    assert run(MINILM, tmp_path).model == MINILM


def test_result_json_says_what_it_was_and_how_fast(finished):
    one, findings = finished
    facts = json.loads((one.run_dir / "result.json").read_text())
    assert facts == findings.facts
    assert facts["evaluators"] == ["e"]
    assert (facts["protocol"], facts["main_metric"], facts["path"], facts["precision"]) == (
        "st", "ndcg@10", "packed", "fp32",
    )  # fmt: skip
    assert (facts["max_length"], facts["hardware"].split(",")[0]) == (64, "CPU")
    assert facts["pairs"] == sum(len(task.pairs) for task in one.evaluators["e"].tasks)
    assert facts["pairs_per_second"] > 0


@pytest.mark.parametrize("protocol", ["st", "trec"])
def test_a_trec_run_has_the_stored_trec_metrics(protocol, model, tmp_path):
    """Also of candidates whose text was scored under the id of a relevant document."""
    given = task("one", 1, protocol)
    found = given.evaluate(load_scorer(str(model)))
    write_trec_run(given, found.scores, tmp_path / "one.trec")
    ranking = read_ranking(tmp_path / "one.trec", given.queries, given.documents)
    scored = list(given.queries) if protocol == "st" else ["q0", "q1", "q2"]  # st hands over the missed one of q3
    assert {q: sorted(ids) for q, ids in ranking.items()} == {q: sorted(given.candidates[q]) for q in scored}
    lines = [line.split() for line in (tmp_path / "one.trec").read_text().splitlines()]
    assert [(q, d) for q, _, d, *_ in lines] == [(q, d) for q, ids in ranking.items() for d in ids]
    assert [int(rank) for q, _, _, rank, *_ in lines if q == "q1"] == list(range(1, 9))
    assert {(line[1], line[5]) for line in lines} == {("Q0", "crossrank")}
    scores = {q: {d: float(score) for query, _, d, _, score, _ in lines if query == q} for q in given.queries}
    assert scores["q0"]["d03"] == scores["q0"]["twin"]
    assert ranking["q0"].index("twin") + 1 == ranking["q0"].index("d03")
    metrics = trec_metrics(given.qrels, scores, 10)
    rows = found.rows.pivot(index="query_id", columns="metric", values="value").loc[list(given.queries)]
    for name, values in zip(("trec_map", "trec_mrr@10", "trec_ndcg@10"), metrics[:3], strict=True):
        np.testing.assert_array_equal(rows[name], values)


def test_an_id_with_blanks_is_no_part_of_a_trec_run(model, tmp_path, caplog):
    given = task("one", 1, prefix="a b ")
    write_trec_run(given, given.evaluate(load_scorer(str(model))).scores, tmp_path / "one.trec")
    assert not (tmp_path / "one.trec").exists()
    (warning,) = [r.message for r in caplog.records if r.levelno == logging.WARNING]
    assert "'a b d" in warning


def test_two_evaluators_of_one_dataset_keep_their_runs_apart(model, tmp_path):
    one = run(model, tmp_path, evaluators={"e": Given(task("same/one", 1)), "f": Given(task("same/one", 2))})
    findings = execute(one)
    assert sorted(file.name for file in (one.run_dir / "runs").iterdir()) == ["e-same_one.trec", "f-same_one.trec"]
    assert list(findings.rows["evaluator"].unique()) == list(findings.facts["value"]) == ["e", "f"]
    assert findings.budget is None


def test_the_budget_is_stored_and_reported(finished):
    one, findings = finished
    pd.testing.assert_frame_equal(pd.read_parquet(one.run_dir / "budget.parquet"), findings.budget, check_dtype=False)
    assert set(findings.budget["evaluator"]) == {"e"}
    assert sorted(set(zip(findings.budget["max_length"], findings.budget["depth"], strict=True))) == [
        (32, 0), (32, 2), (32, 4)
    ]  # fmt: skip
    text = report(one, findings, "| the table |")
    assert text.startswith(f"# {one.reranker}\n")
    for part in ("under the protocol st", "| the table |", "## Depth and budget", "| 32 |", "e, mean over datasets"):
        assert part in text
    assert "Depth and budget" not in report(run(one.model, one.run_dir), findings, "")


def test_nothing_is_loaded_where_lists_have_no_first_stage(model, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation_run, "load_scorer", lambda *_: pytest.fail("was loaded"))
    file = tmp_path / "lists.jsonl"
    file.write_text(json.dumps({"query": "a", "positive": ["b"], "negative": ["c", "d"]}) + "\n")
    one = run(model, tmp_path, evaluators={"lists": RerankingLists([str(file)])}, grid=BudgetGrid([5]))
    with pytest.raises(DataError, match=r"lists: its lists have no first stage.*budget=false"):
        execute(one)


def test_nothing_is_scored_with_a_length_that_the_model_cannot_take(model, tmp_path):
    one = run(model, tmp_path, grid=BudgetGrid([5], [32, 65]))
    with pytest.raises(ModelError, match="at most the model's max_length of 64 tokens, got 65"):
        execute(one)
    assert not one.run_dir.exists()


def test_a_model_that_is_not_there_is_named_before_anything_is_prepared(tmp_path):
    one = run("no-one/no-model", tmp_path, evaluators={"lists": RerankingLists(["nowhere.jsonl"])})
    with pytest.raises(AssetError, match="no-one/no-model"):
        execute(one)
