"""What a page of HTML is made of; texts are plain, and whatever they hold is shown as it is."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple
from urllib.parse import quote

from plotly.graph_objects import Figure

from crossrank.analysis.sections import Section

Tone = Literal["", "good", "bad"]

# a number with a unit or none, and what stands behind it in brackets, most often its interval
NUMBER = re.compile(r"([+-]?(?:\d[\d,]*\.?\d*|\.\d+)(?:e[+-]?\d+)?)((?: ?%| [a-z]{1,3})?)( [\[(].+[\])])?", re.DOTALL)
NOTHING = ("", "-", "null")


class Cell(NamedTuple):
    """A cell of a table: `detail` is shown smaller, `value` is what it is sorted by, `href` a path beside the page."""

    text: str
    detail: str = ""
    value: float | None = None
    href: str = ""


def cell(text: str) -> Cell:
    """Return the cell of a text, with its number where it is one."""
    found = NUMBER.fullmatch(text)
    if not found:
        return Cell(text)
    return Cell(found[1] + found[2], (found[3] or "").strip(), float(found[1].replace(",", "")))


def linked(text: str, *path: str) -> Cell:
    """Return a cell that leads to a file beside the page, given by the names of its folders and its own."""
    return Cell(text, href="/".join(["."] + [quote(name, safe="") for name in path]))


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar = "text"
    text: str
    tone: Literal["", "note", "warning"] = ""


@dataclass(frozen=True)
class Code:
    """Lines to copy, such as a command."""

    kind: ClassVar = "code"
    text: str


@dataclass(frozen=True)
class Grid:
    """A table."""

    kind: ClassVar = "grid"
    header: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    title: str = ""
    note: str = ""
    sortable: bool = False
    wide: bool = False  # long texts get room and wrap
    half: bool = False  # it may stand beside a figure

    @classmethod
    def of(cls, section: Section, wide: bool = False) -> "Grid":
        """Return the table of a section."""
        return cls(section.header, section.rows, section.title, section.note, wide=wide)

    @property
    def cells(self) -> list[list[Cell]]:
        """The rows as cells."""
        return [[part if isinstance(part, Cell) else cell(part) for part in row] for row in self.rows]

    @property
    def numeric(self) -> list[bool]:
        """Which columns hold numbers, and nothing else but dashes."""
        columns = [*zip(*self.cells, strict=True)] or [()] * len(self.header)
        return [
            any(part.value is not None for part in column)
            and all(part.value is not None or part.text in NOTHING for part in column)
            for column in columns
        ]


@dataclass(frozen=True)
class Plot:
    """A figure; its colours are the page's, such as var(--c0), and change with the page's theme."""

    kind: ClassVar = "plot"
    figure: Figure
    title: str
    caption: str = ""
    height: int = 320  # pixels
    half: bool = False  # two stand side by side where there is room
    min_width: int = 0  # pixels; on a narrower page it scrolls in its own box


class Tile(NamedTuple):
    """One number of the headline."""

    label: str
    value: str
    detail: str = ""
    tone: Tone = ""


@dataclass(frozen=True)
class Tiles:
    """The headline's numbers."""

    kind: ClassVar = "tiles"
    tiles: Sequence[Tile]


class Query(NamedTuple):
    """A question whose ranking changed."""

    name: str
    question: str
    change: str
    detail: str
    relevant: str  # the text of the best-ranked relevant document
    other: str  # and of the best-ranked other one
    tone: Tone = ""


@dataclass(frozen=True)
class Queries:
    """Questions with their texts."""

    kind: ClassVar = "queries"
    title: str
    queries: Sequence[Query]


@dataclass(frozen=True)
class Fold:
    """Parts that are hidden until they are asked for."""

    kind: ClassVar = "fold"
    title: str
    parts: Sequence["Part"]


Part = Text | Code | Grid | Plot | Tiles | Queries | Fold


@dataclass(frozen=True)
class Chapter:
    """A part of a page that its contents name."""

    title: str
    parts: Sequence[Part]

    @property
    def anchor(self) -> str:
        """What a link to it ends with."""
        return re.sub(r"[^a-z]+", "-", self.title.lower()).strip("-")


@dataclass(frozen=True)
class Page:
    """A whole page."""

    title: str
    subtitle: str
    chapters: Sequence[Chapter]
    footer: str = ""

    @property
    def plots(self) -> list[Plot]:
        """Its figures."""
        return [plot for chapter in self.chapters for plot in _plots(chapter.parts)]


def _plots(parts: Sequence[Part]) -> list[Plot]:
    found: list[Plot] = []
    for part in parts:
        found += [part] if isinstance(part, Plot) else _plots(part.parts) if isinstance(part, Fold) else []
    return found
