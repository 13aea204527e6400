"""Against torch's own product and GELU."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from crossrank.errors import ModelError
from crossrank.models.linear import linear, prepared_weights, weights_cast_together

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


class Adapted(nn.Linear):
    """What an adapter puts in a linear layer's place: more than its weights."""

    def forward(self, x):
        return super().forward(x) + 1


@pytest.fixture
def layers():
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return nn.Linear(24, 40), nn.Linear(24, 8)


def _expected(x, layers, gelu):
    y = torch.cat([F.linear(x.double(), layer.weight.double(), layer.bias.double()) for layer in layers], 1)
    return F.gelu(y) if gelu else y


def test_onednn_meets_few_numbers_of_rows(layers):
    met = set()

    class Rows(TorchDispatchMode):
        def __torch_dispatch__(self, op, types, args=(), kwargs=None):
            if "_linear_pointwise" in str(op):
                met.add(len(args[0]))
            return op(*args, **(kwargs or {}))

    with torch.inference_mode(), Rows():
        shapes = [tuple(linear(torch.randn(rows, 24), layers[0]).shape) for rows in range(1, 100)]
    assert shapes == [(rows, 40) for rows in range(1, 100)]
    assert met == {*range(1, 17), *range(16, 113, 16)}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("prepared", [False, True])
def test_it_is_torchs_product(layers, dtype, gelu, count, prepared):
    chosen = layers[:count]
    with torch.inference_mode():
        for rows in (33, 64, 5):  # weights laid out for the first serve the others
            x = torch.randn(rows, 24, generator=torch.Generator().manual_seed(rows)).to(dtype)
            if prepared:
                with prepared_weights():
                    y = [linear(x, *chosen, gelu=gelu) for _ in range(2)][1]
            else:
                y = linear(x, *chosen, gelu=gelu)
            assert y.dtype == dtype
            torch.testing.assert_close(y.double(), _expected(x, chosen, gelu), atol=TOLERANCE[dtype], rtol=0.01)


def test_gradients_are_torchs(layers):
    x = torch.randn(9, 24, generator=torch.Generator().manual_seed(1))
    linear(x, *layers, gelu=True).square().sum().backward()
    mine = [parameter.grad.clone() for layer in layers for parameter in layer.parameters()]
    for layer in layers:
        layer.zero_grad()
    _expected(x, layers, gelu=True).square().sum().backward()
    theirs = [parameter.grad for layer in layers for parameter in layer.parameters()]
    torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-5)


def test_weights_are_made_ready_once_within_and_anew_afterwards(layers):
    layer, x = layers[0], torch.ones(3, 24)
    with torch.inference_mode():
        with prepared_weights():
            before = linear(x, layer)
            layer.weight.mul_(2)
            assert torch.equal(linear(x, layer), before)
        with prepared_weights():
            assert not torch.allclose(linear(x, layer), before)
        assert not torch.allclose(linear(x, layer), before)


def test_a_single_adapter_is_called_and_several_are_refused(layers):
    adapted, x = Adapted(24, 24), torch.ones(3, 24)
    with torch.inference_mode():
        assert torch.equal(linear(x, adapted, gelu=True), F.gelu(adapted(x)))
    with pytest.raises(ModelError, match=r"this one is a Adapted; set model\.attention=packed"):
        linear(x, layers[0], adapted)


def test_without_onednn_it_is_torchs(layers, monkeypatch):
    x = torch.ones(3, 24)
    monkeypatch.setattr(torch._C, "_has_mkldnn", False)
    with torch.inference_mode(), prepared_weights():
        torch.testing.assert_close(linear(x, *layers).double(), _expected(x, layers, gelu=False), atol=1e-5, rtol=0.01)


@pytest.mark.parametrize("frozen", [False, True])
def test_weights_that_are_cast_together_learn_what_autocast_teaches(layers, frozen):
    inner, outer = nn.ModuleList(layers), nn.Linear(48, 3, bias=False)
    inner.append(outer)
    layers[1].weight.requires_grad_(not frozen)
    x = torch.randn(33, 24, generator=torch.Generator().manual_seed(1))

    def forward(x):
        return linear(linear(x, *layers, gelu=True), outer)

    def together(x):
        with weights_cast_together(inner, torch.bfloat16):
            return forward(x)

    sides = []
    for way in (forward, together):
        inner.zero_grad()
        leaf = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            y = way(leaf)
            y.float().square().sum().backward()
        sides.append([y.detach(), leaf.grad, *(p.grad for p in inner.parameters())])
    assert [None if a is None else a.dtype for a in sides[0]] == [None if b is None else b.dtype for b in sides[1]]
    assert all(a is b is None or torch.equal(a, b) for a, b in zip(*sides, strict=True))
    assert sum(a is None for a in sides[0]) == frozen
