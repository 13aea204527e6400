"""Measures the cells of the committed table anew and names every ratio that fell: make bench-check."""

import argparse
import json
import sys

from bench import table
from bench.all import CELLS, run

ALLOWED = 0.15  # of the committed ratio


def fallen(before: list[dict], now: list[dict]) -> list[str]:
    """Return a sentence for each cell whose ratio of medians is more than 15 % below the committed one."""
    committed = {table._key(entry): entry["ratio"] for entry in before}
    return [
        f"{' '.join(table._key(entry))}: {entry['ratio']:.2f} x the peer's speed, the table has "
        f"{committed[table._key(entry)]:.2f}"
        for entry in now
        if table._key(entry) in committed and entry["ratio"] < (1 - ALLOWED) * committed[table._key(entry)]
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=["minilm", "modernbert"], default="minilm")
    options = parser.parse_args()
    before = table.load()
    if not before:
        raise SystemExit("bench/results.json holds nothing to compare with; run make bench first")
    now = []
    for cell in CELLS:
        print("python -m", *cell, flush=True)
        now.append(json.loads(run([*cell, "--model", options.model, "--dry"])))
    names = fallen(before, now)
    print("\n".join(names) or f"none of {len(now)} ratios fell by more than {ALLOWED:.0%}")
    sys.exit(bool(names))


if __name__ == "__main__":
    main()
