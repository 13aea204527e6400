"""Whole runs through `execute`; what a run leaves behind is tested through the program, in tests/test_train.py."""

import json
from dataclasses import replace

import pytest
import torch
from conftest import composed
from filelock import FileLock

from crossrank.config import build_training_run
from crossrank.data.readers import read_rows
from crossrank.errors import AssetError, ConfigError, DataError, ResumeError
from crossrank.run import execute

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*treespec, LeafSpec.*", "ignore:.*does not have many workers.*", "ignore:.*will be overridden.*"
)


@pytest.fixture
def build(tmp_path, cache_dir):
    def make(*overrides):
        words = ["experiment=smoke", f"run_dir={tmp_path / 'run'}", f"cache_dir={cache_dir}", *overrides]
        run = build_training_run(composed(*words))
        run.run_dir.mkdir(exist_ok=True)
        return run

    return make


def test_the_best_step_is_kept_reported_and_exported(build):
    from safetensors.torch import load_file

    run = build("optimizer.lr=3e-3", "callbacks.evaluation.every_n_steps=1", "data.max_steps=5")
    result = execute(run)
    values = {}
    for file in (run.run_dir / "evaluations").glob("*.parquet"):
        import pandas as pd

        rows = pd.read_parquet(file)
        values[int(rows["step"].iloc[0])] = rows.loc[rows["metric"] == "ndcg@10", "value"].mean()
    trained = {step: value for step, value in values.items() if step > 0}
    assert sorted(values) == [0, 1, 2, 3, 4, 5]
    assert result.best_step == max(sorted(trained), key=trained.get)
    ndcg = next(row for row in result.rows if row.metric == "ndcg@10")
    assert (ndcg.before.mean, ndcg.after.mean) == pytest.approx((values[0], values[result.best_step]))
    best = torch.load(run.run_dir / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    exported = load_file(result.export / "model.safetensors")
    assert all(torch.equal(best[f"model.classifier.{name}"], tensor) for name, tensor in exported.items())


AVERAGING = "callbacks=[health,evaluation,throughput,progress,checkpoint,provenance,ema]"


@pytest.mark.parametrize("better", [True, False])
def test_an_average_is_exported_and_reported_where_it_is_better(better, build, monkeypatch, caplog):
    """Which of the two is better on 20 questions is chance, so the test says what the comparison found."""
    from safetensors.torch import load_file

    import crossrank.callbacks.verdicts as verdicts
    from crossrank.analysis.runs import RunFolder

    compared = verdicts.paired

    def with_the_value(*args):
        found = compared(*args)
        return replace(found, value=found.against + (0.01 if better else -0.01))

    monkeypatch.setattr(verdicts, "paired", with_the_value)
    run = build(AVERAGING, "callbacks.ema.rule.decay=0.5", "data.max_steps=4", "callbacks.evaluation.every_n_steps=2")
    result = execute(run)
    facts = json.loads((run.run_dir / "result.json").read_text())
    state = max((run.run_dir / "checkpoints").glob("step=*.ckpt"))
    average = torch.load(state, weights_only=True)["callbacks"]["Averaging-Ema(decay=0.5)"]["weights"]
    best = torch.load(run.run_dir / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    expected = average if better else best
    for name, tensor in load_file(result.export / "model.safetensors").items():
        assert torch.equal(tensor, expected[f"model.classifier.{name}"])
    assert [a["exported"] for a in facts["averages"]] == [better]
    assert result.averaged == ("ema" if better else None)
    assert (result.best_step == facts["best_step"] == 5) == better
    assert result.words()[0].startswith("ema, as step 5" if better else "best step ")
    told = RunFolder(run.run_dir).evaluations
    told = told[(told["step"] == result.best_step) & (told["metric"] == "ndcg@10")]["value"].mean()
    ndcg = next(row for row in result.rows if row.metric == "ndcg@10")
    assert ndcg.after.mean == pytest.approx(told)
    assert facts["best_value"] == pytest.approx(told)
    report = (run.run_dir / "report.md").read_text()
    assert ("it stands for the average ema" in report) == better
    assert "## Averaged weights" in report
    assert ("the average is exported" in caplog.text) == better


def test_without_evaluation_the_last_weights_are_exported(build):
    result = execute(build("~callbacks.evaluation", "data.max_steps=2"))
    assert (result.best_step, result.rows) == (2, [])
    assert (result.export / "model.safetensors").is_file()


def test_under_trec_the_run_is_judged_by_trec_alone(build):
    result = execute(build("protocol=trec", "data.max_steps=3"))
    assert {row.metric for row in result.rows} == {"trec_map", "trec_mrr@10", "trec_ndcg@10"}
    assert "Protocol st" not in (result.run_dir / "report.md").read_text()


def test_a_run_whose_code_has_changed_does_not_go_on(build):
    run = build("data.max_steps=2")
    execute(run)
    file = run.run_dir / "provenance.json"
    facts = json.loads(file.read_text())
    facts["code"]["fingerprint"] = "0123456789abcdef"
    file.write_text(json.dumps(facts))
    before = (run.run_dir / "metrics.jsonl").read_text()
    with pytest.raises(ResumeError, match="its code is not what it was: crossrank's code was 0123456789abcdef and is"):
        execute(replace(run, resumed=True))
    assert (run.run_dir / "metrics.jsonl").read_text() == before
    execute(replace(run, resumed=True, resume_anyway=True))


def test_the_same_run_is_not_trained_twice_at_once(build):
    run = build("data.max_steps=1")
    with FileLock(run.run_dir / ".lock"), pytest.raises(ResumeError, match="is being trained by another process"):
        execute(run)
    execute(run)


def test_a_process_that_would_train_and_write_nothing_is_refused(build, monkeypatch):
    """As the second of `srun --ntasks=2 python -m src.train`, whose environment says that it is not the first."""
    run = build("data.max_steps=1")
    monkeypatch.setenv("SLURM_PROCID", "1")
    with pytest.raises(ConfigError, match=r"trainer\.devices: 1, and this is process 1 of several, says SLURM_PROCID"):
        execute(run)
    assert not list(run.run_dir.iterdir())
    monkeypatch.setenv("SLURM_PROCID", "one")
    with pytest.raises(ConfigError, match="environment variable SLURM_PROCID: counts processes from 0, got 'one'"):
        execute(run)


def test_a_graph_that_cannot_be_is_left_out_and_the_training_is_the_same(build, tmp_path, caplog):
    from safetensors.torch import load_file

    weights = []
    for overrides in ([], ["trainer.cuda_graph=true", "trainer.compile=true", "trainer.bucket_tokens=32"]):
        folder = f"run_dir={tmp_path / str(len(weights))}"
        result = execute(
            build("~callbacks.evaluation", "data.max_steps=4", "trainer.precision=32-true", folder, *overrides)
        )
        weights.append(load_file(result.export / "model.safetensors"))
    assert "CUDA graph: asked for and not used" in caplog.text
    assert "torch.compile: asked for and not used" in caplog.text
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, atol=1e-5, rtol=0)


def test_accumulated_steps_are_the_same_training(build, tmp_path):
    from safetensors.torch import load_file

    weights = []
    for name, accumulate in (("whole", 1), ("halves", 2)):
        run = build(f"run_dir={tmp_path / name}", f"trainer.accumulate_grad_batches={accumulate}", "data.max_steps=4")
        weights.append(load_file(execute(run).export / "model.safetensors"))
    for name, whole in weights[0].items():
        assert torch.allclose(whole, weights[1][name], atol=2e-5), name


def test_what_cannot_be_fetched_stops_the_run_before_anything_is_written(build):
    run = build("model.tokenizer=nobody/has-this")
    with pytest.raises(AssetError, match="nobody/has-this"):
        execute(run)
    assert not list(run.run_dir.iterdir())


def test_a_broken_source_stops_the_run_before_the_model_is_built(build, tmp_path):
    file = tmp_path / "pairs.jsonl"
    file.write_text('{"question": "q", "answer": ""}\n')
    run = build("~source.packages", "~source.dev_size", "~source.limit", "source=pairs", f"source.path={file}")
    with pytest.raises(DataError, match=r"pairs\.jsonl, row 1"):
        execute(run)


def lists(file, scores):
    rows = [
        {"query": f"what is number {i}", "docs": [f"the number {i + j}" for j in range(len(scores))], "scores": scores}
        for i in range(30)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ("~source.packages", "source=lists", f"source.path={file}", "miner=none", "data.max_steps=2")


def test_scores_are_trained_on_as_they_are_if_the_loss_can_take_them(build, tmp_path):
    overrides = lists(tmp_path / "lists.jsonl", [7.5, -2.0, 1.0])
    with pytest.raises(
        DataError, match=r"the labels run from -2 to 7.5 and WeightedBCE takes 0 to 1; source.rescale=s"
    ):
        execute(build(*overrides))
    result = execute(build(*overrides, "source.rescale=sigmoid", "loss.pos_weight=1"))
    assert result.best_step > 0
    assert {row.queries for row in result.rows} == {20}


def test_a_mixture_is_trained_on_and_what_is_asked_of_its_texts_is_answered(build, tmp_path):
    (tmp_path / "p.csv").write_text("question,answer\n" + "".join(f"q {i},a {i}\n" for i in range(30)))
    mixed = (
        "~source.packages", "~source.limit", "~source.dev_size", "source=mixture", "source.weights={a: 1, b: 1}",
        "+source@source.sources.a=pairs", f"source.sources.a.path={tmp_path / 'p.csv'}", "source.sources.a.dev_size=5",
        "+source@source.sources.b=pydocs", "source.sources.b.packages=[stdlib]", "source.sources.b.dev_size=5",
        "data.max_steps=2",
    )  # fmt: skip
    result = execute(build(*mixed))
    assert next(iter(read_rows(result.documents)))[1].keys() == {"question", "answer"}
    assert sum(1 for _ in read_rows(result.documents)) == 50
