"""Folders of runs and of sweeps, written by the code that writes them in a training, with texts that mean harm."""

import json

import numpy as np
import pandas as pd

from crossrank.evaluation import Evaluation
from crossrank.evaluation.reranking import RerankingTask
from crossrank.evaluation.store import EvaluationStore
from crossrank.training.tracking import JsonlLogger

HOSTILE = (
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(2)>",
    "\"quotes\" & 'apostrophes' &lt;entities&gt;",
    "{{ 7*7 }} {% raw %}",
    "line\u2028and\u2029paragraph separators",
    "עברית مرحبا",
    "<b>bold</b> $x^2$ %{x}",
)
QUERIES, DEPTH = 14, 8


def write_run(folder, datasets=("one", "two"), steps=(0, 4, 8), seed=0, strength=1.0, finished=True, result=()):
    """Write a run that evaluated `datasets` at `steps`, the scores of relevant documents `strength` above others'."""
    folder.mkdir(parents=True)
    draws = np.random.default_rng(seed)
    tasks = [_task(name, number) for number, name in enumerate(datasets)]
    logger, store = JsonlLogger(folder), EvaluationStore(folder / "evaluations")
    best = (-1.0, 0)
    for step in steps:
        parts = [task.evaluate(_scorer(draws, strength * (step > 0))) for task in tasks]
        whole = Evaluation(pd.concat([part.rows for part in parts]), pd.concat([part.scores for part in parts]))
        store.write("dev", step, whole)
        found = whole.metrics("dev")
        logger.log_metrics(found, step)
        best = max(best, (found["eval/dev/mean/ndcg@10"], step)) if step else best
        train = {"train/loss": 1 / (step + 1), "train/lr": 1e-4, "train/tokens_per_second": 100.0 + step}
        logger.log_metrics(train | {"health/pair_accuracy": 0.75, "train/evaluation_share": step / 10}, step)
    store.describe("dev", tasks)
    config = {"name": "made", "run_dir": str(folder), "cache_dir": str(folder.parent), "seed": seed}
    (folder / "config.yaml").write_text(json.dumps(config | {"monitor": "eval/dev/mean/ndcg@10"}))
    if finished:
        facts = {"name": "made", "best_step": best[1], "best_value": best[0], "monitor": "eval/dev/mean/ndcg@10"}
        (folder / "result.json").write_text(json.dumps(facts | {"seconds": 90.0} | dict(result)))
        (folder / "export").mkdir()
        calibration = {"shift": 0.0, "temperature": 1.0, "bias": 0.0}
        content = {"calibration": calibration, "method": "platt", "fitted_on": "dev"}
        (folder / "export" / "calibration.json").write_text(json.dumps(content))
    return folder


def write_bare_run(folder):
    """Write a run that did a step, and recorded nothing of what it is or how good."""
    folder.mkdir(parents=True)
    JsonlLogger(folder).log_metrics({"health/pair_accuracy": 0.5}, 1)
    return folder


def _scorer(draws, strength):
    return lambda pairs: np.array([draws.normal() + strength * ("relevant" in d) for _, d in pairs], np.float32)


def _task(name, number):
    texts = {f"d{i}": f"text {i} {HOSTILE[i % len(HOSTILE)]}" for i in range(QUERIES * DEPTH)}
    queries = {f"q{i}": f"question {i} {HOSTILE[i % len(HOSTILE)]}" for i in range(QUERIES)}
    candidates = {f"q{i}": [f"d{i * DEPTH + j}" for j in range(DEPTH)] for i in range(QUERIES)}
    qrels = {q: {ids[(i + number) % 4]: 1} for i, (q, ids) in enumerate(candidates.items())}
    for found in qrels.values():
        texts |= {d: f"relevant {texts[d]}" for d in found}
    return RerankingTask(name, queries, texts, candidates, qrels)


def write_job(sweep, name, choices, finished=True, failure=None, **how):
    """Write a job of a sweep, whose config has `choices` by keys with dots."""
    folder = sweep / name
    if failure is None:
        write_run(folder, finished=finished, seed=int(choices.get("seed", 0)), **how)
    else:
        folder.mkdir(parents=True)
        (folder / "failure.json").write_text(json.dumps({"error": failure}))
    config = {"run_dir": str(folder), "cache_dir": str(sweep.parent)}
    for key, value in choices.items():
        place, last = config, key.split(".")[-1]
        for part in key.split(".")[:-1]:
            place = place.setdefault(part, {})
        place[last] = value
    (folder / "config.yaml").write_text(json.dumps(config))
    words = ["experiment=smoke", *(f"{key}={value}" for key, value in choices.items())]
    (folder / "job.json").write_text(json.dumps({"asked": 0.0}))
    (folder / "origin.json").write_text(json.dumps({"overrides": words}))


def write_sweep(folder):
    """Write a sweep of two rates and two seeds, a failed job and one that has not finished."""
    for number, rate in enumerate((0.001, 0.1)):
        for seed in (1, 2):
            choices = {"optimizer.lr": rate, "seed": seed, "policy.kind": HOSTILE[number]}
            write_job(folder, f"job{number}{seed}", choices, strength=1.0 + 2 * number)
    write_job(folder, "failed", {"optimizer.lr": 9.0, "seed": 1, "policy.kind": "k"}, failure=f"nan {HOSTILE[0]}")
    write_job(folder, "open", {"optimizer.lr": 0.01, "seed": 1, "policy.kind": "k"}, finished=False)
    return folder
