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
from sentence_transformers.cross_encoder.losses import RankNetLoss

from crossrank.losses.ranknet import RankNet


@pytest.mark.parametrize("settings", [{}, {"k": 2}, {"sigma": 0.5}, {"reduction_log": "natural", "k": 1, "sigma": 2.0}])
@pytest.mark.parametrize("kind", ["graded", "binary", "scores"])
def test_value_and_gradient_equal_sentence_transformers(kind, settings):
    logits, labels, query_index = random_lists(0, kind)
    inputs, own = by_list(labels, query_index)
    assert_same(
        lambda z: RankNet(**settings)(z, labels, query_index),
        lambda z: RankNetLoss(Given(z), **settings)(inputs, own),
        logits,
    )


def test_a_worked_example():
    """Two pairs differ in their labels, by logits 1 and -2 apart."""
    value = RankNet()(torch.tensor([1.0, 0.0, 3.0]), torch.tensor([1.0, 0.0, 0.0]), torch.zeros(3))
    assert value.item() == pytest.approx((math.log2(1 + math.exp(-1)) + math.log2(1 + math.exp(2))) / 2)


def test_within_the_first_place_only_pairs_of_the_leader_count():
    value = RankNet(k=1)(torch.tensor([1.0, 0.0, 3.0]), torch.tensor([1.0, 0.0, 0.0]), torch.zeros(3))
    assert value.item() == pytest.approx(math.log2(1 + math.exp(2)))


@pytest.mark.parametrize("k", [None, 2])
def test_order_and_gradient(k):
    logits, labels, query_index = random_lists(3, ties=True)
    assert_blind_to_order(RankNet(k=k), logits, labels, query_index)
    assert_gradient_is_that_of_differences(RankNet(k=k), random_lists(3)[0], labels, query_index)


def test_it_falls_when_a_better_document_rises_and_when_a_worse_one_falls():
    logits, labels, query_index = random_lists(4, "scores", lengths=(5,))
    value = RankNet()(logits, labels, query_index)
    for place, change in ((labels.argmax(), 0.5), (labels.argmin(), -0.5)):
        better = logits.clone()
        better[place] += change
        assert RankNet()(better, labels, query_index) < value


def test_a_strongly_misordered_pair_stays_finite_and_keeps_its_gradient():
    loss, labels = RankNet(reduction_log="natural"), torch.tensor([1.0, 0.0])
    value, gradient = value_and_gradient(lambda z: loss(z, labels, torch.zeros(2)), torch.tensor([-1e4, 1e4]))
    assert value.item() == 2e4
    assert gradient.tolist() == [-1, 1]


def test_lists_whose_labels_are_equal_have_no_loss_and_a_gradient_of_zero():
    value, gradient = value_and_gradient(
        lambda z: RankNet()(z, torch.ones(4), torch.tensor([0, 0, 0, 1])), torch.randn(4)
    )
    assert (value, gradient.abs().max()) == (0, 0)


@pytest.mark.parametrize(("settings", "message"), [({"sigma": 0.0}, "must be above 0, got 0"), ({"k": 0}, "got 0")])
def test_what_makes_no_sense_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        RankNet(**settings)
