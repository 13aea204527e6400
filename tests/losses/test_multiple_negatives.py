import math

import pytest
import torch
from peer_losses import (
    Given,
    assert_blind_to_order,
    assert_gradient_is_that_of_differences,
    assert_same,
    by_list,
    random_lists,
    value_and_gradient,
)
from sentence_transformers.cross_encoder.losses import MultipleNegativesRankingLoss
from torch import nn

from crossrank.losses.multiple_negatives import MultipleNegatives


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("temperature", "sigmoid"), [(0.1, True), (1.0, False), (0.25, False)])
def test_value_and_gradient_equal_sentence_transformers(seed, temperature, sigmoid):
    """Asked one positive at a time, so that it finds no negatives in the batch."""
    logits, labels, query_index = random_lists(seed, "binary")
    (_, lists), own = by_list(labels, query_index)
    rows = [
        [place, *(other for other, y in zip(places, values, strict=True) if not y)]
        for places, values in zip(lists, own, strict=True)
        for place, label in zip(places, values, strict=True)
        if label
    ]
    assert len(set(map(len, rows))) > 1

    def theirs(z):
        loss = MultipleNegativesRankingLoss(Given(z), None, 1 / temperature, nn.Sigmoid() if sigmoid else None)
        return torch.stack([loss([["q"], *([place] for place in row)], None) for row in rows]).mean()

    assert_same(lambda z: MultipleNegatives(temperature, sigmoid)(z, labels, query_index), theirs, logits)


def test_a_worked_example():
    """Two positives share a negative and do not see each other; the list without a positive counts nowhere."""
    logits = torch.tensor([1.0, 2.0, 0.0, 9.0])
    value = MultipleNegatives()(logits, torch.tensor([1.0, 1.0, 0.0, 0.0]), torch.tensor([0, 0, 0, 1]))
    assert value.item() == pytest.approx((math.log(1 + math.exp(-1)) + math.log(1 + math.exp(-2))) / 2)


def test_a_positive_without_negatives_counts_as_zero():
    value = MultipleNegatives()(torch.tensor([0.0, 0.0, 5.0]), torch.tensor([1.0, 0.0, 1.0]), torch.tensor([0, 0, 1]))
    assert value.item() == pytest.approx(math.log(2) / 2)


def test_without_a_positive_there_is_no_loss():
    value, gradient = value_and_gradient(
        lambda z: MultipleNegatives()(z, torch.zeros(3), torch.tensor([0, 0, 1])), torch.randn(3)
    )
    assert (value, gradient.abs().max()) == (0, 0)


@pytest.mark.parametrize("sigmoid", [False, True])
def test_order_and_gradient(sigmoid):
    loss = MultipleNegatives(0.5, sigmoid)
    lists = random_lists(3, "binary", ties=True)
    assert_blind_to_order(loss, *lists)
    assert_gradient_is_that_of_differences(loss, *lists)


def test_extreme_logits_stay_finite():
    value = MultipleNegatives()(torch.tensor([-1e4, 1e4]), torch.tensor([1.0, 0.0]), torch.tensor([0, 0]))
    assert value.item() == pytest.approx(2e4)


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_a_temperature_that_is_not_positive_is_refused(temperature):
    with pytest.raises(ValueError, match=f"temperature divides the logits and must be above 0, got {temperature}"):
        MultipleNegatives(temperature)
