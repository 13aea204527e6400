import pytest
import torch
from peer_losses import (
    Given,
    assert_blind_to_order,
    assert_gradient_is_that_of_differences,
    assert_same,
    random_lists,
    value_and_gradient,
)
from sentence_transformers.cross_encoder.losses import MarginMSELoss

from crossrank.losses.margin_mse import MarginMSE


@pytest.mark.parametrize("seed", range(5))
def test_value_and_gradient_equal_sentence_transformers(seed):
    """It wants the same number of negatives everywhere, and the positive first."""
    logits, labels, query_index = random_lists(seed, "scores", lengths=(4, 4, 4))
    places = torch.arange(12).view(3, 4)
    rows = torch.stack([own[labels[own].argsort(descending=True)] for own in places])
    inputs = [[0, 1, 2], *rows.T.tolist()]
    scores = list(labels[rows])
    assert_same(
        lambda z: MarginMSE()(z, labels, query_index), lambda z: MarginMSELoss(Given(z))(inputs, scores), logits
    )


def test_a_worked_example_with_a_shared_best_and_ragged_lists():
    """Lists (5, 5, 2) and (1, 0): of the pairs of equal labels none counts, and the mean is over 2 + 1 pairs."""
    logits = torch.tensor([1.0, 0.0, -1.0, 3.0, 0.5])
    labels = torch.tensor([5.0, 5.0, 2.0, 1.0, 0.0])
    value = MarginMSE()(logits, labels, torch.tensor([0, 0, 0, 1, 1]))
    assert value.item() == pytest.approx(((2 - 3) ** 2 + (1 - 3) ** 2 + (2.5 - 1) ** 2) / 3)


def test_only_differences_of_labels_and_of_logits_count():
    logits, labels, query_index = random_lists(2, "scores")
    shift = torch.randn(6)[query_index]
    value = MarginMSE()(logits, labels, query_index)
    torch.testing.assert_close(MarginMSE()(logits + shift, labels - 3, query_index), value)


@pytest.mark.parametrize("kind", ["scores", "graded"])
def test_order_and_gradient(kind):
    lists = random_lists(3, kind)
    assert_blind_to_order(MarginMSE(), *lists)
    assert_gradient_is_that_of_differences(MarginMSE(), *lists)


def test_lists_whose_labels_are_equal_have_no_loss_and_a_gradient_of_zero():
    logits = torch.randn(4)
    value, gradient = value_and_gradient(lambda z: MarginMSE()(z, torch.ones(4), torch.tensor([0, 0, 0, 1])), logits)
    assert (value, gradient.abs().max()) == (0, 0)
