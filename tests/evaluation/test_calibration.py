"""Calibration against torch, scikit-learn, simulations with known probabilities and hand-worked examples."""

import json
import logging
from math import inf, log, nan, sqrt

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.calibration import CalibratedClassifierCV, calibration_curve
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, precision_recall_curve
from torch.nn import functional as F

from crossrank.errors import DataError
from crossrank.evaluation.calibration import (
    TEMPERATURES,
    Bin,
    Calibration,
    Threshold,
    fit_platt,
    fit_temperature,
    reliability,
    threshold_for_precision,
)

PAIRS = 40_000


def draw(seed, pairs=PAIRS, base=-1.5):
    """True log-odds of relevance, and what turned out relevant."""
    generator = np.random.default_rng(seed)
    log_odds = generator.normal(base, 1.5, pairs)
    return log_odds, generator.random(pairs) < expit(log_odds)


class AsClassifier(LogisticRegression):
    """Logits as they are, for scikit-learn's calibrators."""

    def __init__(self):
        super().__init__()
        self.classes_, self.coef_, self.intercept_ = np.asarray([0, 1]), np.ones((1, 1)), np.zeros(1)
        self.n_features_in_ = 1


class TestProbability:
    def test_is_the_formula(self):
        found = Calibration(shift=0.5, temperature=2.0, bias=-0.25).probability([2.5, -1.5])
        assert found.dtype == np.float64
        assert found == pytest.approx([1 / (1 + np.exp(-0.75)), 1 / (1 + np.exp(1.25))])

    def test_stays_finite_at_extreme_float32_logits(self):
        logits = np.asarray([-3e38, -800, 800, 3e38], np.float32)
        assert Calibration(1.0, 0.01).probability(logits).tolist() == [0, 0, 1, 1]

    @pytest.mark.parametrize("weight", [0.2, 1.0, 5.0, 40.0])
    def test_undoes_the_weight_of_positives(self, weight):
        """The loss at one probability p has its minimum where the calibrated probability is p."""
        logits = torch.linspace(-12, 12, 240_001, dtype=torch.float64)
        for p in (0.01, 0.3, 0.9):
            loss = p * weight * F.softplus(-logits) + (1 - p) * F.softplus(logits)
            best = logits[loss.argmin()].item()
            assert Calibration.of_pos_weight(weight).probability([best])[0] == pytest.approx(p, abs=3e-5)

    def test_shift_makes_simulated_logits_calibrated(self):
        log_odds, relevant = draw(0)
        logits = log_odds + log(5)
        after = reliability(Calibration.of_pos_weight(5).probability(logits), relevant)
        before = reliability(expit(logits), relevant)
        assert after.ece.mean < 0.01
        assert before.ece.mean > 0.2
        assert after.log_loss < before.log_loss

    @pytest.mark.parametrize("weight", [3.0, 10.0])
    def test_recovers_the_true_probabilities_from_a_model_that_torch_trained(self, weight):
        """p(x) within 0.02 everywhere on the data's range; the raw sigmoid is off by more than 0.2."""
        x = np.random.default_rng(1).uniform(-3, 3, PAIRS)
        p = expit(1.3 * x - 1.0)
        relevant = np.random.default_rng(2).random(PAIRS) < p
        inputs, targets = torch.tensor(x)[:, None], torch.tensor(relevant, dtype=torch.float64)[:, None]
        model = torch.nn.Linear(1, 1, dtype=torch.float64)
        torch.nn.init.zeros_(model.weight)
        torch.nn.init.zeros_(model.bias)
        criterion = torch.nn.BCEWithLogitsLoss(pos_weight=torch.tensor(weight, dtype=torch.float64))
        optimizer = torch.optim.LBFGS(model.parameters(), max_iter=100, line_search_fn="strong_wolfe")

        def step():
            optimizer.zero_grad()
            loss = criterion(model(inputs), targets)
            loss.backward()
            return loss

        optimizer.step(step)
        logits = model(inputs).detach().numpy().ravel()
        assert np.abs(Calibration.of_pos_weight(weight).probability(logits) - p).max() < 0.02
        assert np.abs(expit(logits) - p).max() > 0.2


class TestContent:
    @pytest.mark.parametrize("calibration", [Calibration(log(5)), Calibration(np.float32(0.5), np.float64(2), -1)])
    def test_survives_json(self, calibration):
        assert Calibration.from_dict(json.loads(json.dumps(calibration.to_dict()))) == calibration

    def test_pos_weight_of_one_changes_nothing(self):
        assert Calibration.of_pos_weight(1) == Calibration(0.0, 1.0, 0.0)

    @pytest.mark.parametrize("weight", [0, -1, nan, inf])
    def test_a_weight_that_is_none_is_refused(self, weight):
        with pytest.raises(ValueError, match="pos_weight must be a finite number above 0, got"):
            Calibration.of_pos_weight(weight)

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"temperature": 0}, "temperature of a calibration must be above 0, got 0"),
            ({"temperature": -2.0}, "temperature of a calibration must be above 0, got -2"),
            ({"temperature": nan}, "temperature of a calibration must be a finite number, got nan"),
            ({"shift": inf}, "shift of a calibration must be a finite number, got inf"),
            ({"shift": "1.6"}, "shift of a calibration must be a finite number, got '1.6'"),
            ({"bias": None}, "bias of a calibration must be a finite number, got None"),
            ({"bias": True}, "bias of a calibration must be a finite number, got True"),
            ({"pos_weight": 5}, "exactly the keys shift, temperature, bias"),
        ],
    )
    def test_bad_content_is_refused(self, change, said):
        with pytest.raises(DataError, match=said):
            Calibration.from_dict(Calibration(1.0).to_dict() | change)

    @pytest.mark.parametrize("content", [{}, {"shift": 1.0}, [1.0, 1.0, 0.0], None])
    def test_content_without_the_keys_is_refused(self, content):
        with pytest.raises(DataError, match="exactly the keys shift, temperature, bias, got"):
            Calibration.from_dict(content)


class TestTemperature:
    @pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5, 20.0])
    def test_is_recovered(self, temperature):
        log_odds, relevant = draw(3)
        found = fit_temperature(log_odds * temperature + log(5), relevant, log(5))
        assert found.temperature == pytest.approx(temperature, rel=0.03)
        assert (found.shift, found.bias) == (log(5), 0.0)

    @pytest.mark.parametrize("seed", range(3))
    def test_equals_regression_without_intercept(self, seed):
        """1 / T is the coefficient of a logistic regression on the shifted logit."""
        log_odds, relevant = draw(seed, pairs=300)
        model = LogisticRegression(C=inf, fit_intercept=False, tol=1e-10).fit(log_odds[:, None], relevant)
        found = fit_temperature(log_odds + 1.0, relevant, 1.0)
        assert found.temperature == pytest.approx(1 / model.coef_[0, 0], rel=1e-4)

    def test_equals_scikit_learns_temperature_scaling(self):
        log_odds, relevant = draw(4, pairs=500)
        model = CalibratedClassifierCV(FrozenEstimator(AsClassifier()), method="temperature", ensemble=False)
        expected = model.fit(3 * log_odds[:, None], relevant.astype(int)).predict_proba(3 * log_odds[:, None])[:, 1]
        found = fit_temperature(3 * log_odds, relevant, 0.0).probability(3 * log_odds)
        assert found == pytest.approx(expected, abs=1e-4)

    @pytest.mark.parametrize(
        ("logits", "bound"), [([-9.0, -8.0, 7.0], 0), ([-900.0, -800.0, 700.0], 0), ([2.0, 1.0, -1.0], 1)]
    )
    def test_stops_at_a_bound_and_says_so(self, logits, bound, caplog):
        """Separated by sign, the loss falls to T = 0; in the wrong order, it falls to T = infinity."""
        with caplog.at_level(logging.WARNING):
            found = fit_temperature(logits, [0, 0, 1], 0.0)
        assert found.temperature == pytest.approx(TEMPERATURES[bound], rel=1e-3)
        assert "the dev set does not determine it" in caplog.text

    def test_says_nothing_where_the_dev_set_determines_it(self, caplog):
        fit_temperature(*draw(5, pairs=500), 0.0)
        assert not caplog.records


class TestPlatt:
    def test_recovers_temperature_and_bias(self):
        """Logits of odds that are e times too high, and twice too far apart."""
        log_odds, relevant = draw(6)
        found = fit_platt(2 * (log_odds + 1) + log(5), relevant, log(5))
        assert found.shift == log(5)
        assert found.temperature == pytest.approx(2, rel=0.03)
        assert found.bias == pytest.approx(-1, abs=0.05)

    @pytest.mark.parametrize("pairs", [60, 500])
    def test_equals_scikit_learns_sigmoid_calibration(self, pairs):
        log_odds, relevant = draw(7, pairs)
        model = CalibratedClassifierCV(FrozenEstimator(AsClassifier()), method="sigmoid", ensemble=False)
        expected = model.fit(log_odds[:, None], relevant.astype(int)).predict_proba(log_odds[:, None])[:, 1]
        assert fit_platt(log_odds, relevant, 1.0).probability(log_odds) == pytest.approx(expected, abs=1e-4)

    def test_mends_a_share_of_relevant_pairs_that_a_temperature_cannot(self):
        """Of the others 1 in 10 was in training, so all of them make the odds ten times lower."""
        log_odds, relevant = draw(8)
        logits = log_odds + log(10) + log(5)
        scaled = reliability(fit_temperature(logits, relevant, log(5)).probability(logits), relevant)
        mended = reliability(fit_platt(logits, relevant, log(5)).probability(logits), relevant)
        assert mended.ece.mean < 0.01
        assert scaled.ece.mean > 0.1

    def test_a_separable_dev_set_has_a_finite_fit(self):
        """Two pairs, so targets of 1/3 and 2/3: log-odds of -ln 2 at -4 and ln 2 at 2."""
        found = fit_platt([-4.0, 2.0], [0, 1], 0.0)
        assert found.probability([-4.0, 2.0]) == pytest.approx([1 / 3, 2 / 3])
        assert (1 / found.temperature, found.bias) == pytest.approx((2 * log(2) / 6, log(2) / 3))

    def test_an_order_that_is_upside_down_is_refused(self):
        log_odds, relevant = draw(9, pairs=500)
        with pytest.raises(DataError, match="higher for relevant pairs, got a best slope of -"):
            fit_platt(-log_odds, relevant, 0.0)

    def test_logits_that_are_all_the_same_are_refused(self):
        with pytest.raises(DataError, match=r"a fit needs logits that differ, got 1\.5 for every pair"):
            fit_platt([1.5, 1.5, 1.5], [0, 1, 1], 0.0)


@pytest.mark.parametrize("fit", [fit_temperature, fit_platt])
class TestDevSet:
    @pytest.mark.parametrize(
        ("logits", "relevant", "said"),
        [
            ([1.0, 2.0], [1, 1], r"1 for some pairs and 0 for the others, got \[1\]"),
            ([1.0, 2.0], [0, 0], r"1 for some pairs and 0 for the others, got \[0\]"),
            ([1.0, 2.0, 3.0], [0, 1, 2], r"1 for some pairs and 0 for the others, got \[0, 1, 2\]"),
            ([], [], r"1 for some pairs and 0 for the others, got \[\]"),
            ([1.0, 2.0, 3.0], [0, 1], r"got shapes \(3,\) and \(2,\)"),
            ([[1.0], [2.0]], [[0], [1]], r"got shapes \(2, 1\) and \(2, 1\)"),
            ([1.0, nan, nan], [0, 1, 0], "logits must be finite .* got nan among 2 such"),
            ([1.0, inf, 0.0], [0, 1, 0], "logits must be finite .* got inf among 1 such"),
        ],
    )
    def test_a_bad_one_is_refused(self, fit, logits, relevant, said):
        with pytest.raises(DataError, match=said):
            fit(logits, relevant, 0.0)

    def test_the_fit_is_the_same_twice_and_for_float32_and_lists(self, fit):
        log_odds, relevant = draw(10, pairs=400)
        logits = log_odds.astype(np.float32)
        assert fit(logits, relevant, 0.5) == fit(logits.tolist(), relevant.astype(float).tolist(), 0.5)


class TestReliability:
    def test_hand_worked(self):
        """Two bins of 3 and 2 pairs; 0.5 is in the lower."""
        found = reliability([0.1, 0.3, 0.5, 0.7, 0.9], [0, 0, 1, 1, 0], bins=2)
        low, high = found.bins
        assert low[:5] == pytest.approx((0, 0.5, 3, 0.3, 1 / 3))
        assert high[:5] == pytest.approx((0.5, 1, 2, 0.8, 0.5))
        assert found.ece.mean == pytest.approx(3 / 5 * (1 / 3 - 0.3) + 2 / 5 * (0.8 - 0.5))
        assert found.brier.mean == pytest.approx((0.01 + 0.09 + 0.25 + 0.09 + 0.81) / 5)
        assert found.log_loss == pytest.approx(-sum(map(log, (0.9, 0.7, 0.5, 0.7, 0.1))) / 5)
        assert (found.pairs, found.base_rate) == (5, 0.4)

    def test_wilson_interval_by_its_formula(self):
        found = reliability([0.4] * 20 + [0.9], [1] * 6 + [0] * 14 + [1], bins=2).bins[0]
        z, share = 1.959964, 0.3
        middle, half = share + z**2 / 40, z * sqrt(share * (1 - share) / 20 + z**2 / 1600)
        expected = (middle - half) / (1 + z**2 / 20), (middle + half) / (1 + z**2 / 20)
        assert (found.share_low, found.share_high) == pytest.approx(expected, rel=1e-5)

    @pytest.mark.parametrize("bins", [1, 7, 10])
    @pytest.mark.parametrize("strategy", ["uniform", "quantile"])
    @pytest.mark.parametrize("digits", [1, 2, 12])
    def test_equals_the_references(self, strategy, bins, digits):
        """Few digits give ties, and probabilities on the edges of bins."""
        log_odds, relevant = draw(11, pairs=700)
        probabilities = expit(1.5 * log_odds + 0.5).round(digits).clip(0.001, 0.999)
        found = reliability(probabilities, relevant, bins, strategy)
        frame = found.frame()
        shares, means = calibration_curve(relevant, probabilities, n_bins=bins, strategy=strategy)
        assert frame["share_relevant"].to_numpy() == pytest.approx(shares)
        assert frame["mean_probability"].to_numpy() == pytest.approx(means)
        assert frame["pairs"].sum() == found.pairs == 700
        assert found.ece.mean == pytest.approx(np.average(np.abs(shares - means), weights=frame["pairs"]))
        assert found.brier.mean == pytest.approx(brier_score_loss(relevant, probabilities))
        expected = F.binary_cross_entropy(torch.tensor(probabilities), torch.tensor(relevant, dtype=torch.float64))
        assert found.log_loss == pytest.approx(expected.item())

    def test_bins_hold_their_mean_and_the_frame_is_them(self):
        log_odds, relevant = draw(12, pairs=500)
        frame = reliability(expit(log_odds), relevant, 5, "quantile").frame()
        assert list(frame.columns) == list(Bin._fields)
        assert frame["pairs"].tolist() == [100] * 5
        assert (frame["low"] < frame["mean_probability"]).all()
        assert (frame["mean_probability"] <= frame["high"]).all()
        assert (frame["share_low"] < frame["share_relevant"]).all()
        assert (frame["share_relevant"] < frame["share_high"]).all()

    def test_a_certain_mistake_has_a_finite_log_loss(self):
        assert 10 < reliability([0.0, 1.0], [1, 0]).log_loss < inf

    @pytest.mark.parametrize(
        ("probabilities", "options", "error", "said"),
        [
            ([0.1, 1.2], {}, DataError, "probabilities must be finite and from 0 to 1, got 1.2"),
            ([-0.1, 0.2], {}, DataError, "probabilities must be finite and from 0 to 1, got -0.1"),
            ([0.1, nan], {}, DataError, "probabilities must be finite and from 0 to 1, got nan"),
            ([0.1], {}, DataError, "got shapes"),
            ([0.1, 0.2], {"query_index": [1]}, DataError, "query_index must be one number a pair"),
            ([0.1, 0.2], {"bins": 0}, ValueError, "at least 1 bin, uniform or quantile, got 0 and 'uniform'"),
            ([0.1, 0.2], {"strategy": "even"}, ValueError, "at least 1 bin, uniform or quantile, got 10 and 'even'"),
        ],
    )
    def test_bad_input_is_refused(self, probabilities, options, error, said):
        with pytest.raises(error, match=said):
            reliability(probabilities, [0, 1], **options)


def clustered(generator, queries, pairs, temperature=1.5):
    """Probabilities that are too far apart; a query's pairs share a part of their log-odds."""
    log_odds = generator.normal(-1, 1.2, (queries, pairs)) + generator.normal(0, 1.2, (queries, 1))
    relevant = generator.random((queries, pairs)) < expit(log_odds)
    return expit(log_odds * temperature).ravel(), relevant.ravel(), np.repeat(np.arange(queries), pairs)


class TestIntervalOverQueries:
    @pytest.mark.parametrize("index", [None, [4, 4, 4]])
    def test_there_is_none_without_two_queries(self, index):
        found = reliability([0.1, 0.4, 0.8], [0, 1, 1], query_index=index)
        assert np.isnan([found.brier.low, found.brier.high, found.ece.low, found.ece.high]).all()
        assert np.isfinite([found.brier.mean, found.ece.mean]).all()

    @pytest.mark.parametrize("strategy", ["uniform", "quantile"])
    def test_equals_a_bootstrap_by_hand(self, strategy):
        """Whole queries of unequal length are drawn and both numbers counted anew from the pairs."""
        generator = np.random.default_rng(0)
        probabilities, relevant, query = clustered(generator, 60, 20)
        kept = generator.random(1200) < np.linspace(0.3, 1, 1200)
        probabilities, relevant, query = probabilities[kept], relevant[kept], query[kept]
        found = reliability(probabilities, relevant, 5, strategy, query_index=query * 7 - 100)
        edges = [b.high for b in found.bins[:-1]]
        rows = [np.flatnonzero(query == i) for i in range(60)]
        drawn = []
        for _ in range(2000):
            pairs = np.concatenate([rows[i] for i in generator.integers(0, 60, 60)])
            excess, which = probabilities[pairs] - relevant[pairs], np.digitize(probabilities[pairs], edges, right=True)
            drawn.append([(excess**2).mean(), sum(abs(excess[which == b].sum()) for b in range(5)) / len(pairs)])
        for interval, values in zip((found.brier, found.ece), np.transpose(drawn), strict=True):
            low, high = np.quantile(values, [0.025, 0.975])
            expected = 2 * interval.mean - high, 2 * interval.mean - low
            assert (interval.low, interval.high) == pytest.approx(expected, abs=0.06 * (high - low))

    def test_covers_the_truth_as_often_as_it_says(self):
        """120 dev sets of 100 queries; 95 %, give or take 3 standard errors, hold what 40,000 queries give."""
        generator = np.random.default_rng(1)
        truth = reliability(*clustered(generator, 40_000, 20)[:2])
        found = [
            reliability(probabilities, relevant, query_index=query)
            for probabilities, relevant, query in (clustered(generator, 100, 20) for _ in range(120))
        ]
        for name in ("brier", "ece"):
            inside = [getattr(f, name).low <= getattr(truth, name).mean <= getattr(f, name).high for f in found]
            assert np.mean(inside) > 0.95 - 3 * sqrt(0.95 * 0.05 / 120), name

    def test_is_wider_over_queries_than_over_pairs(self):
        probabilities, relevant, query = clustered(np.random.default_rng(2), 100, 40)
        over_queries = reliability(probabilities, relevant, query_index=query).brier
        over_pairs = reliability(probabilities, relevant, query_index=np.arange(4000)).brier
        assert over_queries.high - over_queries.low > 1.3 * (over_pairs.high - over_pairs.low)

    @pytest.mark.parametrize("seed", [0, 21, 34])
    def test_holds_the_estimate_and_stays_within_0_and_1(self, seed):
        """Calibrated probabilities: resamples have a higher ECE, with 21 and 34 even 97.5 % of them."""
        probabilities, relevant, query = clustered(np.random.default_rng(seed), 30, 10, temperature=1.0)
        found = reliability(probabilities, relevant, query_index=query)
        for value, low, high in (found.brier, found.ece):
            assert 0 <= low <= value <= high <= 1


@st.composite
def judged(draw):
    """Probabilities with many ties, at least one relevant pair and one that is not."""
    size = draw(st.integers(2, 30))
    levels = draw(st.sampled_from([3, 10, 1000]))
    relevant = draw(st.lists(st.booleans(), min_size=size, max_size=size).filter(lambda r: len(set(r)) == 2))
    steps = draw(st.lists(st.integers(0, levels), min_size=size, max_size=size))
    return np.asarray(steps) / levels, np.asarray(relevant)


class TestThreshold:
    PROBABILITIES = (0.9, 0.8, 0.8, 0.6, 0.5, 0.3)
    RELEVANT = (1, 1, 0, 1, 0, 0)

    @pytest.mark.parametrize(
        ("precision", "expected"),
        [
            (1.0, (0.9, 1.0, 1 / 3, 1)),
            (0.75, (0.6, 3 / 4, 1.0, 4)),
            (0.7, (0.6, 3 / 4, 1.0, 4)),
            (0.6, (0.5, 3 / 5, 1.0, 5)),
            (0.1, (0.3, 3 / 6, 1.0, 6)),
        ],
    )
    def test_hand_worked(self, precision, expected):
        """Above 0.9: 1 of 1; 0.8, a tie: 2 of 3; 0.6: 3 of 4; 0.5: 3 of 5; 0.3: 3 of 6."""
        found = threshold_for_precision(self.PROBABILITIES, self.RELEVANT, precision)
        assert isinstance(found, Threshold)
        assert found == pytest.approx(expected)

    def test_goes_below_a_dip_in_precision(self):
        """1 of 1, 1 of 2, 2 of 3: two thirds are had again further down."""
        assert threshold_for_precision([0.9, 0.8, 0.7], [1, 0, 1], 0.6).threshold == 0.7

    @given(judged(), st.integers(1, 30), st.integers(1, 30))
    def test_by_brute_force(self, case, a, b):
        probabilities, relevant = case
        wanted = min(a, b) / max(a, b)
        allowed = [t for t in set(probabilities.tolist()) if relevant[probabilities >= t].mean() >= wanted]
        if not allowed:
            with pytest.raises(DataError, match="the best that can be had is"):
                threshold_for_precision(probabilities, relevant, wanted)
            return
        above = probabilities >= min(allowed)
        expected = min(allowed), relevant[above].mean(), relevant[above].sum() / relevant.sum(), above.sum()
        assert threshold_for_precision(probabilities, relevant, wanted) == pytest.approx(expected, abs=1e-12)

    @given(judged())
    def test_every_point_of_scikit_learns_curve_is_reached(self, case):
        """No point with a better or equal precision has more recall."""
        precisions, recalls = (values[:-1] for values in precision_recall_curve(*case[::-1])[:2])
        for precision in set(precisions[precisions > 0]):
            found = threshold_for_precision(*case, precision)
            assert found.precision >= precision
            assert found.recall == recalls[precisions >= precision].max()

    def test_says_the_best_that_can_be_had(self):
        with pytest.raises(DataError, match=r"precision of 0.9; the best that can be had is 0.6667"):
            threshold_for_precision([0.9, 0.9, 0.9, 0.1], [1, 1, 0, 0], 0.9)

    @pytest.mark.parametrize("precision", [0, -0.1, 1.01, nan])
    def test_a_precision_that_is_none_is_refused(self, precision):
        with pytest.raises(ValueError, match="precision must be above 0 and at most 1, got"):
            threshold_for_precision([0.1, 0.9], [0, 1], precision)

    def test_no_relevant_pair_is_refused(self):
        with pytest.raises(DataError, match="1 for some pairs and 0 for the others"):
            threshold_for_precision([0.1, 0.9], [0, 0], 0.5)
