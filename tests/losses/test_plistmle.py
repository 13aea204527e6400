import math

import pytest
import torch
from peer_losses import (
    Given,
    assert_blind_to_order,
    assert_equals_the_peers_order_loss,
    assert_gradient_is_that_of_differences,
    assert_same,
    by_list,
    random_lists,
    value_and_gradient,
)
from sentence_transformers.cross_encoder.losses import PListMLELoss
from test_listmle import LABELS, LOGITS, ONE_LIST, orders_of_ties

from crossrank.losses.plistmle import PListMLE


@pytest.mark.parametrize("respect_input_order", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_value_and_gradient_equal_sentence_transformers(seed, respect_input_order):
    assert_equals_the_peers_order_loss(PListMLE, PListMLELoss, seed, respect_input_order)


def test_long_lists_equal_the_peers_that_rescales_them_too():
    logits, labels, query_index = random_lists(0, "distinct", lengths=(200, 3))
    inputs, own = by_list(labels, query_index, labels.argsort(descending=True))
    assert_same(lambda z: PListMLE()(z, labels, query_index), lambda z: PListMLELoss(Given(z))(inputs, own), logits)


def test_equal_labels_have_no_order():
    orders = orders_of_ties(LABELS)
    weights = torch.tensor([15.0, 7, 3, 1, 0]) / 26
    left = torch.stack([LOGITS[list(order)].exp().flip(0).cumsum(0).flip(0) for order in orders])
    drawn = torch.stack([LOGITS[list(order)] for order in orders])
    ours = PListMLE()(LOGITS, LABELS, ONE_LIST)
    torch.testing.assert_close(ours, (weights * (left.mean(0).log() - drawn.mean(0))).sum())
    peer = torch.stack([PListMLELoss(Given(LOGITS))([["q"], [list(order)]], [LABELS[list(order)]]) for order in orders])
    assert peer.mean() < ours < peer.mean() + 0.1


def test_a_worked_example():
    """Three documents: weights 3/4, 1/4, 0."""
    logits = torch.tensor([0.0, math.log(2), math.log(3)])
    value = PListMLE()(logits, torch.tensor([2.0, 1.0, 0.0]), torch.zeros(3))
    assert value.item() == pytest.approx(0.75 * math.log(6) + 0.25 * math.log(5 / 2))


@pytest.mark.parametrize("kind", ["graded", "distinct"])
def test_order_and_gradient(kind):
    lists = random_lists(3, kind, ties=True)
    assert_blind_to_order(PListMLE(), *lists)
    assert_gradient_is_that_of_differences(PListMLE(), *lists)


def test_a_list_of_one_has_no_loss():
    value, gradient = value_and_gradient(lambda z: PListMLE()(z, torch.ones(1), torch.zeros(1)), torch.randn(1))
    assert (value, gradient) == (0, 0)
