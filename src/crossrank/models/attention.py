"""Attention over packed sequences: each token sees its own sequence only.

One registered function serves every backbone. On the CPU it is one opaque operator that runs an attention a sequence,
always in float32 (bfloat16's backward is an order of magnitude slower there); on CUDA it is torch's `varlen_attn`.
Nothing else may be given a packed row: under `sdpa` or `eager` it would attend across sequences without an error.
"""

from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from crossrank.errors import ModelError

PACKED = "crossrank_packed"

_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    offsets: Tensor | None = None,
    longest: int = 0,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend within each packed sequence; the signature is that of transformers' attention interface.

    `query`, `key`, `value` are [1, heads, tokens, width]; the result is [1, tokens, heads, width]. `sliding_window` is
    transformers' half window + 1: token i sees j with |i - j| < sliding_window.

    Raises:
        ModelError: there are no offsets (the row is not packed), attention dropout is on, or CUDA gets float32.
    """
    if offsets is None:
        raise ModelError("packed attention was given a row without offsets; call CrossEncoder, not the backbone itself")
    if dropout:
        raise ModelError(
            f"packed attention has no dropout and the backbone asks for {dropout}; set model.attention_dropout=0 "
            "(a change of the recipe) or model.attention=padded"
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    window = -1 if sliding_window is None else sliding_window - 1
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))  # [tokens, heads, width]
    if query.is_cuda:
        return _cuda_attention(q, k, v, offsets, longest, window, scale)[None], None
    out: Tensor = torch.ops.crossrank.attention(q, k, v, offsets, window, scale)[0]
    return out.to(query.dtype)[None], None


def _cuda_attention(
    q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, longest: int, window: int, scale: float
) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn  # imports CUDA kernels

    if q.dtype not in (torch.bfloat16, torch.float16):
        raise ModelError(
            f"packed attention on CUDA takes bfloat16 or float16, got {q.dtype}; set trainer.precision=bf16-mixed or "
            "model.attention=padded"
        )
    return cast(
        Tensor, varlen_attn(q, k, v, offsets, offsets, longest, longest, scale=scale, window_size=(window, window))
    )


def _window_mask(length: int, window: int) -> Tensor | None:
    if window < 0 or length <= window + 1:
        return None
    position = torch.arange(length)
    outside = (position[:, None] - position[None]).abs() > window
    return torch.zeros(length, length).masked_fill_(outside, float("-inf"))


def _heads_first(x: Tensor) -> Tensor:
    return x.float().transpose(0, 1)[None]  # [1, heads, tokens, width]


@torch.library.custom_op("crossrank::attention", mutates_args=())
def _attention(q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, window: int, scale: float) -> tuple[Tensor, Tensor]:
    """Return the attended values [tokens, heads, width] and the logsumexp [tokens, heads], both float32."""
    out = torch.empty(q.shape, dtype=torch.float32)
    lse = torch.empty(q.shape[:2], dtype=torch.float32)
    q, k, v = map(_heads_first, (q, k, v))
    bounds = offsets.tolist()
    for start, stop in pairwise(bounds):
        one = slice(start, stop)
        mask = _window_mask(stop - start, window)
        o, sums = _forward(q[:, :, one], k[:, :, one], v[:, :, one], 0.0, False, attn_mask=mask, scale=scale)
        out[one] = o[0].transpose(0, 1)
        lse[one] = sums[0].transpose(0, 1)
    return out, lse


@torch.library.custom_op("crossrank::attention_backward", mutates_args=())
def _attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, offsets: Tensor, window: int, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of q, k and v, float32.

    One operator, because autograd would make a full-size tensor of zeros for every slice of every sequence.
    """
    gradients = tuple(torch.empty(x.shape, dtype=torch.float32) for x in (q, k, v))
    grad, q, k, v, out = map(_heads_first, (grad, q, k, v, out))
    lse = lse.transpose(0, 1)[None]
    bounds = offsets.tolist()
    for start, stop in pairwise(bounds):
        one = slice(start, stop)
        mask = _window_mask(stop - start, window)
        parts = _backward(
            grad[:, :, one], q[:, :, one], k[:, :, one], v[:, :, one], out[:, :, one], lse[:, :, one].contiguous(),
            0.0, False, attn_mask=mask, scale=scale,
        )  # fmt: skip
        for gradient, part in zip(gradients, parts, strict=True):
            gradient[one] = part[0].transpose(0, 1)
    return gradients[0], gradients[1], gradients[2]


@_attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, window: int, scale: float) -> tuple[Tensor, Tensor]:
    return q.new_empty(q.shape, dtype=torch.float32), q.new_empty(q.shape[:2], dtype=torch.float32)


@_attention_backward.register_fake
def _(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, offsets: Tensor, window: int, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape, dtype=torch.float32), torch.empty_like(q.float()), torch.empty_like(q.float())


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, offsets, ctx.window, ctx.scale = inputs
    ctx.save_for_backward(q, k, v, *output, offsets)


def _differentiate(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    q, k, v, out, lse, offsets = ctx.saved_tensors
    gradients = torch.ops.crossrank.attention_backward(grad, q, k, v, out, lse, offsets, ctx.window, ctx.scale)
    return (*(gradient.to(q.dtype) for gradient in gradients), None, None, None)


_attention.register_autograd(_differentiate, setup_context=_save_for_backward)

# Registered without a mask function: transformers then builds no mask at all for it.
ALL_ATTENTION_FUNCTIONS.register(PACKED, packed_attention)
