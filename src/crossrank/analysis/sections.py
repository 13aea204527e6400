"""A titled table, as markdown and for the terminal; whatever its cells hold is shown as it is."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rich.table import Column
from rich.table import Table as TerminalTable
from rich.text import Text

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # a terminal would obey them, and a line's end would end a table's row
INTERVAL = r"\[(?:[-+]?\d+\.\d+, [-+]?\d+\.\d+|too few queries)\](?![(\[:])"  # markdown makes no link of it
MARKDOWN = re.compile(rf"({INTERVAL})|([\\`*_\[\]~$|#])")


class Table(NamedTuple):
    """A table whose cells are plain text."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


class Section(NamedTuple):
    """A table with a title and a note on how to read it."""

    title: str
    note: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def as_markdown(self, level: int) -> str:
        """Return the section under a heading of this level."""
        table = markdown_table([escaped(name) for name in self.header], [map(escaped, row) for row in self.rows])
        return "\n\n".join([f"{'#' * level} {self.title}", self.note, table])

    def facts(self) -> dict[str, list[dict[str, str]]]:
        """Return the rows for another program."""
        return {"rows": [dict(zip(self.header, row, strict=True)) for row in self.rows]}

    def as_table(self) -> TerminalTable:
        """Return the section for the terminal."""
        columns = [Column(Text(one_line(name)), overflow="fold") for name in self.header]
        table = TerminalTable(*columns, title=Text(one_line(self.title)), caption=Text(self.note))
        for row in self.rows:
            table.add_row(*(Text(one_line(cell)) for cell in row))
        return table


def markdown_table(header: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table of cells that are markdown already."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def one_line(text: str) -> str:
    """Return a text without control characters and line ends."""
    return CONTROL.sub(" ", text)


def escaped(text: str) -> str:
    """Return a text such that markdown shows it as it is, in a cell of a table too."""
    harmless = one_line(text).replace("&", "&amp;").replace("<", "&lt;")
    return MARKDOWN.sub(lambda found: found[1] or f"\\{found[2]}", harmless)
