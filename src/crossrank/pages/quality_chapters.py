"""The chapters of a run's page on how good it is: headline, curves, results, queries, calibration."""

import math
from collections.abc import Iterator, Sequence

from crossrank.analysis.averages import HEADER as AVERAGES
from crossrank.analysis.averages import averages_note, averages_rows
from crossrank.analysis.failures import Failures
from crossrank.analysis.failures_page import sections
from crossrank.analysis.report import recall_table
from crossrank.analysis.run_view import RunView
from crossrank.analysis.summary import NOTE, PROTOCOLS, SummaryRow, filled, shown
from crossrank.evaluation.significance import Interval
from crossrank.pages import plots
from crossrank.pages.page_parts import Chapter, Fold, Grid, Part, Plot, Queries, Query, Text, Tile, Tiles, Tone

NO_EVALUATION = Text("Nothing was evaluated: the run has no evaluation, or stopped before its first.", "note")


def headline(view: RunView) -> Chapter:
    """Return the monitored metric with its interval, beside the first stage and the untrained model."""
    parts: list[Part] = []
    if not view.result:
        parts.append(Text(f"The run has not finished: its last logged step is {view.last_step:,}.", "warning"))
    if (stopped := view.result.get("pruned_at")) is not None:
        parts.append(Text(f"A search stopped the run after step {stopped:,}: it had fallen behind.", "warning"))
    row, monitor = view.headline, view.monitor
    if row is None or monitor is None:
        return Chapter("Headline", [*parts, NO_EVALUATION])
    tiles = [
        _tile("first stage", row.first_stage),
        _tile("before training", row.before),
        _tile("after training" if view.step else "untrained", row.after),
        _tile("gain over the first stage", row.gain, "+"),
        _tile("ceiling of the same lists", row.ceiling),
    ]
    where = f"{row.dataset}, {row.queries:,} queries" if row.dataset == monitor.dataset else row.dataset
    chosen = "best step" if view.result else "best step so far"
    if view.averaged:
        chosen = f"average {view.averaged}, kept as the best"
    note = f"{monitor.metric} on {where} at step {view.step:,}, the {chosen} by {monitor.key}. " if view.step else ""
    optimistic = "On the set that chose the step its numbers are slightly optimistic. Brackets: 95 % intervals."
    known = [tile for tile in tiles if tile.value != "-"]
    return Chapter("Headline", [*parts, Tiles(known), Text(_verdict(row)), Text(note + optimistic, "note")])


def _tile(label: str, value: Interval, sign: str = "") -> Tile:
    mean, _, interval = shown(value, sign).partition(" ")
    tone: Tone = ""
    if sign and not math.isnan(value.low):
        tone = "good" if value.low > 0 else "bad" if value.high < 0 else ""
    return Tile(label, mean, interval, tone)


def _verdict(row: SummaryRow) -> str:
    gain = row.gain
    if math.isnan(gain.mean):
        return "There is no first stage to compare with."
    if math.isnan(gain.low):
        return "There are too few queries to say whether reranking helps."
    if gain.low > 0:
        return (
            f"Reranking improves on the first stage: the whole interval of the gain lies above 0 ({shown(gain, '+')})."
        )
    if gain.high < 0:
        return (
            f"Reranking is worse than the first stage: the whole interval of the gain is below 0 ({shown(gain, '+')})."
        )
    return f"Reranking and the first stage are not told apart: the interval of the gain holds 0 ({shown(gain, '+')})."


def curves(view: RunView) -> Chapter:
    """Return loss, learning rate and the monitored metric by step."""
    parts: list[Part] = []
    if loss := plots.curves(view, {"loss": "train/loss"}, "training loss"):
        parts.append(Plot(loss, "Training loss", "Mean since the point before.", half=True))
    if rate := plots.curves(
        view, {"rate": "train/lr"}, "learning rate", yaxis={"tickformat": "~e", "rangemode": "tozero"}
    ):
        parts.append(Plot(rate, "Learning rate", half=True))
    if not parts:
        parts.append(Text("No training step was logged.", "note"))
    metric = view.monitor.metric if view.monitor else ""
    evaluators = list(dict.fromkeys(view.evaluations["evaluator"])) if len(view.evaluations) else []
    for evaluator in evaluators:
        if drawn := plots.metric_curves(view, str(evaluator), metric):
            caption = (
                "Band: the 95 % interval of the mean over queries; dashed: the first stage; dotted: the best step."
            )
            parts.append(Plot(drawn, f"{metric} of {evaluator}", caption, height=380))
    return Chapter("Curves", parts if evaluators else [*parts, NO_EVALUATION])


def results(view: RunView) -> Chapter:
    """Return every metric of every dataset, first stage to reranked."""
    if view.step is None or view.monitor is None:
        return Chapter("Results", [NO_EVALUATION])
    parts: list[Part] = []
    for evaluator, rows in view.summaries.items():
        chosen = [row for row in rows if row.metric == view.monitor.metric]
        if len(chosen) > 1 and not math.isnan(chosen[0].first_stage.mean):
            height = 90 + 34 * len(chosen)
            title = f"{evaluator}: {view.monitor.metric}, first stage and reranked"
            parts.append(Plot(plots.reranking(chosen), title, height=height, half=True))
            gains = {row.dataset: row.gain for row in chosen}
            drawn = plots.intervals(gains, f"gain in {view.monitor.metric}")
            parts.append(Plot(drawn, f"{evaluator}: gain with 95 % intervals", height=height, half=True))
        parts += _tables(evaluator, rows)
    if len(view.run.queries):
        table = recall_table(view.run.queries)
        parts.append(Grid(*table, title="What the first stage found", note="Reranking finds nothing beyond it."))
    if averages := view.result.get("averages"):
        note = averages_note(averages, view.monitor.key, view.step)
        parts.append(Grid(AVERAGES, averages_rows(averages), title="Averaged weights", note=note))
    return Chapter("Results", [*parts, Text(NOTE, "note")])


def _tables(evaluator: str, rows: Sequence[SummaryRow]) -> Iterator[Part]:
    first = rows[0].protocol
    for protocol, title in PROTOCOLS.items():
        chosen = [row for row in rows if row.protocol == protocol]
        if chosen and protocol == first:
            yield Grid(*filled(chosen), title=evaluator, note=f"{title}.", sortable=len(chosen) > 3)
        elif chosen:
            yield Fold(f"{evaluator}: {title}", [Grid(*filled(chosen), sortable=len(chosen) > 3)])


def queries(view: RunView) -> Chapter:
    """Return how single queries changed, and those that were helped and hurt most with their texts."""
    monitor = view.monitor
    found, step = view.failures, view.step
    if found is None or monitor is None or step is None:
        return Chapter("Queries", [NO_EVALUATION])
    rows = view.rows_at(step, monitor.evaluator)
    single = rows[rows["metric"] == monitor.metric]
    change = (single["value"] - single["base_value"]).dropna()
    helped, hurt, unchanged, *_ = found.counts
    summary = f"{monitor.evaluator}, {monitor.metric}: {helped} helped, {hurt} hurt, {unchanged} unchanged."
    _, _, *others = sections(found)
    parts: list[Part] = [Text(f"{summary} Ranks are those of the first relevant document.")]
    if len(change):
        drawn = plots.query_changes(change, monitor.metric)
        parts.append(Plot(drawn, "Change against the first stage, query by query", height=260))
        parts += [_changed(found, "Helped most", "good"), _changed(found, "Hurt most", "bad")]
    else:
        parts.append(Text("There is no first stage to compare with.", "note"))
    return Chapter("Queries", [*parts, *map(Grid.of, others)])


def _changed(found: Failures, title: str, tone: Tone) -> Queries:
    table = found.helped if tone == "good" else found.hurt
    shown_queries = [
        Query(
            f"{row.dataset}, {row.query_id}", row.question, f"{row.change:+.4f}",
            f"{found.metric} {row.base_value:.4f} → {row.value:.4f}, "
            f"rank {_rank(row.base_rank)} → {_rank(row.first_rank)}",
            row.relevant, row.other, tone,
        )
        for row in table.itertuples()
    ]  # fmt: skip
    return Queries(title, shown_queries)


def _rank(rank: float) -> str:
    return "-" if math.isnan(rank) else f"{rank:.0f}"


def calibration(view: RunView) -> Chapter:
    """Return how far the probabilities can be trusted that the exported calibration makes of scores."""
    kept = view.read("export/calibration.json")
    if not kept or view.step is None:
        return Chapter("Calibration", [Text("No calibration was fitted; that is done when a run finishes.", "note")])
    evaluator, findings = view.calibration(kept)
    if findings is None:
        return Chapter("Calibration", [Text("No scores of relevant and of other candidates were kept.", "note")])
    shown_ways = {name: found for name, found in findings.found.items() if name != "pos_weight undone"}
    diagram = plots.reliability_diagram(shown_ways)
    caption = f"On {evaluator}, whose scores it was fitted on; bars are 95 % intervals of the share."
    return Chapter(
        "Calibration",
        [
            Text(findings.note),
            Plot(diagram, "Reliability", caption, height=400, half=True),
            Grid(*findings.quality, title="How good the probabilities are", note="Lower is better.", half=True),
            Grid(*findings.thresholds, title="Thresholds for a precision"),
            Fold("Bins of the diagram", [Grid(*findings.bins)]),
        ],
    )
