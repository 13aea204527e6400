"""The MiniLM cells, one after the other, each with the peak memory of either side alone: make bench."""

import argparse
import subprocess
import sys
from pathlib import Path

from bench import table

CELLS = [
    [program, "--precision", precision, *more]
    for precision in ("fp32", "bf16")
    for program, more in (
        ("bench.train", ["--batch", "16"]),
        ("bench.train", ["--batch", "64"]),
        ("bench.score", []),
        ("bench.evaluate", []),
    )
]
ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=["minilm", "modernbert"], default="minilm")
    parser.add_argument("--no-memory", action="store_true", help="leave out the memory of either side alone")
    options = parser.parse_args()
    for cell in CELLS:
        command = [*cell, "--model", options.model]
        print("python -m", *command, flush=True)
        run(command)
        if not options.no_memory:
            steps = ["--steps", "6"] if cell[0] == "bench.train" else []
            table.add_memory(
                table.cell_of(command), options.model, cell[2],
                *(float(run([*command, *steps, "--side", side]).splitlines()[-1]) for side in ("peer", "ours")),
            )  # fmt: skip


def run(command: list[str]) -> str:
    """Run a cell in a process of its own and return what it printed."""
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"python -m {' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


if __name__ == "__main__":
    main()
