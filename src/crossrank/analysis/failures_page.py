"""Where a model fails, as a page and as tables for the terminal."""

from collections.abc import Iterator

from pandas import DataFrame
from rich.table import Table

from crossrank.analysis.failures import Failures
from crossrank.analysis.sections import Section, escaped
from crossrank.analysis.summary import shown
from crossrank.evaluation.significance import Interval


def as_markdown(found: Failures) -> str:
    """Return a page with a table for each part."""
    parts = [f"## Where it fails: {escaped(found.metric)}"]
    return "\n\n".join([*parts, *(section.as_markdown(3) for section in sections(found))]) + "\n"


def as_tables(found: Failures) -> list[Table]:
    """Return the page's tables for the terminal."""
    named = (section._replace(title=f"{section.title} ({found.metric})") for section in sections(found))
    return [section.as_table() for section in named]


def sections(found: Failures) -> Iterator[Section]:
    """Yield a section for each part: helped most, hurt most, moved ranks, slices."""
    counts = found.counts
    header = ["dataset", "query", "question", found.metric, "rank", "relevant document", "other document"]
    note = f"{counts.helped} helped, {counts.hurt} hurt, {counts.unchanged} unchanged; ranks are of the first relevant"
    yield Section("Helped most", note, header, _change_cells(found.helped))
    yield Section("Hurt most", note, header, _change_cells(found.hurt))
    note = f"{counts.up} up, {counts.down} down, {counts.same} unmoved, {counts.absent} in neither list"
    cells = [[str(base), *map(str, row)] for base, *row in found.moves.itertuples()]
    yield Section("Rank of the first relevant document", note, ["first stage", *map(str, found.moves.columns)], cells)
    cells = [
        [kind, bucket, str(queries), shown(Interval(*numbers[:3])), shown(Interval(*numbers[3:]), "+")]
        for kind, bucket, queries, *numbers in found.slices.itertuples(index=False)
    ]
    header = ["queries by", "bucket", "queries", f"{found.metric} (95 % interval)", "change (95 % interval)"]
    yield Section("Slices", "Change is over the first stage.", header, cells)


def _change_cells(table: DataFrame) -> list[list[str]]:
    return [
        [row.dataset, row.query_id, row.question, f"{row.base_value:.4f} to {row.value:.4f} ({row.change:+.4f})",
         f"{row.base_rank:.0f} to {row.first_rank:.0f}".replace("nan", "-"), row.relevant, row.other]
        for row in table.itertuples()
    ]  # fmt: skip
