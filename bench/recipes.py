"""Does it help? MiniLM on qa-mix with other losses and negatives, equal compute: python -m bench.recipes OUT.

Every cell is trained on the same number of pairs, with each seed, and evaluated as `bench.negatives` does. The table
holds each mean, and its difference from plain BCE on the same queries: the interval counts queries and seeds, p is
Holm's.
"""

import argparse
import json
import math
from pathlib import Path

from bench.cells import METRIC, first_dev_questions, rows_of, trained
from crossrank.analysis.alignment import align
from crossrank.analysis.compare import Comparison, compare
from crossrank.analysis.systems import System, load_systems

ROWS = 6  # of a question: its answer and 5 negatives
PAIRS_PER_STEP = 60
BM25 = ["miner=bm25", "policy=margin"]
CELLS = {  # name: what is changed; the first is what the others are compared with
    "bce": [],
    "bce, bm25 margin": BM25,
    "lambda_loss": ["loss=lambda_loss"],
    "listnet": ["loss=listnet"],
    "multiple_negatives": ["loss=multiple_negatives"],
    "ranknet": ["loss=ranknet"],
    "bce_smooth": ["loss=bce_smooth"],
    "lambda_loss, bm25 margin": ["loss=lambda_loss", *BM25],
    "ranknet, bm25 margin": ["loss=ranknet", *BM25],
    "listnet, bm25 margin": ["loss=listnet", *BM25],
}


def settings(changes: list[str], seed: int, steps: int) -> list[str]:
    """Return the words of a cell: as many pairs a step whether single pairs are drawn or whole questions."""
    listwise = any(word.startswith("loss=") and "bce" not in word and "mse" not in word for word in changes)
    drawn = [f"data.questions_per_step={PAIRS_PER_STEP // ROWS}"] if listwise else []
    return [*changes, f"data.pairs_per_step={PAIRS_PER_STEP}", *drawn, f"seed={seed}", f"data.max_steps={steps}"]


def table(found: Comparison, names: list[str]) -> str:
    """Return the comparison as markdown, a row a cell."""
    means = found.systems[found.systems["overall"]].set_index("system")
    pairs = found.overall.set_index("system")
    lines = [["recipe", "mean", "trainings", "less the first row's", "queries and seeds", "seed's sd", "p (Holm)"]]
    lines.append(["---"] * len(lines[0]))
    for name in names:
        row = means.loc[name]
        cells = [name, f"{row['mean']:.4f} [{row['low']:.4f}, {row['high']:.4f}]", f"{row['trainings']:.0f}"]
        if name in pairs.index:
            pair = pairs.loc[name]
            both = "-" if math.isnan(pair["both_low"]) else f"[{pair['both_low']:+.4f}, {pair['both_high']:+.4f}]"
            spread = "-" if math.isnan(pair["seed_sd"]) else f"{pair['seed_sd']:.4f}"
            cells += [f"{pair['difference']:+.4f} [{pair['low']:+.4f}, {pair['high']:+.4f}]", both, spread,
                      f"{pair['p_holm']:.3f}"]  # fmt: skip
        lines.append([*cells, *[""] * (len(lines[0]) - len(cells))])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def systems(trainings: dict[str, list[Path]]) -> list[System]:
    """Return each cell with all its trainings, as src.compare reads them, and the first stage at the end."""
    words = [",".join(map(str, folders)) for folders in trainings.values()]
    return load_systems([*words, "first_stage"], [*trainings, "first stage, BM25"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=85)
    parser.add_argument("--seeds", type=int, nargs="+", default=[12, 13, 14])
    parser.add_argument("--dev", type=int, default=200, help="dev questions")
    parser.add_argument("--cells", nargs="+", default=list(CELLS), choices=list(CELLS))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    dev = first_dev_questions(given.dev, given.out).absolute()
    trainings: dict[str, list[Path]] = {}
    for seed in given.seeds:  # a whole table a seed, so that a part of the seeds is a table too
        for name in given.cells:
            folder = f"{name.replace(', ', '-').replace(' ', '-')}-{seed}"
            done = trained(given.out.absolute(), folder, settings(CELLS[name], seed, given.steps), dev)
            trainings.setdefault(name, []).append(done)
            value = rows_of(done)["value"].groupby(level="dataset").mean().mean()
            print(json.dumps({"cell": name, "seed": seed, METRIC: round(float(value), 4)}), flush=True)
    found = compare(align(systems(trainings), [METRIC]), pairs="baseline")
    print(table(found, [*trainings, "first stage, BM25"]))


if __name__ == "__main__":
    main()
