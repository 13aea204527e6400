"""Attention over packed sequences: each token sees its own sequence only.

One function serves every forward. On the CPU it is one opaque operator that calls a kernel for each sequence, always in
float32 (bfloat16's backward is an order of magnitude slower there); without gradients the kernel is called directly and
in the inputs' dtype. On CUDA it is torch's `varlen_attn`. Nothing else may be given a packed row: under `sdpa` or
`eager` it would attend across sequences without an error.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from crossrank.errors import ModelError

PACKED = "crossrank_packed"

_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    offsets: Tensor,
    longest: int,
    window: int | None = None,
    scale: float | None = None,
    first_only: bool = False,
) -> Tensor:
    """Return the attended values in q's dtype, [tokens, heads, width] as q, k and v.

    Token i of a sequence sees its token j with |i - j| <= `window`, or all of them. With `first_only`, q holds the
    first token of each sequence and nothing else, [sequences, heads, width], and the result is theirs.

    Raises:
        ModelError: CUDA gets float32, or a window together with `first_only`.
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    if q.is_cuda:
        return _cuda_attention(q, k, v, offsets, longest, window, scale, first_only)
    width = -1 if window is None else window
    if not torch.is_grad_enabled():
        return _values(q, k, v, _runs(offsets, width, first_only), scale)[0]
    out: Tensor = torch.ops.crossrank.attention(q, k, v, offsets, width, scale, first_only)[0]
    return out.to(q.dtype)


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
    refuse_dropout(dropout)
    window = None if sliding_window is None else sliding_window - 1
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    return attend(q, k, v, offsets, longest, window, scaling)[None], None


def refuse_dropout(probability: float) -> None:
    """Raise a ModelError unless the attention dropout is 0."""
    if probability:
        raise ModelError(
            f"packed attention has no dropout and the backbone asks for {probability}; set model.attention_dropout=0 "
            "(a change of the recipe) or model.attention=padded"
        )


def _cuda_attention(
    q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, longest: int, window: int | None, scale: float, first_only: bool
) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn  # imports CUDA kernels

    if q.dtype not in (torch.bfloat16, torch.float16):
        raise ModelError(
            f"packed attention on CUDA takes bfloat16 or float16, got {q.dtype}; set trainer.precision=bf16-mixed or "
            "model.attention=padded"
        )
    if first_only and window is not None:
        raise ModelError("with queries of first tokens only, CUDA's windows would be counted from the sequence's end")
    of_queries, longest_query = offsets, longest
    if first_only:
        of_queries, longest_query = torch.arange(len(q) + 1, dtype=torch.int32, device=q.device), 1
    sides = (-1, -1) if window is None else (window, window)
    return cast(
        Tensor, varlen_attn(q, k, v, of_queries, offsets, longest_query, longest, scale=scale, window_size=sides)
    )


def _window_mask(length: int, window: int, first_only: bool) -> Tensor | None:
    if window < 0 or length <= window + 1:
        return None
    position = torch.arange(length)
    outside = (position[:, None] - position[None]).abs() > window
    mask = torch.zeros(length, length).masked_fill_(outside, float("-inf"))
    return mask[:1] if first_only else mask


class _Runs(NamedTuple):
    """Neighbouring sequences of equal length, which one call of the kernel serves; `shapes` are (count, length)."""

    keys: list[tuple[int, int]]
    queries: list[tuple[int, int]]
    masks: list[Tensor | None]


def _runs(offsets: Tensor, window: int, first_only: bool) -> _Runs:
    keys = [(len(list(run)), length) for length, run in groupby(offsets.diff().tolist())]
    queries = [(count, 1) for count, _ in keys] if first_only else keys
    return _Runs(keys, queries, [_window_mask(length, window, first_only) for _, length in keys])


def _split(x: Tensor, shapes: list[tuple[int, int]]) -> list[Tensor]:
    """Split [tokens, heads, ...] into views [count, heads, length, ...]."""
    parts = torch.split(x, [count * length for count, length in shapes])
    return [part.view(*shape, *x.shape[1:]).transpose(1, 2) for part, shape in zip(parts, shapes, strict=True)]


def _join(parts: Sequence[Tensor]) -> Tensor:
    """Join [count, heads, length, ...] into [tokens, heads, ...]."""
    return torch.cat([part.transpose(1, 2).flatten(0, 1) for part in parts])


def _values(q: Tensor, k: Tensor, v: Tensor, runs: _Runs, scale: float) -> tuple[Tensor, Tensor]:
    """Return the attended values in the inputs' dtype and their logsumexp, one kernel call a run."""
    masks = [None if mask is None else mask.to(q.dtype) for mask in runs.masks]
    inputs = zip(_split(q, runs.queries), _split(k, runs.keys), _split(v, runs.keys), masks, strict=True)
    parts = [_forward(q_, k_, v_, 0.0, False, attn_mask=mask, scale=scale)[:2] for q_, k_, v_, mask in inputs]
    out, lse = zip(*parts, strict=True)
    return _join(out), _join(lse)


@torch.library.custom_op("crossrank::attention", mutates_args=())
def _attention(
    q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, window: int, scale: float, first_only: bool
) -> tuple[Tensor, Tensor]:
    """Return the attended values, shaped as q, and their logsumexp [queries, heads], both float32."""
    return _values(q.float(), k.float(), v.float(), _runs(offsets, window, first_only), scale)


@torch.library.custom_op("crossrank::attention_backward", mutates_args=())
def _attention_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    offsets: Tensor,
    window: int,
    scale: float,
    first_only: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of q, k and v, float32.

    One operator, because autograd would make a full-size tensor of zeros for every slice of every sequence.
    """
    runs = _runs(offsets, window, first_only)
    of_queries = (_split(x.float(), runs.queries) for x in (grad, q, out, lse))
    of_keys = (_split(x.float(), runs.keys) for x in (k, v))
    parts = [
        _backward(g, q_, k_, v_, o, sums.contiguous(), 0.0, False, attn_mask=mask, scale=scale)
        for g, q_, o, sums, k_, v_, mask in zip(*of_queries, *of_keys, runs.masks, strict=True)
    ]
    dq, dk, dv = map(_join, zip(*parts, strict=True))
    return dq, dk, dv


@_attention.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, window: int, scale: float, first_only: bool
) -> tuple[Tensor, Tensor]:
    return q.new_empty(q.shape, dtype=torch.float32), q.new_empty(q.shape[:2], dtype=torch.float32)


@_attention_backward.register_fake
def _(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    offsets: Tensor,
    window: int,
    scale: float,
    first_only: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    dq, dk, dv = (x.new_empty(x.shape, dtype=torch.float32) for x in (q, k, v))
    return dq, dk, dv


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, offsets, ctx.window, ctx.scale, ctx.first_only = inputs
    ctx.save_for_backward(q, k, v, *output, offsets)


def _differentiate(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    q, k, v, out, lse, offsets = ctx.saved_tensors
    gradients = torch.ops.crossrank.attention_backward(
        grad, q, k, v, out, lse, offsets, ctx.window, ctx.scale, ctx.first_only
    )
    return (*(gradient.to(q.dtype) for gradient in gradients), None, None, None, None)


_attention.register_autograd(_differentiate, setup_context=_save_for_backward)

# Registered without a mask function: transformers then builds no mask at all for it.
ALL_ATTENTION_FUNCTIONS.register(PACKED, packed_attention)
