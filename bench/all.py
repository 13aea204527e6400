"""The MiniLM cells, one after the other; with --memory, each with the peak memory of either side alone: make bench."""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from bench import table

CELLS = [
    [program, "--precision", precision, *more]
    for precision in ("fp32", "bf16")
    for program, more in (
        ("bench.train", ["--batch", "16"]),
        ("bench.train", ["--batch", "16", "--text", "generated"]),
        ("bench.train", ["--batch", "64", "--steps", "22", "--warm-up", "2"]),
        ("bench.score", []),
        ("bench.evaluate", []),
    )
]
ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=["minilm", "modernbert"], default="minilm")
    parser.add_argument("--memory", action="store_true", help="run either side alone as well, for its peak memory")
    options = parser.parse_args()
    for cell in CELLS:
        command = [*cell, "--model", options.model]
        started = time.monotonic()
        measured = json.loads(run(command))
        print(f"{time.monotonic() - started:5.0f} s  python -m", *command, flush=True)
        if options.memory:
            less = {"bench.train": ["--steps", "4"], "bench.score": ["--pairs", "512"]}.get(cell[0], [])
            sides = (run([*command, *less, "--side", side]) for side in ("peer", "ours"))
            table.add_memory(measured, *(float(printed.splitlines()[-1]) for printed in sides))


def run(command: list[str]) -> str:
    """Run a cell in a process of its own and return what it printed."""
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"python -m {' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


if __name__ == "__main__":
    main()
