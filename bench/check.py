"""Measures the cells of the committed table anew and names every ratio that fell: make bench-check."""

import argparse
import json
import math
import sys

from bench import table
from bench.all import CELLS, run

ALLOWED = 0.15  # of the committed ratio


def beside(before: list[dict], now: list[dict]) -> list[tuple[str, bool]]:
    """Return a sentence for each cell, and whether its ratio of medians is more than 15 % below the committed one."""
    committed = {table._key(entry): entry["ratio"] for entry in before}
    found = []
    for entry in now:
        key = table._key(entry)
        known = committed.get(key, math.nan)
        told = "the table has none" if math.isnan(known) else f"the table has {known:.2f}"
        sentence = f"{' '.join(key)}: {entry['ratio']:.2f} x the peer's speed, {told}"
        found.append((sentence, entry["ratio"] < (1 - ALLOWED) * known))
    return found


def fallen(before: list[dict], now: list[dict]) -> list[str]:
    """Return the sentences of the cells that fell."""
    return [sentence for sentence, fell in beside(before, now) if fell]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=["minilm", "modernbert"], default="minilm")
    options = parser.parse_args()
    before = table.load()
    if not before:
        raise SystemExit("bench/results.json holds nothing to compare with; run make bench first")
    now = []
    for cell in CELLS:
        now.append(json.loads(run([*cell, "--model", options.model, "--dry"])))
        print(beside(before, now[-1:])[0][0], flush=True)
    names = fallen(before, now)
    print("\n".join(names) or f"none of {len(now)} ratios fell by more than {ALLOWED:.0%}")
    sys.exit(bool(names))


if __name__ == "__main__":
    main()
