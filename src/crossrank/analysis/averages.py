"""What a run's page says of averages of its weights, from `averages` in its result.json."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from crossrank.analysis.sections import escaped, markdown_table
from crossrank.analysis.summary import shown
from crossrank.evaluation.significance import Interval

HEADER = ("average", "rule", "updates", "value", "best step", "its value", "difference", "p", "exported")


def averages_section(averages: Sequence[Mapping[str, Any]], monitor: str, exported_step: int) -> list[str]:
    """Return heading, explanation and table as markdown; nothing where nothing was averaged."""
    if not averages:
        return []
    return ["## Averaged weights", escaped(averages_note(averages, monitor, exported_step)), _table(averages)]


def averages_note(averages: Sequence[Mapping[str, Any]], monitor: str, exported_step: int) -> str:
    """Return what was compared with what, and what came of it."""
    kept = next((average["name"] for average in averages if average["exported"]), None)
    outcome = (
        f"Step {exported_step} is no step of the training, it stands for the average {kept}."
        if kept
        else "None is, so the best step is exported."
    )
    return (
        f"Each average was evaluated once, after the training, on the {averages[0]['queries']:,} queries of {monitor} "
        "that chose the best step. The highest is exported in that step's place if it is higher, whatever its p: that "
        f"of the paired randomisation test, not corrected for their number. {outcome}"
    )


def averages_rows(averages: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Return a row of text for each average, under HEADER."""
    return [
        (
            average["name"], average["rule"], f"{average['updates']:,}", f"{average['value']:.4f}",
            str(average["against_step"]), f"{average['against']:.4f}", _interval(average["difference"]),
            f"{average['p']:.3g}", "yes" if average["exported"] else "no",
        )
        for average in averages
    ]  # fmt: skip


def _interval(ends: Sequence[float | None]) -> str:
    return shown(Interval(*(math.nan if end is None else end for end in ends)), "+")


def _table(averages: Sequence[Mapping[str, Any]]) -> str:
    return markdown_table(
        HEADER, [(escaped(name), escaped(rule), *rest) for name, rule, *rest in averages_rows(averages)]
    )
