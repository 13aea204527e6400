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
from sentence_transformers.cross_encoder import losses

from crossrank.losses.lambda_loss import LambdaLoss
from crossrank.losses.ranknet import RankNet

SCHEMES = {
    "none": losses.NoWeightingScheme(),
    "ndcg1": losses.NDCGLoss1Scheme(),
    "ndcg2": losses.NDCGLoss2Scheme(),
    "lambdarank": losses.LambdaRankScheme(),
    "ndcg2++": losses.NDCGLoss2PPScheme(),
}
SETTINGS = [{}, {"k": 2}, {"sigma": 0.5, "eps": 0.1}, {"reduction_log": "natural", "k": 3, "sigma": 2.0}]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("weighting", SCHEMES)
@pytest.mark.parametrize("kind", ["graded", "binary", "distinct"])
def test_value_and_gradient_equal_sentence_transformers(kind, weighting, settings):
    logits, labels, query_index = random_lists(0, kind)
    inputs, own = by_list(labels, query_index)
    assert_same(
        lambda z: LambdaLoss(weighting, **settings)(z, labels, query_index),
        lambda z: losses.LambdaLoss(Given(z), SCHEMES[weighting], **settings)(inputs, own),
        logits,
    )


@pytest.mark.parametrize("weighting", SCHEMES)
def test_of_equal_logits_the_lower_label_stands_first_which_the_peer_leaves_to_the_sort(weighting):
    """Its sort keeps what is equal in the order of the input, which here is that of rising labels."""
    logits, labels, query_index = random_lists(1, ties=True, lengths=(9, 8))
    assert len(set(logits.tolist())) < 10
    inputs, own = by_list(labels, query_index, labels.argsort(stable=True))
    theirs = losses.LambdaLoss(Given(logits), SCHEMES[weighting])(inputs, own)
    torch.testing.assert_close(LambdaLoss(weighting)(logits, labels, query_index), theirs)


def test_mu_is_the_share_of_the_second_bound():
    logits, labels, query_index = random_lists(2)
    inputs, own = by_list(labels, query_index)
    theirs = losses.LambdaLoss(Given(logits), losses.NDCGLoss2PPScheme(mu=3.0))(inputs, own)
    torch.testing.assert_close(LambdaLoss(mu=3.0)(logits, labels, query_index), theirs)


def test_a_worked_example_of_each_weighting():
    """The positive stands second of three: places 1, 2, 3 have 1/D = 1, 0.6309, 0.5; its gain is 1."""
    logits, labels, one = torch.tensor([0.0, 1.0, -1.0]), torch.tensor([1.0, 0.0, 0.0]), torch.zeros(3)
    above, below = math.log2(1 + math.exp(1)), math.log2(1 + math.exp(-1))
    second, third = 1 / math.log2(3), 0.5
    wanted = {
        "none": (above + below) / 2,
        "ndcg1": second * (above + below + 1) / 9,  # with itself: log2(2)
        "ndcg2": (1 - second) * (above + below) / 2,  # each is one place away
        "lambdarank": ((1 - second) * above + (second - third) * below) / 2,
    }
    wanted["ndcg2++"] = 10 * wanted["ndcg2"] + wanted["lambdarank"]
    for weighting, value in wanted.items():
        assert LambdaLoss(weighting)(logits, labels, one).item() == pytest.approx(value, rel=1e-5)


def test_the_pairs_of_lambdarank_are_weighted_by_the_ndcg_that_their_exchange_changes():
    logits, labels, one = torch.tensor([2.0, 1.0, 0.0, -1.0]), torch.tensor([0.0, 2.0, 1.0, 0.0]), torch.zeros(4)

    def ndcg(order):
        ideal = 3 + 1 / math.log2(3)
        return sum((2 ** labels[i].item() - 1) / math.log2(2 + place) for place, i in enumerate(order)) / ideal

    total, pairs = 0.0, 0
    for i in range(4):
        for j in range(4):
            if labels[i] > labels[j]:
                order = [0, 1, 2, 3]
                order[i], order[j] = order[j], order[i]
                change = abs(ndcg(order) - ndcg([0, 1, 2, 3]))
                total += change * math.log2(1 + math.exp(logits[j] - logits[i]))
                pairs += 1
    assert LambdaLoss("lambdarank")(logits, labels, one).item() == pytest.approx(total / pairs, rel=1e-5)


def test_without_weights_it_is_ranknet():
    lists = random_lists(5)
    assert torch.equal(LambdaLoss("none", k=2)(*lists), RankNet(k=2)(*lists))


@pytest.mark.parametrize("weighting", SCHEMES)
def test_order_and_gradient(weighting):
    logits, labels, query_index = random_lists(3, ties=True)
    assert_blind_to_order(LambdaLoss(weighting, k=3), logits, labels, query_index)
    assert_gradient_is_that_of_differences(LambdaLoss(weighting), random_lists(3)[0], labels, query_index)


@pytest.mark.parametrize("weighting", SCHEMES)
def test_lists_without_a_positive_have_no_loss_and_a_gradient_of_zero(weighting):
    value, gradient = value_and_gradient(
        lambda z: LambdaLoss(weighting)(z, torch.zeros(4), torch.tensor([0, 0, 0, 1])), torch.randn(4)
    )
    assert (value, gradient.abs().max()) == (0, 0)


@pytest.mark.parametrize("settings", [{"sigma": 0.0}, {"k": 0}, {"mu": -1.0}, {"eps": 0.0}], ids=str)
def test_what_makes_no_sense_is_refused(settings):
    with pytest.raises(ValueError, match=rf"got .*{next(iter(settings.values()))}"):
        LambdaLoss(**settings)
