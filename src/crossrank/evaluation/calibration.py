"""From a reranker's logits to probabilities of relevance, and how far those can be trusted.

BCE with `pos_weight` w is least at z = logit(p) + ln w, p the true probability that a pair is relevant (Elkan 2001,
"The Foundations of Cost-Sensitive Learning"), so ln w comes off analytically. A dev set can then fit a temperature,
where logits are too far apart or too close, and a bias, where the share of relevant pairs is not training's (Saerens
et al. 2002, "Adjusting the Outputs of a Classifier to New a Priori Probabilities").
"""

import logging
import math
from dataclasses import asdict, dataclass, fields
from typing import Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import optimize, special, stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, precision_recall_curve

from crossrank.errors import DataError
from crossrank.evaluation.significance import Interval

log = logging.getLogger(__name__)

TEMPERATURES = (0.01, 100.0)  # `fit_temperature` goes no further
RESAMPLES, BLOCK = 1000, 100  # of queries, and those drawn at once, to bound memory

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Calibration:
    """p = sigmoid((z - shift) / temperature + bias), with shift = ln(pos_weight) in natural-log units like the logit z.

    Raises:
        DataError: a field is not a finite number, or the temperature is not above 0.
    """

    shift: float
    temperature: float = 1.0
    bias: float = 0.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            number = isinstance(value, float | np.floating) or (type(value) is int and abs(value) < 2**1000)
            if not number or not math.isfinite(value):  # which takes no integer beyond float's range
                raise DataError(f"the {name} of a calibration must be a finite number, got {value!r}")
            object.__setattr__(self, name, float(value))  # a numpy number is not JSON's
        if self.temperature <= 0:
            raise DataError(f"the temperature of a calibration must be above 0, got {self.temperature}")

    @classmethod
    def of_pos_weight(cls, pos_weight: float) -> Self:
        """Return what undoes `pos_weight` (above 0, else ValueError), for training's share of relevant pairs."""
        if not 0 < pos_weight < math.inf:
            raise ValueError(f"pos_weight must be a finite number above 0, got {pos_weight}")
        return cls(math.log(pos_weight))

    @classmethod
    def from_dict(cls, content: object) -> Self:
        """Read what `to_dict` wrote; DataError if a key is missing or unknown or a value is not allowed."""
        names = [field.name for field in fields(cls)]
        if not isinstance(content, dict) or set(content) != set(names):
            raise DataError(f"a calibration is a mapping with exactly the keys {', '.join(names)}, got {content!r}")
        return cls(**content)

    def to_dict(self) -> dict[str, float]:
        """Return the fields by name, ready for JSON."""
        return asdict(self)

    def probability(self, logits: npt.ArrayLike) -> Floats:
        """Return the probability of relevance [pairs], from 0 to 1, of logits [pairs]; NaN where a logit is."""
        log_odds = (np.asarray(logits, np.float64) - self.shift) / self.temperature + self.bias
        return np.asarray(special.expit(log_odds), np.float64)


def fit_temperature(logits: npt.ArrayLike, relevant: npt.ArrayLike, shift: float) -> Calibration:
    """Return the temperature of least log loss on a dev set: logits [pairs], relevant 0/1 [pairs]; the bias stays 0.

    A dev set where the sign of z - shift separates relevant from not would drive it to 0, logits that tell nothing to
    infinity; both stop at a bound of TEMPERATURES and log a warning. Log-odds of 0 stay where they are, so this cannot
    mend a share of relevant pairs that differs from training's; `fit_platt` can.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks"; scipy.optimize.minimize_scalar over ln T.

    Raises:
        DataError: lengths differ, a logit is NaN or infinite, or no pair is relevant, or every one is.
    """
    values, labels = _pairs("logits", logits, relevant)
    margins = np.where(labels, values - shift, shift - values)
    temperature = TEMPERATURES[0]
    if margins.min() < 0:  # else the loss falls until it underflows to a plateau, where a search stops anywhere
        bounds = np.log(TEMPERATURES)
        found = optimize.minimize_scalar(lambda t: np.logaddexp(0, -margins / np.exp(t)).mean(), bounds=bounds)
        temperature = math.exp(found.x)
    if not 1.001 * TEMPERATURES[0] < temperature < TEMPERATURES[1] / 1.001:
        log.warning("the temperature stopped at %.4g: the dev set does not determine it", temperature)
    return Calibration(shift, temperature)


def fit_platt(logits: npt.ArrayLike, relevant: npt.ArrayLike, shift: float) -> Calibration:
    """Return the temperature and bias of least log loss on a dev set: logits [pairs], relevant 0/1 [pairs].

    Source: Platt 1999, "Probabilistic Outputs for Support Vector Machines", with its targets (P + 1) / (P + 2) for the
    P relevant pairs and 1 / (N + 2) for the N others, which keep the fit of a separable dev set finite.

    Raises:
        DataError: as `fit_temperature`, or the logits do not rank relevant pairs higher.
    """
    values, labels = _pairs("logits", logits, relevant)
    if np.ptp(values) == 0:
        raise DataError(f"a fit needs logits that differ, got {values[0]:.4g} for every pair")
    targets = np.where(labels, (labels.sum() + 1) / (labels.sum() + 2), 1 / ((~labels).sum() + 2))
    model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10)  # a soft target is a pair of either label
    twice = np.tile(values - shift, 2)[:, None], np.repeat([1, 0], len(labels)), np.concatenate([targets, 1 - targets])
    slope, bias = float(model.fit(*twice).coef_[0, 0]), float(model.intercept_[0])
    if slope <= 0:
        raise DataError(f"a fit needs logits that are higher for relevant pairs, got a best slope of {slope:.4g}")
    return Calibration(shift, 1 / slope, bias)


class Bin(NamedTuple):
    """Pairs with low < probability <= high; Wilson's 95 % interval of share_relevant takes them as independent."""

    low: float
    high: float
    pairs: int
    mean_probability: float
    share_relevant: float
    share_low: float
    share_high: float


@dataclass(frozen=True)
class Reliability:
    """How probabilities compare with what was relevant; all from 0 to 1 but `log_loss`, in nats. Bins are never empty.

    `brier` is the mean squared error; `ece` the mean over pairs of their bin's |mean_probability - share_relevant|.
    """

    bins: tuple[Bin, ...]
    brier: Interval
    ece: Interval
    log_loss: float
    pairs: int
    base_rate: float

    def frame(self) -> pd.DataFrame:
        """Return a row a bin, with the fields of Bin as columns."""
        return pd.DataFrame(list(self.bins), columns=list(Bin._fields))


def reliability(
    probabilities: npt.ArrayLike,
    relevant: npt.ArrayLike,
    bins: int = 10,
    strategy: Literal["uniform", "quantile"] = "uniform",
    query_index: npt.ArrayLike | None = None,
) -> Reliability:
    """Compare probabilities [pairs] with relevant 0/1 [pairs], in bins of equal width or of equal numbers of pairs.

    `brier` and `ece` get a 95 % interval from `query_index` [pairs], a number a query; NaN without, or with one query.
    It is the basic bootstrap over queries, bins held fixed, cut to [0, 1] and widened to hold the estimate: resampling
    adds noise, which raises an ECE, and percentiles would keep that bias. An ECE near 0 is overestimated all the same.

    Source: sklearn.calibration.calibration_curve (the bins); Davison and Hinkley 1997, section 5.2 (the interval).

    Raises:
        DataError: lengths differ, a probability is not from 0 to 1, or no pair is relevant, or every one is.
        ValueError: no bins, or an unknown strategy.
    """
    values, labels = _pairs("probabilities", probabilities, relevant, 0, 1)
    if bins < 1 or strategy not in ("uniform", "quantile"):
        raise ValueError(f"reliability takes at least 1 bin, uniform or quantile, got {bins} and {strategy!r}")
    steps = np.linspace(0, 1, bins + 1)
    edges = steps if strategy == "uniform" else np.percentile(values, steps * 100)
    which = np.searchsorted(edges[1:-1], values)
    queries = np.zeros(len(values), np.int64) if query_index is None else np.asarray(query_index)
    brier, ece = _brier_and_ece(values - labels, which, bins, queries)
    rows = tuple(_bin(edges[i], edges[i + 1], values[which == i], labels[which == i]) for i in np.unique(which))
    return Reliability(rows, brier, ece, float(log_loss(labels, values)), len(values), float(labels.mean()))


class Threshold(NamedTuple):
    """The precision and recall (0 to 1) of the `pairs_above` pairs whose probability is at least `threshold`."""

    threshold: float
    precision: float
    recall: float
    pairs_above: int


def threshold_for_precision(probabilities: npt.ArrayLike, relevant: npt.ArrayLike, precision: float) -> Threshold:
    """Return the lowest probability that occurs, and so the highest recall, with at least the wanted precision.

    Source: sklearn.metrics.precision_recall_curve.

    Raises:
        DataError: no threshold reaches the precision, or as `reliability`.
        ValueError: `precision` is not above 0 and at most 1.
    """
    if not 0 < precision <= 1:
        raise ValueError(f"precision must be above 0 and at most 1, got {precision}")
    values, labels = _pairs("probabilities", probabilities, relevant, 0, 1)
    precisions, recalls, thresholds = precision_recall_curve(labels, values)
    first = int(np.argmax(precisions >= precision))  # the last precision is a made-up 1 that has no threshold
    if first == len(thresholds):
        best = precisions[:-1].max()
        raise DataError(f"no threshold has a precision of {precision}; the best that can be had is {best:.4g}")
    above = int((values >= thresholds[first]).sum())
    return Threshold(float(thresholds[first]), float(precisions[first]), float(recalls[first]), above)


def _bin(low: float, high: float, values: Floats, labels: npt.NDArray[np.bool_]) -> Bin:
    share = stats.binomtest(int(labels.sum()), len(labels)).proportion_ci(0.95, method="wilson")
    means = float(values.mean()), float(labels.mean())
    return Bin(float(low), float(high), len(values), *means, float(share.low), float(share.high))


def _brier_and_ece(excess: Floats, which: Integers, bins: int, queries: Integers) -> list[Interval]:
    """Return both, of each pair's probability less relevance; a resample is one row of a product of matrices."""
    if queries.shape != excess.shape:
        raise DataError(f"query_index must be one number a pair, got shape {queries.shape} for {len(excess)} pairs")
    ids, query = np.unique(queries, return_inverse=True)
    count, generator = len(ids), np.random.default_rng(0)
    by_bin = np.bincount(query * bins + which, excess, count * bins).reshape(count, bins)
    sums = np.column_stack([by_bin, np.bincount(query, excess**2), np.bincount(query)])
    blocks = [generator.multinomial(count, np.full(count, 1 / count), BLOCK) @ sums for _ in range(RESAMPLES // BLOCK)]
    totals = np.concatenate([sums.sum(0, keepdims=True), *blocks])
    both = np.stack([totals[:, -2], np.abs(totals[:, :-2]).sum(1)], 1) / totals[:, -1:]
    estimate, (low, high) = both[0], np.quantile(both[1:], [0.025, 0.975], axis=0)
    bounds = np.minimum(2 * estimate - high, estimate), np.maximum(2 * estimate - low, estimate)
    known = np.clip(bounds, 0, 1) if count > 1 else np.full((2, 2), np.nan)
    return [Interval(*map(float, row)) for row in np.column_stack([estimate, *known])]


def _pairs(
    name: str, values: npt.ArrayLike, relevant: npt.ArrayLike, low: float = -math.inf, high: float = math.inf
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    array, labels = np.asarray(values, np.float64), np.asarray(relevant)
    if array.ndim != 1 or array.shape != labels.shape:
        raise DataError(f"{name} and relevant must be one number a pair, got shapes {array.shape} and {labels.shape}")
    wrong = array[~(np.isfinite(array) & (array >= low) & (array <= high))]
    if len(wrong):
        raise DataError(f"{name} must be finite and from {low:g} to {high:g}, got {wrong[0]} among {len(wrong)} such")
    if set(np.unique(labels).tolist()) != {0, 1}:
        raise DataError(f"relevant must be 1 for some pairs and 0 for the others, got {np.unique(labels).tolist()}")
    return array, labels.astype(np.bool_)
