"""How a program ends: for a person tables and words, for another program one line of JSON."""

import json
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

WIDTH = 150  # of tables where no terminal says how wide it is


def close(tables: Sequence[Table], words: Sequence[str], facts: Mapping[str, Any]) -> None:
    """Show tables and lines on standard output, where that is a terminal.

    Elsewhere they go to standard error, and standard output gets the facts alone, as one line of JSON with null for
    what is not finite: `python -m src.train ... | jq .best_step`.
    """
    person = sys.stdout.isatty()
    console = Console(stderr=not person, width=None if person or sys.stderr.isatty() else WIDTH)
    for table in tables:
        console.print(table)
    for line in words:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if not person:
        sys.stdout.write(json.dumps(_finite(facts), default=str) + "\n")
        sys.stdout.flush()


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(child) for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(child) for child in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
