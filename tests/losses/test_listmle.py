import itertools
import math

import pytest
import torch
from peer_losses import (
    Given,
    assert_blind_to_order,
    assert_equals_the_peers_order_loss,
    assert_gradient_is_that_of_differences,
    random_lists,
)
from sentence_transformers.cross_encoder.losses import ListMLELoss

from crossrank.losses.listmle import ListMLE

LOGITS, LABELS = torch.tensor([0.3, -1.2, 2.0, 0.7, -0.4]), torch.tensor([0.0, 2.0, 0.0, 2.0, 0.0])
ONE_LIST = torch.zeros(5, dtype=torch.long)


@pytest.mark.parametrize("respect_input_order", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_value_and_gradient_equal_sentence_transformers(seed, respect_input_order):
    assert_equals_the_peers_order_loss(ListMLE, ListMLELoss, seed, respect_input_order)


def orders_of_ties(labels):
    """Return every order that the labels allow."""
    orders = itertools.permutations(range(len(labels)))
    return [order for order in orders if all(labels[a] >= labels[b] for a, b in itertools.pairwise(order))]


def test_equal_labels_have_no_order_and_the_mean_of_what_is_left_is_taken():
    """Efron's sums are means over all orders, so that ours is above the mean over orders; it is below Breslow's."""
    orders = orders_of_ties(LABELS)
    assert len(orders) == 12
    left = torch.stack([LOGITS[list(order)].exp().flip(0).cumsum(0).flip(0) for order in orders])
    ours = ListMLE()(LOGITS, LABELS, ONE_LIST)
    torch.testing.assert_close(ours, (left.mean(0).log()).sum() - LOGITS.sum())
    peer = torch.stack([ListMLELoss(Given(LOGITS))([["q"], [list(order)]], [LABELS[list(order)]]) for order in orders])
    everything, worst = LOGITS.exp().sum(), LOGITS[LABELS == 0].exp().sum()
    breslow = 2 * everything.log() + 3 * worst.log() - LOGITS.sum()
    assert peer.mean() < ours < breslow
    assert peer.max() - peer.min() > 3  # what the order of the input makes of it


def test_where_equal_labels_score_alike_their_order_means_nothing_to_the_peer_either():
    logits = torch.tensor([1.0, 1.0, 1.0, -2.0, -2.0])
    labels = torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0])
    order = [3, 4, 0, 1, 2]
    peer = ListMLELoss(Given(logits))([["q"], [order]], [labels[order]])
    torch.testing.assert_close(ListMLE()(logits, labels, ONE_LIST), peer)


def test_a_worked_example():
    """(2, 1, 0) scored (0, ln 2, ln 3): log 6 - 0, log 5 - log 2, 0; the list of one gives 0."""
    logits = torch.tensor([0.0, math.log(2), math.log(3), 7.0])
    value = ListMLE()(logits, torch.tensor([2.0, 1.0, 0.0, 1.0]), torch.tensor([0, 0, 0, 1]))
    assert value.item() == pytest.approx((math.log(6) + math.log(5 / 2)) / 2)


@pytest.mark.parametrize("kind", ["graded", "distinct"])
def test_order_and_gradient(kind):
    lists = random_lists(3, kind, ties=True)
    assert_blind_to_order(ListMLE(), *lists)
    assert_gradient_is_that_of_differences(ListMLE(), *lists)


def test_extreme_logits_stay_finite():
    value = ListMLE()(torch.tensor([-1e4, 1e4]), torch.tensor([1.0, 0.0]), torch.tensor([0, 0]))
    assert value.item() == pytest.approx(2e4)
