"""Reranks lists of any number and leaves a TREC run and a table of scores; memory holds one chunk of them."""

import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from crossrank.data.progress import hidden, progress
from crossrank.errors import ConfigError
from crossrank.hub import require
from crossrank.inference.rerank_inputs import Asked, RerankInputs
from crossrank.inference.rerank_output import SCHEMA, RerankOutput, opened
from crossrank.inference.reranker import Reranker, Scored
from crossrank.inference.reranker_spec import RerankerSpec
from crossrank.models.linear import prepared_weights

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RerankRun:
    """A reranker, what it reranks, and the folder for what comes of it.

    `top_k` documents of each question are written, all that were reranked by default. `pairs_per_chunk` are scored in
    one length-sorted pass, whole questions at a time, and are then on the disk.

    Raises:
        ConfigError: no folder is given.
    """

    model: RerankerSpec
    inputs: RerankInputs
    output: Path | None
    top_k: int | None = None
    pairs_per_chunk: int = 8192

    def __post_init__(self) -> None:
        if self.output is None:
            raise ConfigError(["output: required and missing: the folder for the run, the scores and what is done"])

    def identity(self) -> dict[str, Any]:
        """Return by name what the output depends on, to the last bit."""
        own = {"top_k": self.top_k, "pairs_per_chunk": self.pairs_per_chunk}
        return self.model.identity() | self.inputs.identity() | own


def execute(run: RerankRun) -> dict[str, Any]:
    """Check all lists, rerank those that are not done yet, and return what there is to say of it.

    Raises:
        CrossrankError: something that was given is wrong; what can be checked without the model is checked before.
    """
    require([run.model.asset])
    started = time.perf_counter()
    totals = run.inputs.check()
    with opened(run.output or Path(), run.identity()) as output:
        before = output.done
        if before.queries:
            log.info("%s: %d of %d queries are there already", output.folder, before.queries, totals.queries)
        if before.queries < totals.queries:
            reranker = run.model.load()
            started = time.perf_counter()
            with prepared_weights(), progress("reranking pairs", totals.pairs, before.pairs) as advance:
                for chunk in _chunks(run.inputs.asked(before.queries), run.pairs_per_chunk):
                    advance(_rerank(chunk, reranker, output, run.top_k))
                    run.inputs.let_go()
        output.finish()
    seconds, scored = time.perf_counter() - started, output.done.pairs - before.pairs
    return {
        "folder": str(output.folder),
        "queries": output.done.queries,
        "pairs": output.done.pairs,
        "truncated": output.done.truncated,
        "already_done": before.queries,
        "seconds": round(seconds, 1),
        "pairs_per_second": round(scored / seconds, 1) if scored else None,
    }


def said(facts: dict[str, Any]) -> list[str]:
    """Return what a person is told in the end."""
    lines = [f"{facts['queries']:,} queries, {facts['pairs']:,} pairs in {facts['folder']}/run.trec and scores.parquet"]
    if facts["truncated"]:
        lines.append(f"{facts['truncated']:,} pairs had more tokens than the model takes and were cut")
    return lines


def _chunks(asked: Iterable[Asked], pairs: int) -> Iterator[list[Asked]]:
    """Gather questions until they have so many pairs; where a chunk ends depends on where it begins alone."""
    chunk: list[Asked] = []
    held = 0
    for one in asked:
        chunk.append(one)
        held += len(one.ids)
        if held >= pairs:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk


def _rerank(chunk: list[Asked], reranker: Reranker, output: RerankOutput, top_k: int | None) -> int:
    pairs = [(one.query, text) for one in chunk for text in one.texts]
    with hidden():
        found = reranker.score(pairs)
    output.add(_table(chunk, found, reranker, top_k), len(chunk), len(pairs), int(found.cut.sum()))
    return len(pairs)


def _table(chunk: list[Asked], found: Scored, reranker: Reranker, top_k: int | None) -> pa.Table:
    """Return the rows of a chunk in trec_eval's order: by logit, ties by falling document id."""
    scores, logits, cut = reranker.activated(found.logits).tolist(), found.logits.tolist(), found.cut.tolist()
    rows: list[tuple[Any, ...]] = []
    start = 0
    for one in chunk:
        keys = list(zip(logits[start : start + len(one.ids)], one.ids, range(len(one.ids)), strict=True))
        for rank, (logit, key, place) in enumerate(sorted(keys, reverse=True)[:top_k], start=1):
            at = start + place
            rows.append((one.query_id, key, rank, scores[at], logit, place + 1, cut[at]))
        start += len(one.ids)
    columns = zip(*rows, strict=True)
    return pa.table([pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)], SCHEMA)
