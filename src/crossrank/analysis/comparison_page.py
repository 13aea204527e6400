"""A comparison as a page of markdown, as tables for the terminal and as a file."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pandas import DataFrame, concat
from rich.table import Table

from crossrank.analysis.compare import Comparison
from crossrank.analysis.sections import Section, escaped, one_line
from crossrank.analysis.summary import shown
from crossrank.errors import DataError
from crossrank.evaluation.significance import Interval

RESAMPLED = "The interval is a bootstrap over the queries of each dataset."


def verdicts(comparison: Comparison) -> list[str]:
    """Return a sentence for each metric and pair of systems."""
    return [one_line(_verdict(row, comparison)) for row in comparison.overall.itertuples()]


def as_markdown(comparison: Comparison) -> str:
    """Return a page with the verdicts and every table; names are escaped, so that they show as they are."""
    parts = ["# Comparison", "\n".join(f"- {escaped(verdict)}" for verdict in verdicts(comparison))]
    parts += [section.as_markdown(2) for section in _sections(comparison)]
    return "\n\n".join(parts) + "\n"


def as_tables(comparison: Comparison) -> list[Table]:
    """Return the page's tables for the terminal; names are shown as they are."""
    return [section.as_table() for section in _sections(comparison)]


def as_frame(comparison: Comparison) -> DataFrame:
    """Return systems and pairs as one table; a row of a system has no `against`."""
    systems = comparison.systems.rename(columns={"mean": "value"})
    return concat([systems, comparison.pairs], ignore_index=True)


def write(comparison: Comparison, folder: Path) -> None:
    """Write comparison.md and comparison.parquet (`as_frame`), each whole or not at all.

    Raises:
        DataError: the folder cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        page, table = folder / ".comparison.md", folder / ".comparison.parquet"
        page.write_text(as_markdown(comparison), encoding="utf-8")
        as_frame(comparison).to_parquet(table, index=False)
        for file in (page, table):
            file.replace(folder / file.name.removeprefix("."))
    except OSError as error:
        raise DataError(f"output={folder}: cannot be written ({error.strerror or error})") from error


def _verdict(row: Any, comparison: Comparison) -> str:
    if row.ties == row.queries:
        return f"{row.metric}: {row.system} and {row.against} do not differ on any of the {row.queries} queries"
    p = f"p = {_p(row.p_holm)}" + (f" after Holm's correction for {comparison.tests} tests" * (comparison.tests > 1))
    sign = 1
    if row.p_holm <= 1 - comparison.confidence:
        sign = -1 if row.difference < 0 else 1
        better, worse = (row.system, row.against)[::sign]
        found = f"{better} beats {worse} by {_ranged(abs(row.difference), *_turned(row.low, row.high, sign))}, {p}"
    else:
        found = f"{row.system} and {row.against} are not told apart: {_signed(row.difference, row.low, row.high)}, {p}"
        if not math.isnan(row.detectable):
            found += f"; with these {row.queries} queries one test finds a difference of {row.detectable:.4f} "
            found += "8 times in 10"
    if not math.isnan(row.both_low):
        low, high = _turned(row.both_low, row.both_high, sign)
        seen = "includes" if low <= 0 <= high else "excludes"
        found += f"; counting seeds too, the interval is [{low:+.4f}, {high:+.4f}], which {seen} 0"
    return f"{row.metric}: {found}"


def _turned(low: float, high: float, sign: int) -> tuple[float, float]:
    return (low, high) if sign > 0 else (-high, -low)


def _sections(comparison: Comparison) -> Iterator[Section]:
    percent = f"{comparison.confidence * 100:g} %"
    datasets = int((~comparison.pairs["overall"]).sum() / comparison.tests)
    over = f"Means are unweighted over {datasets} datasets. " if datasets > 1 else ""
    yield _systems(comparison, f"{over}{RESAMPLED}", percent)
    yield _differences(comparison, percent)
    split = comparison.overall.dropna(subset=["seed_se"])
    if not split.empty:
        note = (
            "Standard errors of the difference, from drawing queries and from drawing seeds; sd is of one training. "
            "0 means that the trainings differ by no more than their differences on single queries would make them."
        )
        header = ("metric", "system", "against", "trainings", "query se", "seed se", "seed sd", f"{percent}, both")
        cells = [
            (r.metric, r.system, r.against, f"{r.trainings:.0f} and {r.trainings_against:.0f}", f"{r.query_se:.4f}",
             f"{r.seed_se:.4f}", f"{r.seed_sd:.4f}", f"[{r.both_low:+.4f}, {r.both_high:+.4f}]")
            for r in split.itertuples()
        ]  # fmt: skip
        yield Section("Queries and seeds", note, header, cells)
    if datasets > 1:
        yield _by_dataset(comparison, percent)


def _systems(comparison: Comparison, note: str, percent: str) -> Section:
    rows = comparison.systems[comparison.systems["overall"]]
    metrics = list(dict.fromkeys(rows["metric"]))
    cells = [
        (name, str(part["trainings"].iloc[0]), str(part["queries"].iloc[0]),
         *(_ranged(*numbers) for numbers in part[["mean", "low", "high"]].itertuples(index=False)))
        for name, part in rows.groupby("system", sort=False)
    ]  # fmt: skip
    header = ("system", "trainings", "queries", *(f"{metric} ({percent})" for metric in metrics))
    return Section("Systems", note, header, cells)


def _differences(comparison: Comparison, percent: str) -> Section:
    note = (
        f"The difference is system minus against. p is of a paired randomisation test; Holm's correction is for all "
        f"tests of this page ({comparison.tests}). Detectable is the true difference that a single, uncorrected test "
        "finds 8 times in 10. Trainings are taken as they are: how another seed would end is not in p."
    )
    header = (
        "metric", "system", "against", f"difference ({percent})", "p", "p, Holm", "wins/ties/losses", "detectable"
    )  # fmt: skip
    cells = [
        (r.metric, r.system, r.against, _signed(r.difference, r.low, r.high), _p(r.p), _p(r.p_holm),
         f"{r.wins}/{r.ties}/{r.losses}", f"{r.detectable:.4f}".replace("nan", "-"))
        for r in comparison.overall.itertuples()
    ]  # fmt: skip
    return Section("Differences", note, header, cells)


def _by_dataset(comparison: Comparison, percent: str) -> Section:
    note = (
        "No p-values here: each dataset would be a further test to correct for. The intervals are not corrected "
        "either: the more datasets there are, the more of them leave out 0 by chance."
    )
    header = ("dataset", "metric", "system", "against", "queries", f"difference ({percent})", "wins/ties/losses")
    cells = [
        (r.dataset, r.metric, r.system, r.against, str(r.queries), _signed(r.difference, r.low, r.high),
         f"{r.wins}/{r.ties}/{r.losses}")
        for r in comparison.pairs[~comparison.pairs["overall"]].itertuples()
    ]  # fmt: skip
    return Section("By dataset", note, header, cells)


def _ranged(mean: float, low: float, high: float, sign: str = "") -> str:
    return shown(Interval(*(number + 0.0 for number in (mean, low, high))), sign)  # -0 becomes 0


def _signed(mean: float, low: float, high: float) -> str:
    return _ranged(mean, low, high, "+")


def _p(value: float) -> str:
    return f"{value:.2g}"
