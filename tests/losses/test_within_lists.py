import math

import pytest
import torch
from peer_losses import random_lists

from crossrank.losses.within_lists import (
    at_least_float32,
    before,
    masked_logsumexp,
    mean_over_lists,
    mean_where,
    ranks,
    same_list,
)

LISTS = torch.tensor([1, 0, 1, 1, 0])


def test_pairs_are_of_one_list_when_they_share_a_question():
    assert same_list(LISTS)[0].tolist() == [True, False, True, True, False]


def test_places_count_from_the_highest_logit_of_the_own_list():
    assert ranks(torch.tensor([0.5, 9.0, 3.0, -1.0, 9.5]), torch.zeros(5), same_list(LISTS)).tolist() == [2, 2, 1, 3, 1]


def test_of_equal_logits_the_lower_label_stands_first_and_then_the_first_of_the_batch():
    logits, labels = torch.zeros(4), torch.tensor([2.0, 1.0, 1.0, 3.0])
    assert ranks(logits, labels, same_list(torch.zeros(4))).tolist() == [3, 1, 2, 4]


@pytest.mark.parametrize("seed", range(3))
def test_places_of_a_list_are_a_permutation(seed):
    logits, labels, query_index = random_lists(seed, ties=True)
    places = ranks(logits, labels, same_list(query_index))
    for question in query_index.unique():
        own = query_index == question
        assert sorted(places[own].tolist()) == list(range(1, int(own.sum()) + 1))
        assert logits[own][places[own].argsort()].diff().le(0).all()


def test_before_orders_by_value_alone_where_nothing_is_given_for_ties():
    assert before(torch.tensor([1.0, 2.0, 1.0]), same_list(torch.zeros(3))).sum(1).tolist() == [1, 0, 2]


def test_sums_and_means():
    values = torch.tensor([0.0, 1.0, 0.0, 0.0, 2.0])
    same = same_list(LISTS)
    torch.testing.assert_close(masked_logsumexp(values, same)[0], torch.tensor(math.log(3)))
    doubled = masked_logsumexp(values, same, torch.full((5, 5), math.log(2)))
    torch.testing.assert_close(doubled[0], torch.tensor(math.log(6)))
    assert mean_over_lists(values, same).item() == 1.5
    assert mean_where(values, values > 0).item() == 1.5
    assert mean_where(values, values > 9).item() == 0


def test_the_number_of_lists_is_exact_where_their_shares_do_not_add_up():
    query_index = torch.arange(300) // 3
    assert mean_over_lists(torch.ones(300), same_list(query_index)).item() == 3


def test_precision_is_never_lowered():
    dtypes = (torch.bfloat16, torch.uint8, torch.float32, torch.float64)
    assert [at_least_float32(torch.ones(1, dtype=dtype)).dtype for dtype in dtypes] == [torch.float32] * 3 + [
        torch.float64
    ]
