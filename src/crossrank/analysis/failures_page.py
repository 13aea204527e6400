"""Where a model fails, as a page and as tables for the terminal."""

import math
import re
from collections.abc import Iterator

from pandas import DataFrame
from rich.table import Column, Table
from rich.text import Text

from crossrank.analysis.failures import Failures, short

MARKDOWN = re.compile(r"([\\`*_\[\]~$|])")


def as_markdown(found: Failures) -> str:
    """Return a page with a table for each part; texts are escaped, so that they show as they are."""
    parts = [f"## Where it fails: {escaped(found.metric)}"]
    for title, note, header, rows in _sections(found):
        lines = [[escaped(cell) for cell in row] for row in (header, *rows)]
        lines.insert(1, ["---"] * len(header))
        parts += [f"### {title}", note, "\n".join(f"| {' | '.join(line)} |" for line in lines)]
    return "\n\n".join(parts) + "\n"


def escaped(text: str) -> str:
    """Return a text, short and on one line, such that a cell of a markdown table shows it as it is."""
    return MARKDOWN.sub(r"\\\1", short(text).replace("&", "&amp;").replace("<", "&lt;"))


def as_tables(found: Failures) -> list[Table]:
    """Return the page's tables for the terminal."""
    tables = []
    for title, note, header, rows in _sections(found):
        columns = [Column(Text(name)) for name in header]
        tables.append(Table(*columns, title=Text(f"{title} ({found.metric})"), caption=Text(note)))
        for row in rows:
            tables[-1].add_row(*map(Text, row))
    return tables


def _sections(found: Failures) -> Iterator[tuple[str, str, list[str], list[list[str]]]]:
    counts = found.counts
    header = ["dataset", "query", "question", found.metric, "rank", "relevant document", "other document"]
    note = f"{counts.helped} helped, {counts.hurt} hurt, {counts.unchanged} unchanged; ranks are of the first relevant"
    yield "Helped most", note, header, _change_cells(found.helped)
    yield "Hurt most", note, header, _change_cells(found.hurt)
    note = f"{counts.up} up, {counts.down} down, {counts.same} unmoved, {counts.absent} in neither list"
    cells = [[str(base), *map(str, row)] for base, *row in found.moves.itertuples()]
    yield "Rank of the first relevant document", note, ["first stage", *map(str, found.moves.columns)], cells
    cells = [[*r[:2], str(r[2]), _mean("", *r[3:6]), _mean("+", *r[6:])] for r in found.slices.itertuples(index=False)]
    header = ["queries by", "bucket", "queries", f"{found.metric} (95 % interval)", "change (95 % interval)"]
    yield "Slices", "Change is over the first stage.", header, cells


def _change_cells(table: DataFrame) -> list[list[str]]:
    return [
        [row.dataset, row.query_id, row.question, f"{row.base_value:.4f} to {row.value:.4f} ({row.change:+.4f})",
         f"{row.base_rank:.0f} to {row.first_rank:.0f}".replace("nan", "-"), row.relevant, row.other]
        for row in table.itertuples()
    ]  # fmt: skip


def _mean(sign: str, mean: float, low: float, high: float) -> str:
    numbers = [f"{number:{sign}.4f}" for number in (mean, low, high)]
    interval = "too few queries" if math.isnan(low) else f"{numbers[1]} to {numbers[2]}"
    return "-" if math.isnan(mean) else f"{numbers[0]} ({interval})"
