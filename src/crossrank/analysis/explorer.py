"""Single queries of a finished run: what was asked, what stood where, and what training did to it."""

from collections.abc import Hashable

from pandas import DataFrame, Series, isna

from crossrank.analysis.chosen import BestStep
from crossrank.analysis.failures import Failures, failures, short
from crossrank.analysis.runs import RunFolder
from crossrank.analysis.sections import Section
from crossrank.errors import DataError

QUERY = ["dataset", "query_id"]
HEADER = ("rank", "first stage", "is now at", "after training", "score", "was at")
NOTE = "● marks relevant documents, which are shown at any rank; texts are cut."


def failures_at(run: RunFolder, best: BestStep, count: int = 10) -> Failures:
    """Return where a run's best step helped and hurt, of all datasets of the evaluator that chose it."""
    tables = (run.queries, run.scores(best.step), run.documents)
    queries, scores, documents = (t[t["evaluator"] == best.evaluator] if "evaluator" in t else t for t in tables)
    return failures(query_rows(run, best), queries, scores, documents, best.metric, count)


def query_rows(run: RunFolder, best: BestStep) -> DataFrame:
    """Return the rows of the evaluator and metric at the best step, one a query, with its question where known.

    Raises:
        DataError: nothing was evaluated at that step.
    """
    rows = run.evaluations
    rows = rows[(rows["evaluator"] == best.evaluator) & (rows["step"] == best.step) & (rows["metric"] == best.metric)]
    if rows.empty:
        raise DataError(f"{run.path}: {best.evaluator} has no {best.metric} at step {best.step}")
    if not run.queries.empty:
        asked = run.queries.loc[run.queries["evaluator"] == best.evaluator, [*QUERY, "question"]]
        rows = rows.merge(asked, on=QUERY, how="left")
    return rows.assign(change=rows["value"] - rows["base_value"])


def show_query(run: RunFolder, best: BestStep, query_id: str, dataset: str | None = None, most: int = 10) -> Section:
    """Return a query's candidates in both orders as a table: the first `most` ranks and those of relevant documents.

    Raises:
        DataError: the evaluator has no such query, several datasets have it, or its scores were not kept.
    """
    row = _row(run, query_rows(run, best), query_id, dataset)
    pairs = _pairs(run, best, row)
    wanted = {*range(1, most + 1), *pairs.loc[pairs["relevant"], ["before", "after"]].stack()}
    before, after = (pairs.dropna(subset=order).set_index(order, drop=False) for order in ("before", "after"))
    cells = [
        (f"{rank:.0f}", *_cells(before, rank, "after"), *_cells(after, rank, "score", "before"))
        for rank in sorted(wanted & {*before.index, *after.index})
    ]
    note = f"{best.metric} {row['base_value']:.4f} to {row['value']:.4f}. {len(pairs)} documents were scored. {NOTE}"
    return Section(f"{query_id}: {short(str(row.get('question', '')))}", note, HEADER, cells)


def _row(run: RunFolder, rows: DataFrame, query_id: str, dataset: str | None) -> Series:
    found = rows[(rows["query_id"] == query_id) & (rows["dataset"] == dataset if dataset else True)]
    if found.empty:
        raise DataError(f"{run.path}: no query {query_id!r}; there are: {', '.join(rows['query_id'].head(3))}, ...")
    if len(found) > 1:
        raise DataError(f"{query_id!r} is a query of {', '.join(found['dataset'])}; give one of them as dataset")
    return found.iloc[0]


def _pairs(run: RunFolder, best: BestStep, row: Series) -> DataFrame:
    """Return the documents that were scored for a query: text, relevant, score, and their ranks before and after.

    The rank before is NaN for a document that the first stage did not find; ties of the score are in its order.
    """
    scores = run.scores(best.step)
    if scores.empty:
        raise DataError(f"{run.path}: keeps no scores of step {best.step}, so no order can be shown")
    ours = (scores[["evaluator", *QUERY]] == [best.evaluator, row["dataset"], row["query_id"]]).all(axis=1)
    pairs = scores[ours].assign(before=scores["first_stage_rank"].astype(float).where(scores["first_stage_rank"] > 0))
    pairs = pairs.sort_values(["score", "before"], ascending=[False, True], ignore_index=True)
    texts = run.documents[(run.documents["evaluator"] == best.evaluator) & (run.documents["dataset"] == row["dataset"])]
    pairs = pairs.join(texts.set_index("document_id")["text"], on="document_id")
    return pairs.assign(after=pairs.index + 1.0, relevant=pairs["relevant"].astype(bool))


def _cells(ranked: DataFrame, rank: Hashable, *numbers: str) -> tuple[str, ...]:
    """Return the document that stands at a rank, and some of its numbers."""
    if rank not in ranked.index:
        return ("",) * (1 + len(numbers))
    row = ranked.loc[rank]
    marked = f"{'● ' if row['relevant'] else ''}{short(row['text'])}"
    return marked, *("—" if isna(row[name]) else f"{row[name]:.{3 if name == 'score' else 0}f}" for name in numbers)
