"""Trains and evaluates MiniLM on qa-mix with some settings changed: what the tables on quality are made of."""

import gzip
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd

from bench.inputs import SHARED

ROOT = Path(__file__).parents[1]
COLLECTIONS = ("nano-msmarco-dl19", "nano-nfcorpus", "nano-nq")
METRIC = "ndcg@10"
PAIRS = 12_000  # of qa-mix, whose order is random
DEPTH, DEV_DEPTH = 50, 30  # of the collections' BM25 lists, of the dev questions'


def first_dev_questions(count: int, out: Path) -> Path:
    """Write the first dev pairs, which are in random order."""
    file = out / f"dev-{count}.jsonl.gz"
    with gzip.open(SHARED / "qa-mix" / "dev_pairs.jsonl.gz", "rt", encoding="utf-8") as stream:
        lines = [next(stream) for _ in range(count)]
    with gzip.open(file, "wt", encoding="utf-8") as stream:
        stream.writelines(lines)
    return file


def trained(out: Path, name: str, changes: list[str], dev: Path) -> Path:
    """Train with some words of the command line more and evaluate the export; return the folder of the evaluation.

    Both are done by the programs, and not again where they have finished.
    """
    folder = out / name
    environment = {**os.environ, "CROSSRANK_DATA": str(SHARED), "CROSSRANK_CACHE": str(out / "cache")}
    programs = {
        "train": [
            "experiment=qa_mix", f"source.limit={PAIRS}", "~callbacks.evaluation", f"hydra.run.dir={folder}",
            "resume=auto" if (folder / "config.yaml").is_file() else "resume=null", *changes,
        ],
        "evaluate": [
            f"reranker={folder / 'export'}", "evaluators=[held_out,collection]", "source=pairs",
            f"source.limit={PAIRS}",
            f"source.path={SHARED / 'qa-mix' / 'pairs.jsonl.gz'}", f"source.dev_path={dev}",
            f"evaluators.held_out.depth={DEV_DEPTH}", f"evaluators.collection.rerank_k={DEPTH}",
            f"evaluators.collection.paths=[{','.join(str(SHARED / name) for name in COLLECTIONS)}]",
            f"hydra.run.dir={folder / 'evaluation'}", "precision=bf16",
        ],
    }  # fmt: skip
    for program, done in (("train", folder / "result.json"), ("evaluate", folder / "evaluation" / "result.json")):
        if not done.is_file():
            command = [sys.executable, "-m", f"src.{program}", *programs[program]]
            ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
            if ended.returncode:
                raise SystemExit(f"{' '.join(command)} failed:\n{ended.stdout[-2000:]}{ended.stderr[-2000:]}")
    return folder / "evaluation"


def rows_of(evaluation: Path) -> pd.DataFrame:
    """Return METRIC and the first stage's, one row a query and dataset."""
    files = sorted((evaluation / "evaluations").glob("step=*.parquet"))
    rows = pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)
    return rows[rows["metric"] == METRIC].set_index(["dataset", "query_id"])[["value", "base_value"]].sort_index()
