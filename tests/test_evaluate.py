"""The program as a person calls it: an export on the questions of its training, any model on a folder."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import MINILM, composed, run_program
from omegaconf import OmegaConf
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from crossrank.config import build_evaluation
from crossrank.errors import ConfigError
from crossrank.hub import Asset, resolve
from crossrank.schema import EvaluateConfig

TEXTS = {
    "d1": "The moon moves the sea twice a day.", "d2": "Bread rises because yeast makes gas.",
    "d3": "Iron and water and air make rust.", "d4": "Rivers carry salt to the sea.",
}  # fmt: skip
COLLECTION = {
    "corpus": [{"_id": key, "text": text} for key, text in TEXTS.items()],
    "queries": [{"_id": "q1", "text": "why is the sea salty"}, {"_id": "q2", "text": "why does bread rise"}],
    "qrels": [{"query-id": "q1", "corpus-id": "d4"}, {"query-id": "q2", "corpus-id": "d2"}],
    "bm25": [{"query-id": q, "corpus-ids": ["d1", "d3", "d4", "d2"]} for q in ("q1", "q2")],
}
SMOKE = [
    "source=pydocs", "source.packages=[stdlib]", "source.dev_size=20", "source.limit=200", "miner=bm25",
    "evaluators=held_out", "evaluators.held_out.depth=20",
]  # fmt: skip


def collection(folder):
    folder.mkdir()
    for stem, rows in COLLECTION.items():
        (folder / f"{stem}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def distilbert(folder):
    tokenizer = AutoTokenizer.from_pretrained(str(resolve(Asset("model", MINILM))))
    shape = {"dim": 32, "n_layers": 1, "n_heads": 2, "hidden_dim": 32, "max_position_embeddings": 64}
    config = AutoConfig.for_model("distilbert", vocab_size=len(tokenizer), num_labels=1, **shape)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_an_export_has_the_values_of_its_runs_best_step(smoke_run, tmp_path):
    done = run_program(
        "src.evaluate", f"reranker={smoke_run.folder}", *SMOKE, f"cache_dir={smoke_run.cache}",
        f"hydra.run.dir={tmp_path / 'out'}",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    best = json.loads((smoke_run.folder / "result.json").read_text())["best_step"]
    expected, found = (
        pd.read_parquet(folder / "evaluations" / f"step={step:06d}-held_out.parquet").drop(columns="step")
        for folder, step in ((smoke_run.folder, best), (tmp_path / "out", 0))
    )
    pd.testing.assert_frame_equal(found, expected, atol=1e-9)
    value = expected.loc[expected["metric"] == "ndcg@10", "value"].mean()
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["value"]["held_out"] == pytest.approx(value)
    assert f"{value:.4f}" in done.stderr
    assert "protocol st" in done.stderr
    report = (tmp_path / "out" / "report.md").read_text()
    assert f"{value:.4f} [" in report
    assert "protocol st" in report
    assert OmegaConf.load(tmp_path / "out" / "config.yaml").reranker == str(smoke_run.folder)


def test_another_backbone_on_a_folder_with_its_budget(tmp_path):
    done = run_program(
        "src.evaluate", f"reranker={distilbert(tmp_path / 'model')}", "evaluators=collection", "protocol=trec",
        f"evaluators.collection.paths=[{collection(tmp_path / 'tiny')}]", f"hydra.run.dir={tmp_path / 'out'}",
        "budget=true", "depths=[2,4]", "lengths=[10,64]", "latency_queries=1",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "slower" in done.stderr + done.stdout
    assert "protocol trec" in done.stderr
    frame = pd.read_parquet(tmp_path / "out" / "budget.parquet")
    cells = frame.loc[frame["dataset"] == "tiny", ["max_length", "depth"]].to_numpy().tolist()
    assert cells == [[length, depth] for length in (10, 64) for depth in (0, 2, 4)]
    assert set(frame["metric"]) == {"trec_ndcg@10"}
    rows = pd.read_parquet(tmp_path / "out" / "evaluations" / "step=000000-collection.parquet")
    whole = frame[(frame["dataset"] == "tiny") & (frame["max_length"] == 64)].set_index("depth")["value"]
    metric = rows[rows["metric"] == "trec_ndcg@10"]
    np.testing.assert_allclose(whole.loc[[0, 4]], [metric["base_value"].mean(), metric["value"].mean()])
    assert (tmp_path / "out" / "budget.png").read_bytes()[:4] == b"\x89PNG"
    assert len((tmp_path / "out" / "runs" / "tiny.trec").read_text().splitlines()) == 8
    assert "Depth and budget" in (tmp_path / "out" / "report.md").read_text()


def test_an_unknown_model_is_one_sentence(tmp_path):
    done = run_program(
        "src.evaluate", "reranker=./nowhere/at-all", "evaluators=collection", f"hydra.run.dir={tmp_path / 'out'}",
        "evaluators.collection.paths=[nowhere]",
    )  # fmt: skip
    assert done.returncode == 2
    assert "error: no such folder: ./nowhere/at-all" in done.stderr
    assert "Traceback" not in done.stderr


def gated(*overrides):
    return build_evaluation(composed("run_dir=nowhere", *overrides, root="evaluate"), EvaluateConfig)


def test_the_config_builds_its_evaluators_and_its_group_switches_their_protocol():
    given, evaluators = gated("reranker=x", "evaluators=[nanobeir,gooaq_dev]", "protocol=trec")
    assert list(evaluators) == ["nanobeir", "gooaq_dev"]
    assert {evaluator.protocol for evaluator in evaluators.values()} == {given.protocol} == {"trec"}
    assert (given.main_metric, given.precision, given.budget, given.lengths) == ("trec_ndcg@10", "fp32", False, None)


@pytest.mark.parametrize(("overrides", "message"), [
    (["reranker=x", "depths=[5,0]"], "depths.1: Input should be greater than or equal to 1"),
    (["reranker=x", "depths=[]"], "depths: List should have at least 1 item"),
    (["reranker=x", "lengths=[64,4]"], "lengths.1: Input should be greater than or equal to 8"),
    (["reranker=x", "max_length=4"], "max_length: Input should be greater than or equal to 8"),
    (["reranker=x", "precision=fp16"], "precision: Input should be 'fp32' or 'bf16'"),
    (["reranker=x", "+evaluators.nanobeir.rerank=5"], "evaluators.nanobeir.rerank: no such key"),
    (["reranker=x", "evaluators.nanobeir.rerank_k=0"], "evaluators.nanobeir"),
    (["reranker=x", "evaluators.nanobeir.at_k=5"], "main_metric: evaluators.nanobeir has no 'ndcg@10' but map, mrr@5"),
    (["reranker=x", "evaluators=[]"], "evaluators"),
    (["reranker=x", "evaluators=gooaq_dev", "source.dev_size=0"], "source"),
    (["reranker=x", "+budgett=true"], "budgett: no such key; did you mean 'budget'?"),
    ([], "reranker: required and missing"),
])  # fmt: skip
def test_what_is_wrong_in_the_config_is_named_by_its_path(overrides, message):
    with pytest.raises(ConfigError) as error:
        gated(*overrides)
    assert any(problem.startswith(message) for problem in error.value.problems), str(error.value)
