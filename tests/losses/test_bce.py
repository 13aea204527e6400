import math

import pytest
import torch
import torch.nn.functional as F

from crossrank.losses.bce import WeightedBCE

LOGITS = torch.tensor([2.0, -1.0, 0.5, -3.0])
LABELS = torch.tensor([1.0, 1.0, 0.0, 0.0])
QUESTIONS = torch.tensor([0, 0, 1, 1])


def test_the_loss_is_its_formula():
    terms = []
    for z, y in zip(LOGITS.tolist(), LABELS.tolist(), strict=True):
        s = 1 / (1 + math.exp(-z))
        terms.append(-(5 * y * math.log(s) + (1 - y) * math.log(1 - s)))
    assert WeightedBCE(5.0)(LOGITS, LABELS, QUESTIONS).item() == pytest.approx(sum(terms) / 4, abs=1e-6)


@pytest.mark.parametrize("weight", [1.0, 5.0, 0.5])
def test_value_and_gradient_equal_torch(weight):
    ours, theirs = (LOGITS.clone().requires_grad_() for _ in range(2))
    loss = WeightedBCE(weight)(ours, LABELS, QUESTIONS)
    expected = F.binary_cross_entropy_with_logits(theirs, LABELS, pos_weight=torch.tensor(weight))
    assert torch.equal(loss, expected)
    loss.backward()
    expected.backward()
    assert torch.equal(ours.grad, theirs.grad)


def test_an_untrained_model_starts_at_the_recipes_expected_loss():
    """ln 2 * (5 p + 1 - p) for 99,000 positives in the recipe's 578,402 pairs."""
    labels = (torch.arange(578402) < 99000).float()
    assert WeightedBCE(5.0)(torch.zeros(578402), labels, labels.long()).item() == pytest.approx(1.168, abs=5e-4)


def test_the_mean_is_over_pairs_and_not_over_weights():
    one = WeightedBCE(5.0)(torch.zeros(1), torch.ones(1), torch.zeros(1))
    assert one.item() == pytest.approx(5 * math.log(2))


def test_half_precision_logits_are_reckoned_in_float32_and_integer_labels_are_taken():
    loss = WeightedBCE(5.0)(LOGITS.to(torch.bfloat16), LABELS.to(torch.uint8), QUESTIONS)
    assert loss.dtype == torch.float32
    assert loss == WeightedBCE(5.0)(LOGITS, LABELS, QUESTIONS)  # these logits are exact in bfloat16


def test_extreme_logits_stay_finite():
    loss = WeightedBCE(5.0)(torch.tensor([-1e4, 1e4]), torch.tensor([1.0, 0.0]), QUESTIONS[:2])
    assert loss.item() == pytest.approx((5e4 + 1e4) / 2)


def test_the_grouping_is_ignored():
    loss = WeightedBCE(5.0)
    assert torch.equal(loss(LOGITS, LABELS, QUESTIONS), loss(LOGITS, LABELS, QUESTIONS.flip(0)))


def test_the_weight_moves_with_the_module_and_stays_out_of_checkpoints():
    loss = WeightedBCE(5.0)
    assert loss.state_dict() == {}
    assert not list(loss.parameters())
    assert loss.to("meta").pos_weight.device.type == "meta"


@pytest.mark.parametrize("weight", [0.0, -1.0])
def test_a_weight_that_is_not_positive_is_refused(weight):
    with pytest.raises(ValueError, match="must be above 0"):
        WeightedBCE(weight)


def test_smoothing_draws_labels_towards_one_half_as_keras_does():
    smoothed = torch.tensor([0.95, 0.95, 0.05, 0.05])
    expected = F.binary_cross_entropy_with_logits(LOGITS, smoothed, pos_weight=torch.tensor(5.0))
    torch.testing.assert_close(WeightedBCE(5.0, label_smoothing=0.1)(LOGITS, LABELS, QUESTIONS), expected)


def test_a_smoothed_label_has_a_logit_that_is_best():
    """ln(0.95 / 0.05): beyond it the loss rises again."""
    best = torch.tensor([math.log(19)], requires_grad=True)
    WeightedBCE(label_smoothing=0.1)(best, torch.ones(1), torch.zeros(1)).backward()
    assert best.grad.abs() < 1e-6


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_a_smoothing_that_is_no_share_is_refused(smoothing):
    with pytest.raises(ValueError, match=f"from 0 to below 1, got {smoothing}"):
        WeightedBCE(label_smoothing=smoothing)


def test_without_smoothing_it_falls_when_a_positive_rises_and_when_a_negative_falls():
    value = WeightedBCE(5.0)(LOGITS, LABELS, QUESTIONS)
    for pair, change in ((0, 0.5), (1, 0.5), (2, -0.5), (3, -0.5)):
        better = LOGITS.clone()
        better[pair] += change
        assert WeightedBCE(5.0)(better, LABELS, QUESTIONS) < value
