import math
from types import SimpleNamespace

import numpy as np
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
from sentence_transformers.cross_encoder.losses import CachedMultipleNegativesRankingLoss, MultipleNegativesRankingLoss
from torch import nn

from crossrank.data.in_batch_negatives import InBatchNegatives
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


class Table(Given):
    """Stands in for the model: has a logit for each pair of a question and a document, which are numbers."""

    def preprocess(self, pairs, prompt=None, task=None):
        return {"places": torch.tensor([question * DOCUMENTS + document for question, document in pairs])}


DOCUMENTS = 24  # of 8 questions with an answer and two negatives each, which come one after the other
OWN = torch.arange(DOCUMENTS).view(8, 3)


def with_others(count, seed):
    """Return what is drawn for each question, and labels, questions and places of all its logits."""
    rows = SimpleNamespace(
        at=lambda rows, epoch: (rows // 3, rows, (rows % 3 == 0).astype(np.uint8)),
        signatures=np.arange(DOCUMENTS * 128, dtype=np.uint32).reshape(DOCUMENTS, 128),
    )
    whole = SimpleNamespace(rows=rows, rows_of=lambda visits: (np.arange(DOCUMENTS), np.arange(DOCUMENTS) // 3))
    visit, documents = InBatchNegatives(count, seed, whole).draw(np.arange(8), 0, 0)
    others = torch.from_numpy(documents).view(8, count)
    assert visit.tolist() == np.repeat(np.arange(8), count).tolist()
    shown = torch.cat([OWN, others], dim=1)
    labels = torch.zeros(shown.shape).index_fill_(1, torch.tensor([0]), 1.0)
    query_index = torch.arange(8)[:, None].expand_as(shown)
    return others, labels.flatten(), query_index.flatten(), (query_index * DOCUMENTS + shown).flatten()


@pytest.mark.parametrize("peer", ["whole", "cached"])
@pytest.mark.parametrize(("count", "temperature", "sigmoid"), [(4, 0.1, True), (4, 1.0, False), (21, 0.1, True)])
def test_with_in_batch_negatives_it_is_sentence_transformers_loss(count, temperature, sigmoid, peer):
    """All 21 others are what the peer takes by itself; 4 of them it is told."""
    table = torch.randn(8 * DOCUMENTS, generator=torch.Generator().manual_seed(count)) * 2
    others, labels, query_index, places = with_others(count, 3)

    def theirs(z):
        kind = {"whole": MultipleNegativesRankingLoss, "cached": CachedMultipleNegativesRankingLoss}[peer]
        options = {"mini_batch_size": 5} if peer == "cached" else {}
        loss = kind(Table(z), 4 if count == 4 else None, 1 / temperature, nn.Sigmoid() if sigmoid else None, **options)
        if count == 4:
            loss.get_in_batch_negatives = lambda *_: iter(others.T.tolist())
        return loss([list(range(8)), *OWN.T.tolist()], None)

    def by_backward(z):
        leaf = z.clone().requires_grad_()
        value = theirs(leaf)
        value.backward()
        return value.detach(), leaf.grad

    def ours(z):
        return MultipleNegatives(temperature, sigmoid)(z[places], labels, query_index)

    for mine, other in zip(value_and_gradient(ours, table), by_backward(table), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)
    assert np.count_nonzero(value_and_gradient(ours, table)[1]) == len(places)


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
