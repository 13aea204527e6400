"""Logits as probabilities of relevance: the calibration of a model's scores, and how good it is."""

import logging
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from crossrank.analysis.sections import Table
from crossrank.analysis.summary import shown
from crossrank.errors import DataError
from crossrank.evaluation.calibration import (
    Calibration,
    Reliability,
    fit_platt,
    fit_temperature,
    reliability,
    threshold_for_precision,
)
from crossrank.evaluation.significance import Interval

log = logging.getLogger(__name__)

CalibrationMethod = Literal["shift", "temperature", "platt"]
PRECISIONS = (0.5, 0.8, 0.9, 0.95)


class CalibrationFindings(NamedTuple):
    """How good probabilities of relevance are: `found` by the way they were made, the tables of the best of them."""

    note: str
    found: dict[str, Reliability]
    quality: Table
    bins: Table
    thresholds: Table


def calibrated(scores: pd.DataFrame, pos_weight: float, method: CalibrationMethod) -> Calibration:
    """Return what turns a model's logits into probabilities of relevance.

    `pos_weight` of the loss is undone analytically; the methods temperature and platt then fit what is left on the
    candidates of `scores`, those that the first stage found. What cannot be fitted is left out with a warning.
    """
    shift = Calibration.of_pos_weight(pos_weight)
    if method == "shift":
        return shift
    logits, relevant, _ = _candidates(scores)
    fit = fit_platt if method == "platt" else fit_temperature
    try:
        return fit(logits, relevant, shift.shift)
    except DataError as error:
        log.warning("calibration: only pos_weight is undone, %s is not fitted: %s", method, error)
        return shift


def _candidates(scores: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return logits, relevance and the number of the query of each candidate that the first stage found."""
    if scores.empty:
        return np.zeros(0), np.zeros(0), np.zeros(0, np.int64)
    found = scores[scores["first_stage_rank"] > 0]
    queries = found.groupby(["dataset", "query_id"], sort=False).ngroup()
    return found["score"].to_numpy(), found["relevant"].to_numpy(), queries.to_numpy()


def calibration_findings(scores: pd.DataFrame, calibration: Calibration) -> CalibrationFindings | None:
    """Return how good the probabilities are, on the candidates of `scores`; None where all or none are relevant."""
    logits, relevant, queries = _candidates(scores)
    if not 0 < relevant.sum() < len(relevant):
        return None
    bias = f"{'-' if calibration.bias < 0 else '+'} {abs(calibration.bias):.4f}"
    note = (
        f"p = sigmoid((logit - {calibration.shift:.4f}) / {calibration.temperature:.4f} {bias}): "
        f"pos_weight undone, the rest fitted on these {len(logits):,} candidates of {len(np.unique(queries)):,} "
        f"questions, {relevant.mean():.2%} of them relevant. Brackets hold 95 % intervals (bootstrap over questions)."
    )
    made = {
        "sigmoid of the logit": Calibration(0.0), "pos_weight undone": Calibration(calibration.shift),
        "calibrated": calibration,
    }  # fmt: skip
    found = {name: reliability(how.probability(logits), relevant, query_index=queries) for name, how in made.items()}
    lines = [(name, shown(how.brier), shown(how.ece)) for name, how in found.items()]
    quality = Table(("probability", "Brier", "ECE"), lines)
    thresholds = _thresholds(calibration.probability(logits), relevant)
    return CalibrationFindings(note, found, quality, _curve(found["calibrated"]), thresholds)


def _curve(found: Reliability) -> Table:
    lines = [
        (f"{b.low:.1f} to {b.high:.1f}", f"{b.pairs:,}", f"{b.mean_probability:.4f}",
         shown(Interval(b.share_relevant, b.share_low, b.share_high)))
        for b in found.bins
    ]  # fmt: skip
    return Table(("probability", "pairs", "mean probability", "share relevant"), lines)


def _thresholds(probabilities: np.ndarray, relevant: np.ndarray) -> Table:
    lines: list[Sequence[str]] = []
    for precision in PRECISIONS:
        try:
            cut = threshold_for_precision(probabilities, relevant, precision)
        except DataError:
            lines.append((f"{precision:.0%}", "cannot be had", "-", "-", "-"))
            continue
        hits = round(cut.precision * cut.pairs_above)
        shares = (shown(_share(hits, total)) for total in (cut.pairs_above, int(relevant.sum())))
        lines.append((f"{precision:.0%}", f"{cut.threshold:.4f}", *shares, f"{cut.pairs_above:,}"))
    return Table(("precision wanted", "probability from", "precision", "recall", "pairs above"), lines)


def _share(hits: int, total: int) -> Interval:
    """Return a share of pairs with Wilson's 95 % interval."""
    found = binomtest(hits, total).proportion_ci(0.95, method="wilson")
    return Interval(hits / total, float(found.low), float(found.high))
