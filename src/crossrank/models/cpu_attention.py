"""Packed attention on the CPU, a sequence at a time.

With gradients it is one opaque step of autograd's, made of matrix products in float32: at a pair's length they are
faster than torch's kernel, whose backward computes the weights a second time (and in bfloat16 is an order of magnitude
slower still). Without gradients it is torch's kernel in the inputs' dtype, one call for neighbours of equal length.
"""

from functools import lru_cache
from itertools import groupby
from typing import Any, cast

import torch
from torch import Tensor

KEPT_UP_TO = 512  # tokens of a sequence whose attention weights are kept for the backward pass, not computed again
TURNED_AT_ONCE = 128  # tokens

_kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default


def cpu_attention(
    joint: Tensor,
    first: Tensor | None,
    cos: Tensor | None,
    sin: Tensor | None,
    offsets: Tensor,
    window: int,
    scale: float,
) -> Tensor:
    """Return the attended values in joint's dtype, [queries, heads, width]; `window` -1 is none.

    The inputs are those of `crossrank.models.attention.attend`.
    """
    lengths = cast(list[int], offsets.diff().tolist())
    with torch.autocast("cpu", enabled=False):
        if not torch.is_grad_enabled():
            return _without_gradients(joint, first, cos, sin, lengths, window, scale)
        out = _Attention.apply(joint, first, cos, sin, lengths, window, scale)  # type: ignore[no-untyped-call]
        return cast(Tensor, out)


def rotate(x: Tensor, cos: Tensor, sin: Tensor, back: bool = False) -> Tensor:
    """Turn the pairs (i, i + half) of the last dimension of x [tokens, ..., heads, width] by each token's angle.

    `cos` and `sin` are those of `crossrank.models.attention.Rotation`. It computes and returns float32, or more where
    x is more. Source: rotary position embeddings, arXiv 2104.09864, in the layout of transformers'
    `apply_rotary_pos_emb`.
    """
    shape = (len(x), *(1,) * (x.dim() - 2), x.shape[-1])
    others = x.roll(x.shape[-1] // 2, -1)
    return torch.addcmul(x * cos.view(shape), others, sin.view(shape), value=-1 if back else 1)


def turn(x: Tensor, cos: Tensor, sin: Tensor, out: Tensor) -> Tensor:
    """Write what `rotate` returns of x [tokens, parts, heads, width] to `out`, which may be x; no gradient sees it.

    It goes by blocks of tokens whose float32 values stay in the processor's cache.
    """
    half = x.shape[-1] // 2
    angles = (angle[:, None, None, half:] for angle in (cos, sin))
    for block, target, c, s in zip(*(torch.split(y, TURNED_AT_ONCE) for y in (x, out, *angles)), strict=True):
        left, right = block.float().chunk(2, dim=-1)
        turned = torch.empty_like(block, dtype=torch.float32, memory_format=torch.contiguous_format)
        into_left, into_right = turned.chunk(2, dim=-1)
        torch.mul(left, c, out=into_left).addcmul_(right, s, value=-1)
        torch.mul(right, c, out=into_right).addcmul_(left, s)
        target.copy_(turned)
    return out


class _Attention(torch.autograd.Function):
    """Loops inside one step, because autograd would make a full-size tensor of zeros for every slice of a tensor."""

    @staticmethod
    def forward(
        ctx: Any,
        joint: Tensor,
        first: Tensor | None,
        cos: Tensor | None,
        sin: Tensor | None,
        lengths: list[int],
        window: int,
        scale: float,
    ) -> Tensor:
        turned = _turned(joint, cos, sin)
        kept = [_weights_size(joint, first, length) if length <= KEPT_UP_TO else 0 for length in lengths]
        stored = joint.new_empty(sum(kept), dtype=torch.float32)
        out = torch.empty_like(joint[:, 0] if first is None else first, memory_format=torch.contiguous_format)
        sequences = _sequences(joint, turned, first, lengths)
        into = torch.split(out, lengths if first is None else 1)
        for sequence, target, place in zip(sequences, into, torch.split(stored, kept), strict=True):
            q, k, v = (x.float() for x in sequence)
            weights = _weights(q, k, scale, window, place.view(len(q), q.shape[1], -1) if len(place) else None)
            target.transpose(0, 1).copy_(torch.bmm(weights, v))
        ctx.save_for_backward(joint, turned, first, cos, sin, stored)
        ctx.lengths, ctx.kept, ctx.window, ctx.scale = lengths, kept, window, scale
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        joint, turned, first, cos, sin, stored = ctx.saved_tensors
        d_joint = torch.empty_like(joint, dtype=joint.dtype if turned is None else torch.float32)
        d_first = None if first is None else torch.empty_like(first)
        sequences = _sequences(joint, turned, first, ctx.lengths)
        targets = _sequences(d_joint, None, d_first, ctx.lengths)
        of_queries = torch.split(grads[0], ctx.lengths if first is None else 1)
        places = torch.split(stored, ctx.kept)
        for sequence, (dq, dk, dv), grad, place in zip(sequences, targets, of_queries, places, strict=True):
            q, k, v = (x.float() for x in sequence)
            heads_first = grad.transpose(0, 1).float()
            weights = place.view(len(q), q.shape[1], -1) if len(place) else _weights(q, k, ctx.scale, ctx.window, None)
            dv.copy_(torch.bmm(weights.transpose(1, 2), heads_first))
            d_scores = torch.bmm(heads_first, v.transpose(1, 2))
            d_scores = torch._softmax_backward_data(d_scores, weights, -1, torch.float32).mul_(ctx.scale)
            dq.copy_(torch.bmm(d_scores, k))
            dk.copy_(torch.bmm(d_scores.transpose(1, 2), q))
        if turned is not None:
            turn(d_joint[:, :-1], cos, -sin, out=d_joint[:, :-1])
        return d_joint.to(joint.dtype), d_first, None, None, None, None, None


def _turned(joint: Tensor, cos: Tensor | None, sin: Tensor | None) -> Tensor | None:
    """Return joint without its values, rotated, or None where nothing rotates."""
    if cos is None or sin is None:
        return None
    x = joint[:, :-1]
    return turn(x, cos, sin, out=torch.empty_like(x, memory_format=torch.contiguous_format))


def _columns(joint: Tensor, turned: Tensor | None, first: Tensor | None) -> list[Tensor]:
    """Return queries, keys and values; `turned` stands for what was rotated, `first` for the queries."""
    parts = joint.unbind(1) if turned is None else (*turned.unbind(1), joint[:, -1])
    return [*parts] if first is None else [first, *parts]


def _sequences(
    joint: Tensor, turned: Tensor | None, first: Tensor | None, lengths: list[int]
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return views of each sequence's query, key and value, [heads, length, width]."""
    q, k, v = _columns(joint, turned, first)
    split = (torch.split(q, lengths if first is None else 1), torch.split(k, lengths), torch.split(v, lengths))
    return [(q_.transpose(0, 1), k_.transpose(0, 1), v_.transpose(0, 1)) for q_, k_, v_ in zip(*split, strict=True)]


def _weights_size(joint: Tensor, first: Tensor | None, length: int) -> int:
    return joint.shape[2] * length * (length if first is None else 1)


def _weights(q: Tensor, k: Tensor, scale: float, window: int, out: Tensor | None) -> Tensor:
    """Return the attention weights of one sequence, [heads, queries, keys], in `out` if there is one."""
    scores = q.new_empty(len(q), q.shape[1], k.shape[1]) if out is None else out
    torch.baddbmm(scores, q, k.transpose(1, 2), beta=0, alpha=scale, out=scores)
    mask = _window_mask(k.shape[1], window, q.dtype)
    if mask is not None:
        scores += mask[: q.shape[1]]
    return torch._softmax(scores, -1, False, out=scores)


def _without_gradients(
    joint: Tensor,
    first: Tensor | None,
    cos: Tensor | None,
    sin: Tensor | None,
    lengths: list[int],
    window: int,
    scale: float,
) -> Tensor:
    q, k, v = _columns(joint, _turned(joint, cos, sin), first)
    runs = [(len(list(run)), length) for length, run in groupby(lengths)]
    of_queries = runs if first is None else [(count, 1) for count, _ in runs]
    parts = []
    for q_, k_, v_, (_, length) in zip(_split(q, of_queries), _split(k, runs), _split(v, runs), runs, strict=True):
        mask = _window_mask(length, window, joint.dtype)
        mask = mask if mask is None or first is None else mask[:1]
        out = _kernel(q_, k_, v_, 0.0, False, attn_mask=mask, scale=scale)[0]
        parts.append(out.transpose(1, 2).flatten(0, 1))
    return torch.cat(parts)


def _split(x: Tensor, runs: list[tuple[int, int]]) -> list[Tensor]:
    """Split [tokens, heads, width] into views [count, heads, length, width]."""
    parts = torch.split(x, [count * length for count, length in runs])
    return [part.view(*run, *x.shape[1:]).transpose(1, 2) for part, run in zip(parts, runs, strict=True)]


def _window_mask(length: int, window: int, dtype: torch.dtype) -> Tensor | None:
    """Return 0 where a token sees another and -inf elsewhere, or None where all see all."""
    if window < 0 or length <= window + 1:
        return None
    return _whole_mask(1 << (length - 1).bit_length(), window, dtype)[:length, :length]


@lru_cache(maxsize=8)
def _whole_mask(length: int, window: int, dtype: torch.dtype) -> Tensor:
    position = torch.arange(length)
    outside = (position[:, None] - position[None]).abs() > window
    return torch.zeros(length, length, dtype=dtype).masked_fill_(outside, float("-inf"))
