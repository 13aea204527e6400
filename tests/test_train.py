import gzip
import json
import math
import re
import shutil
import time

import pandas as pd
import pytest
from conftest import SHARED, composed, needs_shared_data, run_program
from sentence_transformers import CrossEncoder

from crossrank.analysis.rerun import compared
from crossrank.analysis.runs import RunFolder
from crossrank.analysis.sweeps import SweepFolder
from crossrank.training.study import open_study


def test_a_run_leaves_everything_a_person_looks_for(smoke_run):
    names = {path.name for path in smoke_run.folder.iterdir()}
    assert {"config.yaml", "provenance.json", "metrics.jsonl", "evaluations", "checkpoints", "export", "report.md",
            "result.json", "train.log"} <= names  # fmt: skip
    steps = RunFolder(smoke_run.folder).evaluations["step"].unique()
    assert list(steps) == [0, 3, 6]  # before the first step, every 3, after the last


def test_a_run_ends_with_a_table_and_the_command_to_use_the_model(smoke_run):
    last = smoke_run.output.splitlines()[-6:]
    assert "first stage" in smoke_run.output
    assert "95 % interval" in smoke_run.output
    assert "protocol st: as sentence-transformers" in smoke_run.output
    assert f"python -m src.rerank reranker={smoke_run.folder / 'export'}" in last[-1]
    assert "Traceback" not in smoke_run.output


def test_no_bar_and_no_repeated_line_in_a_file(smoke_run):
    lines = [line[9:] for line in smoke_run.output.splitlines() if line[2:3] == ":"]
    assert "\r" not in smoke_run.output
    assert len(lines) == len(set(lines))
    assert any("step 6 of 6: loss" in line and "pairs/s" in line and "tokens/s" in line for line in lines)


def test_the_report_holds_the_same_numbers_as_the_evaluations(smoke_run):
    run = RunFolder(smoke_run.folder)
    best = run.evaluations[
        (run.evaluations["step"] == run.result["best_step"]) & (run.evaluations["metric"] == "ndcg@10")
    ]
    assert f"{best['value'].mean():.4f}" in (smoke_run.folder / "report.md").read_text()
    assert best["value"].mean() == pytest.approx(run.result["best_value"])


def test_the_report_names_both_protocols_and_says_how_far_and_where(smoke_run):
    page = (smoke_run.folder / "report.md").read_text()
    for part in ("Protocol st: ", "Protocol trec: ", "## First stage", "## Calibration", "## Where it fails: ndcg@10"):
        assert part in page
    run = RunFolder(smoke_run.folder)
    assert len(run.queries) == 20
    assert set(run.scores(3)["document_id"]) <= set(run.documents["document_id"])


def test_the_export_holds_what_makes_probabilities_of_its_scores(smoke_run):
    """Fitted on what the best step scored; the shift is ln(pos_weight), 5 in the recipe."""
    from crossrank.evaluation.calibration import Calibration

    content = json.loads((smoke_run.folder / "export" / "calibration.json").read_text())
    assert content["fitted_on"] == "held_out"
    assert Calibration.from_dict(content["calibration"]).shift == pytest.approx(math.log(5))


def test_the_exported_model_scores_as_the_best_step_did(smoke_run):
    """The evaluation's own rows, made again by sentence-transformers from the exported folder."""
    from sentence_transformers.cross_encoder.evaluation import CrossEncoderRerankingEvaluator

    from crossrank.config import build_training_run

    cfg = composed("experiment=smoke", f"cache_dir={smoke_run.cache}", "run_dir=nowhere")
    evaluator = build_training_run(cfg).evaluation.evaluators["held_out"]
    (task,) = evaluator.tasks
    samples = [
        {
            "query": task.queries[q],
            "positive": [task.documents[d] for d in task.qrels[q]],
            "documents": [task.documents[d] for d in task.candidates[q]],
        }
        for q in task.queries
    ]
    peer = CrossEncoderRerankingEvaluator(samples, always_rerank_positives=False, write_csv=False)
    metrics = peer(CrossEncoder(str(smoke_run.folder / "export"), device="cpu"))
    run = RunFolder(smoke_run.folder)
    best = run.evaluations[run.evaluations["step"] == run.result["best_step"]]
    ours = best.groupby("metric")[["value", "base_value"]].mean()
    for metric in ("map", "mrr@10", "ndcg@10"):
        assert ours.loc[metric, "value"] == pytest.approx(metrics[metric], abs=1e-6)
        assert ours.loc[metric, "base_value"] == pytest.approx(metrics[f"base_{metric}"], abs=1e-9)


@pytest.mark.thorough  # a run that is done again, below, says the same of what both recorded
def test_the_same_seed_gives_the_same_run_bit_for_bit(smoke_run, tmp_path):
    done = run_program(
        "src.train", "experiment=smoke", f"hydra.run.dir={tmp_path}", f"cache_dir={smoke_run.cache}", "data.workers=2"
    )
    assert done.returncode == 0, done.stderr
    weights = [(folder / "export" / "model.safetensors").read_bytes() for folder in (smoke_run.folder, tmp_path)]
    assert weights[0] == weights[1]


def test_a_sweep_goes_on_after_a_failure_says_what_failed_and_does_nothing_twice(tmp_path, cache_dir):
    words = [
        "src.train", "-m", "experiment=smoke", "optimizer.lr=-1,1e-5", "data.max_steps=1", "~callbacks.evaluation",
        f"hydra.sweep.dir={tmp_path}", f"cache_dir={cache_dir}",
    ]  # fmt: skip
    done = run_program(*words)
    assert done.returncode == 1
    told = json.loads(done.stdout.splitlines()[-1])
    states = {job["optimizer.lr"]: job["state"] for job in told["jobs"]}
    assert states == {-1: "failed", 1e-5: "finished"}
    assert list(told["failed"].values()) == ["1 problem in the config: - optimizer: Invalid learning rate: -1"]
    assert "Traceback" not in done.stderr
    written = {file: file.stat().st_mtime_ns for file in tmp_path.glob("*/result.json")}
    again = run_program(*words)
    assert again.returncode == 1
    assert "was done before" in again.stderr
    assert "waits for retry_failed=true" in again.stderr
    assert {file: file.stat().st_mtime_ns for file in tmp_path.glob("*/result.json")} == written
    assert sorted(pd.read_csv(tmp_path / "jobs.csv")["state"]) == ["failed", "finished"]
    assert "Invalid learning rate" in (tmp_path / "report.html").read_text()


@pytest.mark.thorough  # test_crossrank_sweeps.py searches with a launcher that stands in for the jobs
@pytest.mark.parametrize("at_once", [1, 2])
def test_a_search_runs_its_jobs_and_reads_back_what_they_reached(at_once, tmp_path, cache_dir):
    """Two side by side too, of which W&B has a run each."""
    parallel = ["hydra/launcher=parallel", f"hydra.sweeper.at_once={at_once}"] if at_once > 1 else []
    done = run_program(
        "src.train", "-m", "experiment=smoke", "sweep=search", *parallel, f"hydra.sweeper.trials={at_once}",
        "trainer.threads=1", "logger=wandb", "data.max_steps=1", "evaluators.held_out.depth=2",
        f"hydra.sweep.dir={tmp_path}", f"cache_dir={cache_dir}", alone=at_once > 1,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    sweep = SweepFolder(tmp_path)
    assert set(sweep.jobs["state"]) == {"finished"}
    assert sweep.choices == ["optimizer.lr", "schedule.warmup_ratio"] * (at_once > 1)
    study = open_study(tmp_path, "sqlite")
    assert sorted(trial.value for trial in study.trials) == sorted(sweep.jobs["value"])
    assert [list(trial.intermediate_values) for trial in study.trials] == [[1]] * at_once
    assert "optimizer.lr=" in sweep.override_line(sweep.best)
    tracked = [[file.name for file in (tmp_path / job).glob("wandb/offline-run-*/run-*.wandb")] for job in sweep.runs]
    assert [len(names) for names in tracked] == [1] * at_once
    assert len({name for (name,) in tracked}) == at_once


def test_a_run_that_is_done_again_is_the_same_run(smoke_run, tmp_path):
    """And on this machine another number is not: the word of a changed record is not taken."""
    first = tmp_path / "first"
    shutil.copytree(smoke_run.folder, first)
    words = ["src.train", f"rerun={first}", f"cache_dir={smoke_run.cache}"]
    done = run_program(*words, f"hydra.run.dir={tmp_path / 'again'}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"the same as {first}: " in done.stderr
    assert "bit for bit" in done.stderr
    record = (first / "metrics.jsonl").read_text()
    (first / "metrics.jsonl").write_text(re.sub(r'"train/loss": [0-9]', '"train/loss": 7', record, count=1))
    found = compared(first, tmp_path / "again")
    assert len(found.differences) == 1
    assert found.differences[0].startswith("step 1, train/loss was 7.")


def test_a_rerun_takes_no_other_settings(smoke_run, tmp_path):
    done = run_program("src.train", f"rerun={smoke_run.folder}", "seed=13", f"hydra.run.dir={tmp_path / 'again'}")
    assert done.returncode == 2
    assert "takes that run's own config; leave out seed=13" in done.stderr


@pytest.mark.thorough
def test_in_a_sweep_over_several_devices_each_job_starts_its_own_processes(tmp_path, cache_dir):
    """And none of them the sweep again: one folder a job, and one line a step."""
    done = run_program(
        "src.train", "-m", "experiment=smoke", "optimizer.lr=-1,1e-3", "data.max_steps=3", "trainer=ddp",
        "trainer.accelerator=cpu", "~callbacks.evaluation", "callbacks.throughput.every_n_steps=1",
        f"hydra.sweep.dir={tmp_path / 'a sweep'}", f"hydra.run.dir={tmp_path / 'no sweep'}", f"cache_dir={cache_dir}",
        alone=True,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr  # of the job that the gate refuses
    assert [path.name for path in tmp_path.iterdir()] == ["a sweep"]
    jobs = {(path / "metrics.jsonl").exists(): path for path in (tmp_path / "a sweep").iterdir() if path.is_dir()}
    assert set(jobs) == {False, True}
    run = jobs[True]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "train/loss" in line] == [1, 2, 3]
    config = (run / "config.yaml").read_text()
    assert "devices: 2" in config
    assert "lr: 0.001" in config
    assert CrossEncoder(str(run / "export"), device="cpu").predict([("a question", "an answer")]).shape == (1,)


def test_without_a_hub_the_mission_stops_at_once_and_names_both_remedies(tmp_path):
    started = time.monotonic()
    done = run_program("src.train", "experiment=gooaq_bce", f"hydra.run.dir={tmp_path}")
    assert time.monotonic() - started < 20
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    for wanted in ("sentence-transformers/gooaq", "static-retrieval-mrl-en-v1", "answerdotai/ModernBERT-base",
                   "sentence-transformers/NanoBEIR-en", "source=pairs", "experiment=quickstart"):  # fmt: skip
        assert wanted in done.stderr


def test_a_bad_config_is_refused_with_every_problem_and_no_traceback(tmp_path):
    done = run_program(
        "src.train", "experiment=smoke", "+optimizer.lrr=1", "policy.negatives=0", f"hydra.run.dir={tmp_path}"
    )
    assert done.returncode == 2
    assert "optimizer.lrr: no such key; did you mean 'lr'?" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("arguments", "expected"), [
    (["--help"], "experiment=quickstart"),
    (["experiment=gooaq_bce", "--cfg", "job"], "pos_weight: 5"),
    (["experiment=gooaq_bce", "run_dir=x", "--cfg", "job", "--resolve"], "pos_weight: 5"),
    (["--info", "searchpath"], "conf"),
])  # fmt: skip
def test_hydras_own_options_work(arguments, expected, tmp_path):
    done = run_program("src.train", *arguments)
    assert done.returncode == 0, done.stderr
    if expected != "pos_weight: 5" or "--resolve" in arguments:
        assert expected in done.stdout


def _copy(source, target, keep=lambda number, row: True):
    """Copy the rows of a jsonl.gz that are to be kept; return them."""
    with gzip.open(source, "rt") as reader:
        rows = [row for number, row in enumerate(map(json.loads, reader)) if keep(number, row)]
    with gzip.open(target, "wt") as writer:
        writer.writelines(json.dumps(row) + "\n" for row in rows)
    return rows


def _small_collection(name, folder):
    """Copy a shared collection with 3 of its queries."""
    folder.mkdir()
    shutil.copy(SHARED / name / "corpus.jsonl.gz", folder)
    kept = {
        q["_id"] for q in _copy(SHARED / name / "queries.jsonl.gz", folder / "queries.jsonl.gz", lambda n, _: n < 3)
    }
    for stem in ("qrels", "bm25"):
        file = f"{stem}.jsonl.gz"
        _copy(SHARED / name / file, folder / file, lambda _, row: row["query-id"] in kept)
    return str(folder)


@needs_shared_data
def test_the_mission_runs_on_local_files(tmp_path, cache_dir):
    """experiment=gooaq_bce with local pairs, local collections and a small ModernBERT with the real tokenizer."""
    _copy(SHARED / "qa-mix" / "pairs.jsonl.gz", tmp_path / "pairs.jsonl.gz", lambda n, _: n < 300)
    _copy(SHARED / "qa-mix" / "dev_pairs.jsonl.gz", tmp_path / "dev.jsonl.gz", lambda n, _: n < 20)
    folders = [_small_collection(name, tmp_path / name) for name in ("nano-msmarco-dl19", "nano-nq")]
    run = tmp_path / "run"
    done = run_program(
        "src.train",
        "experiment=gooaq_bce",
        "source=pairs",
        f"source.path={tmp_path}/pairs.jsonl.gz",
        f"source.dev_path={tmp_path}/dev.jsonl.gz",
        "miner=bm25",
        "model=tiny",
        f"model.tokenizer={SHARED}/modernbert-base",
        "model.layers=4",
        "evaluators=[gooaq_dev,collection]",
        f"evaluators.collection.paths=[{','.join(folders)}]",
        "evaluators.collection.rerank_k=10",
        "data.max_steps=4",
        "data.workers=2",
        "callbacks.evaluation.every_n_steps=2",
        "callbacks.throughput.every_n_steps=2",
        f"hydra.run.dir={run}",
        f"cache_dir={cache_dir}",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    evaluations = RunFolder(run).evaluations
    assert set(evaluations["dataset"]) == {"gooaq-dev", "nano-msmarco-dl19", "nano-nq"}
    assert set(evaluations["step"]) == {0, 2, 4}
    counts = evaluations[evaluations["step"] == 4].groupby("dataset")["query_id"].nunique()
    assert counts.to_dict() == {"gooaq-dev": 20, "nano-msmarco-dl19": 3, "nano-nq": 3}
    assert CrossEncoder(str(run / "export"), device="cpu").predict([("a question", "an answer")]).shape == (1,)
