"""Averages worked by hand."""

import pytest
import torch

from crossrank.training.averages import Ema, LastEvaluations, WeightAverage

EVALUATED = [4, 8, 12, 13]


def _module(value=0.0):
    module = torch.nn.Linear(2, 1)
    _set(module, value)
    return module


def _set(module, value):
    torch.nn.init.constant_(module.weight, value)
    torch.nn.init.constant_(module.bias, -value)


def _averaged(rule, values):
    """Return the average of the weights 1, 2, ... after steps 1, 2, ..."""
    module, average = _module(), WeightAverage()
    for step, value in enumerate(values, start=1):
        _set(module, value)
        share = rule.share(average.updates, step, EVALUATED)
        if share is not None:
            average.update(module, share)
    return average


def test_an_exponential_average_by_hand():
    """The decay is 2/11 after the first weights, then 3/12, then 4/13: more than 0.3 only there."""
    first = 1.0
    second = 2 / 11 * first + 9 / 11 * 2
    third = 3 / 12 * second + 9 / 12 * 4
    fourth = 0.3 * third + 0.7 * 8
    average = _averaged(Ema(0.3), [1.0, 2.0, 4.0, 8.0])
    torch.testing.assert_close(average.weights["weight"], torch.full((1, 2), fourth), rtol=1e-6, atol=0)
    torch.testing.assert_close(average.weights["bias"], torch.full((1,), -fourth), rtol=1e-6, atol=0)
    assert average.updates == 4
    assert float(_averaged(Ema(0.9), [1.0, 2.0, 4.0]).weights["weight"][0, 0]) == pytest.approx(third)


def test_the_decay_rises_to_what_was_asked_for():
    shares = [Ema(0.999).share(updates, updates + 1, []) for updates in (0, 1, 90, 8989, 8991, 10**6)]
    assert shares == pytest.approx([1.0, 9 / 11, 9 / 100, 9 / 8999, 0.001, 0.001])


def test_the_mean_of_the_last_evaluated_steps_is_their_mean():
    values = torch.randn(13, generator=torch.Generator().manual_seed(0)).tolist()
    average = _averaged(LastEvaluations(3), values)
    assert average.updates == 3
    assert float(average.weights["weight"][0, 1]) == pytest.approx((values[7] + values[11] + values[12]) / 3, rel=1e-5)
    everything = _averaged(LastEvaluations(9), values)
    assert everything.updates == 4
    assert float(everything.weights["bias"][0]) == pytest.approx(-sum(values[i - 1] for i in EVALUATED) / 4, rel=1e-5)


def test_it_is_a_copy_of_what_is_trained_alone():
    module, average = _module(1.0), WeightAverage()
    module.bias.requires_grad_(False)
    average.update(module, 1.0)
    _set(module, 5.0)
    assert average.weights.keys() == {"weight"}
    assert average.weights["weight"].tolist() == [[1.0, 1.0]]
    assert not average.weights["weight"].requires_grad
    average.update(module, 0.25)
    assert average.weights["weight"].tolist() == [[2.0, 2.0]]
    assert module.weight.tolist() == [[5.0, 5.0]]


@pytest.mark.parametrize("rule", [Ema(0.9), LastEvaluations(4)])
def test_one_that_was_saved_goes_on_bit_for_bit(rule, tmp_path):
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(13, generator=generator).tolist()
    whole, part, module = _averaged(rule, values), _averaged(rule, values[:9]), _module()
    torch.save(part.state_dict(), tmp_path / "state")
    resumed = WeightAverage()
    resumed.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    for step in range(10, 14):
        _set(module, values[step - 1])
        share = rule.share(resumed.updates, step, EVALUATED)
        if share is not None:
            resumed.update(module, share)
    assert resumed.updates == whole.updates
    assert all(torch.equal(weight, resumed.weights[name]) for name, weight in whole.weights.items())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Ema(0.0), "between 0 and 1, got 0.0"),
        (lambda: Ema(1.0), "between 0 and 1, got 1.0"),
        (lambda: LastEvaluations(1), "at least 2, got 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
