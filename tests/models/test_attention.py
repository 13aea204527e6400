import pytest
import torch
import torch.nn.functional as F
from transformers import AutoConfig, AutoModelForSequenceClassification

from crossrank.errors import ModelError
from crossrank.models.attention import PACKED, _cuda_attention, _Rotated, attend, packed_attention

LENGTHS = (1, 7, 40, 9, 8, 33)
HEADS, WIDTH, HALF_WINDOW = 2, 16, 8


def _offsets(lengths=LENGTHS):
    return torch.tensor([0, *torch.tensor(lengths).cumsum(0)], dtype=torch.int32)


def _qkv(dtype=torch.float32):
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(sum(LENGTHS), HEADS, WIDTH, generator=generator).to(dtype).requires_grad_() for _ in range(3)]


def _reference(q, k, v, lengths, window, scale):
    """One torch attention a sequence, the window as an explicit mask."""
    rows = []
    for one in zip(*(x.split(lengths) for x in (q, k, v)), strict=True):
        i = torch.arange(len(one[0]))
        mask = (i[:, None] - i[None]).abs() <= (len(i) if window is None else window)
        heads_first = (x.transpose(0, 1) for x in one)
        rows.append(F.scaled_dot_product_attention(*heads_first, attn_mask=mask, scale=scale).transpose(0, 1))
    return torch.cat(rows)


@pytest.mark.parametrize("window", [None, HALF_WINDOW])
def test_the_default_scale_is_one_over_the_root_of_the_width(window):
    inputs = _qkv()
    seen = attend(torch.stack(inputs, 1), _offsets(), 40, window)
    torch.testing.assert_close(seen, _reference(*inputs, LENGTHS, window, WIDTH**-0.5), atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize("sliding_window", [None, HALF_WINDOW + 1])
def test_transformers_interface_is_half_window_plus_one_and_tokens_before_heads(sliding_window):
    inputs = _qkv()
    q, k, v = (x.transpose(0, 1)[None] for x in inputs)
    out, weights = packed_attention(
        torch.nn.Module(), q, k, v, None, sliding_window=sliding_window, offsets=_offsets(), longest=40
    )
    expected = _reference(*inputs, LENGTHS, None if sliding_window is None else HALF_WINDOW, WIDTH**-0.5)

    assert weights is None
    assert out.shape == (1, sum(LENGTHS), HEADS, WIDTH)
    torch.testing.assert_close(out[0], expected, atol=2e-6, rtol=2e-6)


def test_the_result_has_the_dtype_of_the_query():
    q, k, v = (x.transpose(0, 1)[None] for x in _qkv(dtype=torch.bfloat16))
    out, _ = packed_attention(torch.nn.Module(), q, k, v, None, offsets=_offsets(), longest=40)
    assert out.dtype == torch.bfloat16


def test_a_row_without_offsets_is_refused():
    config = AutoConfig.for_model("bert", vocab_size=50, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
                                  intermediate_size=8, num_labels=1, attn_implementation=PACKED)  # fmt: skip
    model = AutoModelForSequenceClassification.from_config(config).eval()
    with pytest.raises(ModelError, match="without offsets"):
        model(input_ids=torch.ones(1, 5, dtype=torch.long))


def test_attention_dropout_is_refused():
    q, k, v = (x.transpose(0, 1)[None] for x in _qkv())
    with pytest.raises(ModelError, match=r"no dropout.*0\.1.*attention_dropout=0"):
        packed_attention(torch.nn.Module(), q, k, v, None, dropout=0.1, offsets=_offsets(), longest=40)


def test_float32_on_cuda_is_refused_before_any_kernel_runs():
    q, k, v = _qkv()
    with pytest.raises(ModelError, match=r"bf16-mixed or model\.attention=padded"):
        _cuda_attention(torch.stack([q, k, v], 1), _offsets(), 40, None, 0.3, None, None)


def test_a_window_with_first_tokens_alone_is_refused_on_cuda():
    q, k, v = _qkv(dtype=torch.bfloat16)
    with pytest.raises(ModelError, match="counted from the sequence's end"):
        _cuda_attention(torch.stack([k, v], 1), _offsets(), 40, HALF_WINDOW, 0.3, None, q[: len(LENGTHS)])


def _angles(tokens):
    angles = torch.rand(tokens, WIDTH // 2, generator=torch.Generator().manual_seed(5)).repeat(1, 2) * 6
    left, right = angles.sin().chunk(2, dim=1)
    return angles.cos(), torch.cat([-left, right], dim=1)


@pytest.mark.parametrize("parts", [3, 2])  # with queries, or keys and values alone
def test_turned_parts_have_the_gradient_of_a_product_of_complex_numbers(parts):
    joint = torch.stack(_qkv(), 1)[:5, :parts].detach().double().requires_grad_()
    cos, sin = (angle.double() for angle in _angles(5))
    half = WIDTH // 2
    turn = torch.complex(cos, sin)[:, None, None, half:]
    turned = torch.complex(joint[:, :-1, :, :half], joint[:, :-1, :, half:]) * turn
    expected = [*torch.cat([turned.real, turned.imag], -1).unbind(1), joint[:, -1]]
    found = _Rotated.apply(joint, cos, sin)
    weights = [torch.rand_like(x) for x in expected]
    gradients = [torch.autograd.grad(side, joint, weights)[0] for side in (found, expected)]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(*gradients)
    assert torch.autograd.gradcheck(lambda x: _Rotated.apply(x, cos, sin), joint)


def test_a_turned_gradient_is_rounded_once():
    joint = torch.stack(_qkv(dtype=torch.bfloat16), 1).detach().requires_grad_()
    cos, sin = _angles(len(joint))
    weights = [torch.randn_like(joint[:, 0]) for _ in range(3)]
    (found,) = torch.autograd.grad(_Rotated.apply(joint, cos, sin), joint, weights)
    exact = joint.detach().float().requires_grad_()
    (expected,) = torch.autograd.grad(_Rotated.apply(exact, cos, sin), exact, [w.float() for w in weights])
    assert torch.equal(found, expected.bfloat16())
