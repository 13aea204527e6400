"""Which negatives? MiniLM on qa-mix with each miner and policy at equal steps: python -m bench.negatives OUT.

Each cell is a training without evaluation, then one evaluation of its export on a dev set and three collections, both
by the programs. What is finished is not run again. The table holds each mean with its interval, and its difference from
the first cell on the same queries.
"""

import argparse
import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd

from bench.inputs import SHARED
from crossrank.evaluation.significance import stratified_interval

ROOT = Path(__file__).parents[1]
POLICIES = ("recipe", "hardest", "margin", "stratified", "spread", "random")
CELLS = [(miner, policy) for policy in POLICIES for miner in ("minilm", "bm25")]
COLLECTIONS = ("nano-msmarco-dl19", "nano-nfcorpus", "nano-nq")
METRIC = "ndcg@10"
PAIRS = 12_000  # of qa-mix, whose order is random
DEPTH = 50  # of the collections' BM25 lists


def run(out: Path, miner: str, policy: str, steps: int, seed: int, dev: Path) -> pd.DataFrame:
    """Train and evaluate a cell unless that is done; return its rows, one a query and dataset."""
    folder = out / f"{miner}-{policy}-{seed}"
    environment = {**os.environ, "CROSSRANK_DATA": str(SHARED), "CROSSRANK_CACHE": str(out / "cache")}
    programs = {
        "train": [
            "experiment=qa_mix", f"miner={miner}", f"policy={policy}", f"seed={seed}", f"data.max_steps={steps}",
            f"source.limit={PAIRS}",
            "~callbacks.evaluation", f"hydra.run.dir={folder}",
        ],
        "evaluate": [
            f"reranker={folder / 'export'}", "evaluators=[held_out,collection]", "source=pairs",
            f"source.limit={PAIRS}",
            f"source.path={SHARED / 'qa-mix' / 'pairs.jsonl.gz'}", f"source.dev_path={dev}",
            "evaluators.held_out.depth=30", f"evaluators.collection.rerank_k={DEPTH}",
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
    files = sorted((folder / "evaluation" / "evaluations").glob("step=*.parquet"))
    rows = pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)
    return rows[rows["metric"] == METRIC].set_index(["dataset", "query_id"])[["value", "base_value"]].sort_index()


def first_dev_questions(count: int, out: Path) -> Path:
    """Write the first dev pairs, which are in random order."""
    file = out / f"dev-{count}.jsonl.gz"
    with gzip.open(SHARED / "qa-mix" / "dev_pairs.jsonl.gz", "rt", encoding="utf-8") as stream:
        lines = [next(stream) for _ in range(count)]
    with gzip.open(file, "wt", encoding="utf-8") as stream:
        stream.writelines(lines)
    return file


def strata(values: pd.Series) -> list:
    return [part.to_numpy() for _, part in values.groupby(level="dataset")]


def shown(values: pd.Series, sign: str = "") -> str:
    found = stratified_interval(strata(values))
    return f"{found.mean:{sign}.4f} [{found.low:{sign}.4f}, {found.high:{sign}.4f}]"


def table(found: dict[str, pd.DataFrame]) -> str:
    names = list(next(iter(found.values())).index.unique("dataset"))
    header = ["negatives", *names, "mean", "mean less the first stage's", "mean less the first row's"]
    first = next(iter(found.values()))
    base = {"first stage": pd.DataFrame({"value": first["base_value"], "base_value": first["base_value"]})}
    lines = []
    for name, rows in (found | base).items():
        of_sets = [shown(rows["value"].xs(dataset, level="dataset", drop_level=False)) for dataset in names]
        difference = "" if rows is first else shown(rows["value"] - first["value"], "+")
        gain = "" if name == "first stage" else shown(rows["value"] - rows["base_value"], "+")
        lines.append([name, *of_sets, shown(rows["value"]), gain, difference])
    return "\n".join(f"| {' | '.join(line)} |" for line in [header, ["---"] * len(header), *lines])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--seeds", type=int, nargs="+", default=[12])
    parser.add_argument("--dev", type=int, default=200, help="dev questions")
    parser.add_argument("--cells", nargs="+", help="miner-policy; all by default")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    dev = first_dev_questions(given.dev, given.out)
    found: dict[str, pd.DataFrame] = {}
    for miner, policy in CELLS:
        if given.cells and f"{miner}-{policy}" not in given.cells:
            continue
        seeds = [run(given.out.absolute(), miner, policy, given.steps, seed, dev.absolute()) for seed in given.seeds]
        found[f"{miner}, {policy}"] = sum(seeds[1:], seeds[0]) / len(seeds)
        print(
            json.dumps(
                {
                    "cell": f"{miner}-{policy}",
                    METRIC: found[f"{miner}, {policy}"]["value"].groupby(level="dataset").mean().mean(),
                }
            ),
            flush=True,
        )
    print(table(found))


if __name__ == "__main__":
    main()
