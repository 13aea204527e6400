"""Where a model fails: the queries it helps and hurts, how ranks move, and the metric by kinds of query."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from pandas import DataFrame, Series, crosstab, cut

from crossrank.analysis.sections import one_line
from crossrank.errors import DataError
from crossrank.evaluation.significance import mean_interval

QUERY = ["dataset", "query_id"]
DOCUMENT = ["dataset", "document_id"]
WORD = re.compile(r"[^\W_]+")
SHOWN = 200  # characters of a text
UNKNOWN = "unknown"


class Buckets(NamedTuple):
    """Names of the ranges that start at `edges`, each up to the next; `missing` names what is NaN."""

    edges: tuple[float, ...]
    names: tuple[str, ...]
    missing: str = UNKNOWN

    def of(self, values: Series) -> Series:
        """Return each value's bucket as a category, in the order in which tables show them."""
        found = cut(values.astype(float), [*self.edges, math.inf], right=False, labels=self.names)
        return found.cat.add_categories(list(dict.fromkeys((self.missing, UNKNOWN)))).fillna(self.missing)


RANKS = Buckets((1, 2, 4, 11, 101), ("1", "2-3", "4-10", "11-100", "101+"), "not in the list")
LENGTHS = Buckets((0, 1, 5, 9, 17), ("0", "1-4", "5-8", "9-16", "17+"))
OVERLAPS = Buckets((0, 0.25, 0.5, 0.75), ("0-25 %", "25-50 %", "50-75 %", "75-100 %"))
TRUNCATIONS = Buckets((0, 1e-9, 1), ("none", "some", "all"))
SLICE_COLUMNS = ["slice", "bucket", "queries", "value", "low", "high", "change", "change_low", "change_high"]
CHANGE_COLUMNS = [*QUERY, "question", "value", "base_value", "change", "base_rank", "first_rank", "relevant", "other"]


class Counts(NamedTuple):
    """How many queries changed against the first stage, and where their first relevant document went."""

    helped: int
    hurt: int
    unchanged: int
    up: int
    down: int
    same: int  # on the same rank
    absent: int  # in neither list


@dataclass(frozen=True)
class Failures:
    """One metric of one evaluation, query by query, against the first stage.

    `helped` and `hurt` have CHANGE_COLUMNS: `relevant` and `other` are the texts of the best-ranked relevant and the
    best-ranked other document, "" where unknown. `moves` counts queries by the bucket of the first relevant
    document's rank, in the first stage (index) and after reranking (columns). `slices` has SLICE_COLUMNS: mean value
    and mean change (where there is a first stage), each with its 95 % interval, NaN below two queries.
    """

    metric: str
    counts: Counts
    helped: DataFrame
    hurt: DataFrame
    moves: DataFrame
    slices: DataFrame


def failures(
    rows: DataFrame, queries: DataFrame, scores: DataFrame, documents: DataFrame, metric: str, count: int = 10
) -> Failures:
    """Return where one evaluation helped and hurt by `metric`, with `count` queries of either kind.

    `rows` are of one step of one evaluator. The other three tables may be empty: what needs them is left out, and so is
    a slice of which nothing is known.

    Raises:
        DataError: `rows` is empty or lacks the metric.
        ValueError: `count` is below 1.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1 query, got {count}")
    ranked = _ranked(scores, documents)
    table = _queries(rows, metric).join(_columns(queries, QUERY, "question").set_index(QUERY), QUERY, validate="m:1")
    table["words"] = table["question"].map(lambda text: len(text.split()), na_action="ignore")
    table = table.join(_overlaps(table, ranked), on=QUERY)
    change = table["change"].round(9)  # equal metrics of two orders may differ in the last bits
    return Failures(
        metric=metric,
        counts=_counts(change, table),
        helped=_extremes(table, ranked, change, count),
        hurt=_extremes(table, ranked, -change, count),
        moves=_moves(table),
        slices=DataFrame(_slices(table), columns=SLICE_COLUMNS),
    )


def _columns(frame: DataFrame, keys: list[str], *columns: str) -> DataFrame:
    """Return these columns with the keys as strings; an empty table may lack them."""
    wanted = [*keys, *columns]
    return (frame.reindex(columns=wanted) if frame.empty else frame[wanted]).astype(dict.fromkeys(keys, str))


def _queries(rows: DataFrame, metric: str) -> DataFrame:
    """Return the metric's rows by query, with the change and the buckets of both ranks."""
    if rows.empty:
        raise DataError("no query was evaluated, so there is nothing to look into; rows of one step are wanted")
    if metric not in set(rows["metric"]):
        raise DataError(f"no metric {metric!r} was evaluated; there are: {', '.join(sorted(set(rows['metric'])))}")
    wanted = [*QUERY, "value", "base_value", "first_rank", "base_rank", "truncated"]
    table = rows[rows["metric"] == metric].reindex(columns=wanted).astype(dict.fromkeys(QUERY, str))
    table = table.sort_values(QUERY, ignore_index=True)  # or else the resampling would depend on the order of rows
    table["change"] = table["value"] - table["base_value"]
    compared = table["base_value"].notna() & ("base_rank" in rows)
    table["base_bucket"] = RANKS.of(table["base_rank"]).where(compared, UNKNOWN)
    table["first_bucket"] = RANKS.of(table["first_rank"]).where(["first_rank" in rows] * len(table), UNKNOWN)
    return table


def _ranked(scores: DataFrame, documents: DataFrame) -> DataFrame:
    """Return the scored pairs with their texts, best score first; ties are in the first stage's order."""
    pairs = _columns(scores, [*QUERY, "document_id"], "first_stage_rank", "score", "relevant")
    pairs["first_stage_rank"] = pairs["first_stage_rank"].astype(float).replace(0, math.inf)
    order = {"score": False, "first_stage_rank": True, "document_id": True}
    pairs = pairs.sort_values(list(order), ascending=list(order.values()), ignore_index=True)
    return pairs.join(_columns(documents, DOCUMENT, "text").set_index(DOCUMENT), DOCUMENT, validate="m:1")


def _overlaps(table: DataFrame, ranked: DataFrame) -> Series:
    relevant = ranked[ranked["relevant"].astype(bool)].merge(table[[*QUERY, "question"]], on=QUERY)
    known = relevant.dropna(subset=["question", "text"])
    shares = [_overlap(*texts) for texts in zip(known["question"], known["text"], strict=True)]
    return known[QUERY].assign(overlap=Series(shares, known.index, float)).groupby(QUERY)["overlap"].max()


def _overlap(question: str, text: str) -> float:
    """Return the share of the question's distinct words that occur in a text, NaN if it has none."""
    asked, found = (set(WORD.findall(part.lower())) for part in (question, text))
    return len(asked & found) / len(asked) if asked else math.nan


def _extremes(table: DataFrame, ranked: DataFrame, gain: Series, count: int) -> DataFrame:
    by_gain = table.assign(gain=gain)[gain > 0].sort_values(["gain", *QUERY], ascending=[False, True, True])
    chosen = by_gain.head(count).reset_index(drop=True)
    best = ranked.drop_duplicates([*QUERY, "relevant"]).set_index(QUERY)
    for column, relevant in (("relevant", True), ("other", False)):
        chosen = chosen.join(best.loc[best["relevant"] == relevant, "text"].rename(column), on=QUERY)
    for column in ("question", "relevant", "other"):
        chosen[column] = [short(text) for text in chosen[column].astype(object).fillna("")]
    return chosen[CHANGE_COLUMNS]


def short(text: str) -> str:
    """Return a text on one line, cut after a word where one ends in its second half."""
    line = " ".join(one_line(text).split())
    if len(line) <= SHOWN:
        return line
    end = line.rfind(" ", SHOWN // 2, SHOWN)
    return line[: end if end > 0 else SHOWN - 1] + "…"


def _moves(table: DataFrame) -> DataFrame:
    found = crosstab(table["base_bucket"], table["first_bucket"], dropna=False)
    rare = {"101+", UNKNOWN} - set(table["base_bucket"]) - set(table["first_bucket"])
    return found.drop(index=list(rare), columns=list(rare))


def _counts(change: Series, table: DataFrame) -> Counts:
    known = table[(table["base_bucket"] != UNKNOWN) & (table["first_bucket"] != UNKNOWN)]
    base, first = (known[name].astype(float).fillna(math.inf) for name in ("base_rank", "first_rank"))
    absent = (base == math.inf) & (first == math.inf)
    moves = (first < base, first > base, (first == base) & ~absent, absent)
    return Counts(*(int(found.sum()) for found in (change > 0, change < 0, change == 0, *moves)))


def _slices(table: DataFrame) -> Iterator[tuple[object, ...]]:
    kinds = {
        "all queries": Series("all", table.index),
        "words of the question": LENGTHS.of(table["words"]),
        "its words in a relevant document": OVERLAPS.of(table["overlap"]),
        "first relevant rank in the first stage": table["base_bucket"],
        "pairs cut to max_length": TRUNCATIONS.of(table["truncated"]),
    }
    for kind, buckets in kinds.items():
        for bucket, rows in table.groupby(buckets, observed=True) if (buckets != UNKNOWN).any() else ():
            yield (
                kind,
                bucket,
                len(rows),
                *mean_interval(rows["value"], 0, 1),
                *mean_interval(rows["change"].dropna(), -1, 1),
            )
