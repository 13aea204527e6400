import pytest
import torch
import torch.nn.functional as F
from transformers import AutoConfig, AutoModelForSequenceClassification

from crossrank.errors import ModelError
from crossrank.models.attention import PACKED, _cuda_attention, attend, packed_attention

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
        mask = (i[:, None] - i[None]).abs() <= (len(i) if window < 0 else window)
        heads_first = (x.transpose(0, 1) for x in one)
        rows.append(F.scaled_dot_product_attention(*heads_first, attn_mask=mask, scale=scale).transpose(0, 1))
    return torch.cat(rows)


def _value_and_gradients(out, inputs):
    generator = torch.Generator().manual_seed(4)
    weight = torch.randn(out.shape, generator=generator)
    return [out.detach(), *torch.autograd.grad((out * weight).sum(), inputs)]


@pytest.mark.parametrize("window", [-1, 0, HALF_WINDOW, 1000])
def test_the_operator_and_its_gradients_equal_torch_attention_sequence_by_sequence(window):
    inputs = _qkv()
    ours = torch.ops.crossrank.attention(*inputs, _offsets(), window, 0.3, False)[0]
    torchs = _reference(*inputs, LENGTHS, window, 0.3)

    for a, b in zip(_value_and_gradients(ours, inputs), _value_and_gradients(torchs, inputs), strict=True):
        torch.testing.assert_close(a, b, atol=2e-6, rtol=2e-6)


def test_the_comparison_would_see_a_missing_window_and_a_missing_boundary():
    q, k, v = _qkv()
    ours = torch.ops.crossrank.attention(q, k, v, _offsets(), HALF_WINDOW, 0.3, False)[0]

    assert (ours - _reference(q, k, v, LENGTHS, -1, 0.3)).abs().max() > 0.1
    assert (ours - _reference(q, k, v, [sum(LENGTHS)], HALF_WINDOW, 0.3)).abs().max() > 0.1


def test_the_operator_attends_in_float32_whatever_it_is_given():
    inputs = _qkv(dtype=torch.bfloat16)
    out, lse = torch.ops.crossrank.attention(*inputs, _offsets(), HALF_WINDOW, 0.3, False)
    exact = _reference(*(x.float() for x in inputs), LENGTHS, HALF_WINDOW, 0.3)

    assert out.dtype == lse.dtype == torch.float32
    torch.testing.assert_close(out, exact, atol=2e-6, rtol=2e-6)
    gradients = torch.autograd.grad(out.sum(), inputs)
    assert all(gradient.dtype == torch.bfloat16 for gradient in gradients)
    for gradient, other in zip(gradients, torch.autograd.grad(exact.sum(), inputs), strict=True):
        torch.testing.assert_close(gradient, other, atol=2e-3, rtol=1e-2)  # one bfloat16 rounding


@pytest.mark.parametrize("window", [None, HALF_WINDOW])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 2e-2)])
def test_without_gradients_the_kernel_works_in_the_inputs_dtype(dtype, tolerance, window):
    """In bfloat16 weights and result are rounded to 8 bits; with gradients only the result is."""
    inputs = _qkv(dtype=dtype)
    exact = _reference(*(x.float() for x in inputs), LENGTHS, -1 if window is None else window, WIDTH**-0.5)
    with_gradients = attend(*inputs, _offsets(), 40, window)
    with torch.no_grad():
        without = attend(*inputs, _offsets(), 40, window)
    assert with_gradients.dtype == without.dtype == dtype
    torch.testing.assert_close(without.float(), exact, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(with_gradients, exact.to(dtype), atol=2e-6, rtol=1e-2)


@pytest.mark.parametrize("window", [-1, 0, HALF_WINDOW])
def test_first_tokens_alone_get_what_they_get_among_all(window):
    """Values, and the gradients of all keys and values, which the first tokens still see."""
    q, k, v = _qkv()
    starts = _offsets()[:-1].long()
    among_all = torch.ops.crossrank.attention(q, k, v, _offsets(), window, 0.3, False)[0][starts]
    alone = torch.ops.crossrank.attention(q[starts], k, v, _offsets(), window, 0.3, True)[0]

    assert alone.shape == (len(LENGTHS), HEADS, WIDTH)
    for a, b in zip(_value_and_gradients(alone, (q, k, v)), _value_and_gradients(among_all, (q, k, v)), strict=True):
        torch.testing.assert_close(a, b, atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize("first_only", [False, True])
@pytest.mark.parametrize("window", [-1, HALF_WINDOW])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_operator_keeps_the_rules_of_torch_operators(dtype, window, first_only):
    q, k, v = _qkv(dtype=dtype)
    q = q.detach()[: len(LENGTHS)].requires_grad_() if first_only else q
    torch.library.opcheck(torch.ops.crossrank.attention.default, (q, k, v, _offsets(), window, 0.3, first_only))


def test_the_backward_operator_keeps_the_rules_of_torch_operators():
    q, k, v = (x.detach() for x in _qkv())
    out, lse = torch.ops.crossrank.attention(q, k, v, _offsets(), HALF_WINDOW, 0.3, False)
    torch.library.opcheck(
        torch.ops.crossrank.attention_backward.default, (out, q, k, v, out, lse, _offsets(), HALF_WINDOW, 0.3, False)
    )


def test_no_sequence_sees_its_neighbours():
    q, k, v = (x.detach() for x in _qkv())
    before = torch.ops.crossrank.attention(q, k, v, _offsets(), HALF_WINDOW, 0.3, False)[0]
    third = slice(8, 48)
    for x in (q, k, v):
        x[third] += 5.0
    after = torch.ops.crossrank.attention(q, k, v, _offsets(), HALF_WINDOW, 0.3, False)[0]

    changed = (before != after).any(dim=(1, 2))
    assert changed[third].all()
    assert changed.sum() == 40


@pytest.mark.parametrize("sliding_window", [None, HALF_WINDOW + 1])
def test_transformers_interface_is_half_window_plus_one_and_tokens_before_heads(sliding_window):
    inputs = _qkv()
    q, k, v = (x.transpose(0, 1)[None] for x in inputs)
    out, weights = packed_attention(
        torch.nn.Module(), q, k, v, None, sliding_window=sliding_window, offsets=_offsets(), longest=40
    )
    expected = _reference(*inputs, LENGTHS, -1 if sliding_window is None else HALF_WINDOW, WIDTH**-0.5)

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
        _cuda_attention(q, k, v, _offsets(), 40, None, 0.3, False)


def test_a_window_with_first_tokens_alone_is_refused_on_cuda():
    q, k, v = _qkv(dtype=torch.bfloat16)
    with pytest.raises(ModelError, match="counted from the sequence's end"):
        _cuda_attention(q[: len(LENGTHS)], k, v, _offsets(), 40, HALF_WINDOW, 0.3, True)
