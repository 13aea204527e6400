"""Which negatives? MiniLM on qa-mix with each miner and policy at equal steps: python -m bench.negatives OUT.

Each cell is a training without evaluation, then one evaluation of its export on a dev set and three collections, both
by the programs. What is finished is not run again. The table holds each mean with its interval, and its difference from
the first cell on the same queries.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd

from bench.cells import METRIC, first_dev_questions, rows_of, trained
from crossrank.evaluation.significance import randomisation_test, seed_variance, stratified_interval

POLICIES = ("recipe", "hardest", "margin", "stratified", "spread", "random")
CELLS = [(miner, policy) for policy in POLICIES for miner in ("minilm", "bm25")]


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


def miners_apart(found: dict[str, pd.DataFrame]) -> str:
    """Return what BM25's candidates are worth against MiniLM's, query by query, over the policies that both have."""
    policies = [name.partition(", ")[2] for name in found if name.startswith("bm25, ")]
    both = [policy for policy in policies if f"minilm, {policy}" in found]
    if not both:
        return ""
    differences = [found[f"bm25, {policy}"]["value"] - found[f"minilm, {policy}"]["value"] for policy in both]
    mean = sum(differences[1:], differences[0]) / len(both)
    words = (
        f"bm25 less minilm, over {len(both)} policies: {shown(mean, '+')}, p = {randomisation_test(strata(mean)):.4f}"
    )
    if len(both) == 1:
        return words
    trained = [np.stack(parts) for parts in zip(*map(strata, differences), strict=True)]  # [policies, queries]
    seeds = seed_variance(trained)
    low, high = seeds.interval.low, seeds.interval.high
    return f"{words}; with the policies counted as trainings [{low:+.4f}, {high:+.4f}], sd of one {seeds.seed_sd:.4f}"


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
        seeds = []
        for seed in given.seeds:
            changes = [f"miner={miner}", f"policy={policy}", f"seed={seed}", f"data.max_steps={given.steps}"]
            seeds.append(rows_of(trained(given.out.absolute(), f"{miner}-{policy}-{seed}", changes, dev.absolute())))
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
    print(miners_apart(found))


if __name__ == "__main__":
    main()
