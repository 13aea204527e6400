import torch
from peer_losses import Given, assert_gradient_is_that_of_differences, assert_same, random_lists
from sentence_transformers.cross_encoder.losses import MSELoss

from crossrank.losses.mse import MSE


def test_value_and_gradient_equal_sentence_transformers():
    logits, labels, query_index = random_lists(0, "scores")
    inputs = [query_index.tolist(), list(range(len(logits)))]
    assert_same(lambda z: MSE()(z, labels, query_index), lambda z: MSELoss(Given(z))(inputs, labels), logits)


def test_a_worked_example():
    value = MSE()(torch.tensor([1.0, -2.0]), torch.tensor([3.0, -1.0]), torch.tensor([0, 1]))
    assert value.item() == (4 + 1) / 2


def test_the_grouping_is_ignored_and_integer_labels_are_taken():
    logits, labels, query_index = random_lists(1)
    value = MSE()(logits, labels, query_index)
    assert MSE()(logits, labels.to(torch.uint8), query_index.flip(0)) == value
    assert_gradient_is_that_of_differences(MSE(), logits, labels, query_index)
