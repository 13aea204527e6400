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
from sentence_transformers.cross_encoder.losses import ListNetLoss

from crossrank.losses.listnet import ListNet


@pytest.mark.parametrize("kind", ["graded", "binary", "scores"])
@pytest.mark.parametrize("seed", range(3))
def test_value_and_gradient_equal_sentence_transformers(seed, kind):
    logits, labels, query_index = random_lists(seed, kind, ties=True)
    inputs, own = by_list(labels, query_index)
    assert_same(lambda z: ListNet()(z, labels, query_index), lambda z: ListNetLoss(Given(z))(inputs, own), logits)


def test_a_worked_example():
    """Labels (1, 0) at temperature 0.5 are wanted as e^2 : 1; logits (ln 3, 0) are 3 : 1; the list of one gives 0."""
    logits, labels = torch.tensor([math.log(3), 0.0, 4.0]), torch.tensor([1.0, 0.0, 1.0])
    share = math.exp(2) / (math.exp(2) + 1)
    wanted = -(share * math.log(3 / 4) + (1 - share) * math.log(1 / 4)) / 2
    assert ListNet(0.5)(logits, labels, torch.tensor([0, 0, 1])).item() == pytest.approx(wanted)


def test_order_and_gradient():
    lists = random_lists(3, ties=True)
    assert_blind_to_order(ListNet(), *lists)
    assert_gradient_is_that_of_differences(ListNet(0.3), *lists)


def test_a_list_of_one_has_no_loss():
    value, gradient = value_and_gradient(lambda z: ListNet()(z, torch.ones(1), torch.zeros(1)), torch.randn(1))
    assert (value, gradient) == (0, 0)


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_a_temperature_that_is_not_positive_is_refused(temperature):
    with pytest.raises(ValueError, match=f"temperature divides the labels and must be above 0, got {temperature}"):
        ListNet(temperature)
