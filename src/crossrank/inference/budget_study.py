"""What quality costs: NDCG by rerank depth and max length beside the measured latency of a query."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from crossrank.errors import DataError, ModelError
from crossrank.evaluation import Scorer
from crossrank.evaluation.budget import depth_curve
from crossrank.evaluation.reranking import RerankingTask, evaluate_tasks
from crossrank.inference.padded import PaddedScorer, at_length
from crossrank.inference.scorer import PairScorer

log = logging.getLogger(__name__)

LENGTHS = (64, 128, 256, 512)  # tried where none are asked for
Pairs = list[tuple[str, str]]


@dataclass(frozen=True)
class BudgetGrid:
    """Which depths (candidates) and max lengths (tokens of a pair) to try, and on how many queries latency is measured.

    Without `lengths`, those of 64, 128, 256 and 512 that cut a pair, and the model's own.
    """

    depths: Sequence[int]
    lengths: Sequence[int] | None = None
    latency_queries: int = 30

    def __post_init__(self) -> None:
        if not self.depths or min(self.depths) < 1:
            raise ValueError(f"depths must be positive numbers of candidates, at least one, got {list(self.depths)}")
        if self.lengths is not None and (not self.lengths or min(self.lengths) < 8):
            raise ValueError(f"lengths count tokens of a pair and must be at least 8, got {list(self.lengths)}")
        if self.latency_queries < 1:
            raise ValueError(f"latency_queries must be at least 1, got {self.latency_queries}")


class Latency(NamedTuple):
    """Of one call a query: percentiles in milliseconds, and the pairs scored in a second."""

    p50_ms: float
    p95_ms: float
    pairs_per_second: float


def refuse_unranked(tasks: Sequence[RerankingTask]) -> None:
    """Check that every list was ranked by a first stage.

    Raises:
        DataError: a task's lists were not.
    """
    for task in tasks:
        if not task.ranked:
            raise DataError(f"{task.name}: its lists have no first stage, so there is no depth to study; budget=false")


def refuse_too_long(grid: BudgetGrid, own: int) -> None:
    """Check the lengths against the model's own.

    Raises:
        ModelError: one is more.
    """
    if grid.lengths is not None and max(grid.lengths) > own:
        raise ModelError(f"lengths may be at most the model's max_length of {own} tokens, got {max(grid.lengths)}")


def budget_study(
    tasks: Sequence[RerankingTask], scorer: PairScorer | PaddedScorer, scores: pd.DataFrame, grid: BudgetGrid
) -> pd.DataFrame:
    """Return a row a dataset, max length and depth; `scores` are those of `evaluate_tasks(tasks, scorer)`.

    Columns: dataset (`mean` is the mean over datasets), max_length, depth (0 is the first stage), metric, value, low,
    high (95 % interval), truncated_share (of the scored pairs), p50_ms, p95_ms, pairs_per_second. The last three are
    the same for all datasets: latency is that of `measured_latencies` over queries spread over all datasets, 0 at depth
    0. A depth beyond the longest list is that of the longest list.

    Raises:
        DataError: a task's lists have no first stage.
        ModelError: a length is more than the model's own, or leaves no room for text.
    """
    own = own_length(scorer)
    refuse_unranked(tasks)
    refuse_too_long(grid, own)
    longest = max(len(ids) for task in tasks for ids in task.candidates.values())
    depths = sorted({min(depth, longest) for depth in grid.depths})
    curves = []
    for length, share in _lengths(tasks, scorer, grid):
        known = scores if length == own else evaluate_tasks(tasks, at_length(scorer, length)).scores
        curve = depth_curve(tasks, known, [0, *depths]).assign(max_length=length)
        curves.append(curve.assign(truncated_share=curve["dataset"].map(share)))
        value = curves[-1].iloc[-1]["value"]
        log.info("max length %d: %.1f %% of the pairs are cut, NDCG %.4f", length, 100 * share["mean"], value)
    frame = pd.concat(curves, ignore_index=True)
    fresh = {int(length): partial(at_length, scorer, int(length)) for length in frame["max_length"].unique()}
    lists = _spread(tasks, grid.latency_queries)
    log.info("measuring latency on %d queries, %d max lengths and %d depths", len(lists), len(fresh), len(depths))
    latencies = measured_latencies(fresh, depths, lists) | {(x, 0): Latency(0.0, 0.0, np.nan) for x in fresh}
    keys = list(zip(frame["max_length"], frame["depth"], strict=True))
    frame[list(Latency._fields)] = [latencies[key] for key in keys]
    return frame[["dataset", "max_length", *(c for c in frame if c not in ("dataset", "max_length"))]]


def measured_latencies(
    fresh: Mapping[int, Callable[[], Scorer]], depths: Sequence[int], lists: Sequence[Pairs]
) -> dict[tuple[int, int], Latency]:
    """Time one call a list, from text to scores, with each of several scorers, on each list's first pairs.

    `fresh` returns a scorer that has tokenised nothing yet, by a key that stands first in the result's; the depth
    stands second. The first list is scored once more before, for warming up. All are timed list by list, so that
    whatever else the machine does falls upon all alike.
    """
    seconds: dict[tuple[int, int], list[float]] = {(key, depth): [] for key in fresh for depth in depths}
    for key, depth in seconds:
        fresh[key]()(lists[0][:depth])
    for pairs in lists:
        for (key, depth), times in seconds.items():
            scorer = fresh[key]()
            started = time.perf_counter()
            scorer(pairs[:depth])
            times.append(time.perf_counter() - started)
    return {
        (key, depth): Latency(
            float(np.quantile(times, 0.5) * 1000),
            float(np.quantile(times, 0.95) * 1000),
            sum(len(pairs[:depth]) for pairs in lists) / sum(times),
        )
        for (key, depth), times in seconds.items()
    }


def own_length(scorer: PairScorer | PaddedScorer) -> int:
    """Return the scorer's max length in tokens of a pair."""
    return scorer.max_length if isinstance(scorer, PaddedScorer) else scorer.encoder.max_length


def hardware(scorer: PairScorer | PaddedScorer) -> str:
    """Name what a scorer runs on."""
    device = next(scorer.model.parameters()).device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"


def budget_markdown(frame: pd.DataFrame) -> str:
    """Return the mean over datasets as a markdown table, a row a max length and depth."""
    rows = frame[frame["dataset"] == "mean"]
    metric = rows["metric"].iloc[0]
    header = ("max length", "pairs cut", "depth", f"{metric} [95 %]", "p50 ms", "p95 ms", "pairs/s")
    lines = [header, ("---",) * len(header)]
    for row in rows.itertuples():
        interval = "too few queries" if np.isnan(row.low) else f"{row.low:.4f}, {row.high:.4f}"
        rate = "-" if np.isnan(row.pairs_per_second) else f"{row.pairs_per_second:.0f}"
        lines.append(
            (str(row.max_length), f"{row.truncated_share:.1%}", str(row.depth), f"{row.value:.4f} [{interval}]",
             f"{row.p50_ms:.1f}", f"{row.p95_ms:.1f}", rate)
        )  # fmt: skip
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _lengths(
    tasks: Sequence[RerankingTask], scorer: PairScorer | PaddedScorer, grid: BudgetGrid
) -> Iterator[tuple[int, dict[str, float]]]:
    """Go through the lengths, each with the share of pairs that it cuts by dataset."""
    own = own_length(scorer)
    asked = grid.lengths is not None
    for length in sorted(set(grid.lengths or [*(x for x in LENGTHS if x < own), own])):
        cut = at_length(scorer, length)
        share = {task.name: float(cut.truncated(task.pairs).mean()) for task in tasks}
        share["mean"] = float(np.mean(list(share.values())))
        if asked or length == own or share["mean"] > 0:
            yield length, share


def _spread(tasks: Sequence[RerankingTask], queries: int) -> list[Pairs]:
    """Return the candidates of some queries as pairs, best first, evenly from all tasks."""
    places = [(task, query) for task in tasks for query, ids in task.candidates.items() if ids]
    chosen = np.unique(np.linspace(0, len(places) - 1, min(queries, len(places))).round().astype(int))
    return [
        [(task.queries[query], task.documents[d]) for d in task.candidates[query]]
        for task, query in (places[i] for i in chosen)
    ]
