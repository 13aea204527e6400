"""Attention over packed sequences: each token sees its own sequence only.

One function serves every forward: on the CPU our operator, on CUDA torch's `varlen_attn`. Nothing else may be given a
packed row: under `sdpa` or `eager` it would attend across sequences without an error.
"""

from typing import Any, cast

import torch
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from crossrank.errors import ModelError
from crossrank.models.cpu_attention import cpu_attention, rotate

PACKED = "crossrank_packed"

# cos and sin of each token's angles, float32 [tokens, width], both halves alike but for the sign of the sin: a turned
# x[i] is x[i] cos[i] + x[i + half] sin[i], where i + half goes on from the start
Rotation = tuple[Tensor, Tensor]


def attend(
    joint: Tensor,
    offsets: Tensor,
    longest: int,
    window: int | None = None,
    scale: float | None = None,
    rotation: Rotation | None = None,
    first: Tensor | None = None,
) -> Tensor:
    """Return the attended values in joint's dtype, [tokens, heads, width].

    `joint` holds query, key and value of each token, [tokens, 3, heads, width]. With `first`, the queries of each
    sequence's first token alone, [sequences, heads, width], it holds keys and values, [tokens, 2, heads, width], and
    the result is that of the first tokens. Token i of a sequence sees its token j with |i - j| <= `window`, or all of
    them. `rotation` turns queries and keys by their positions; a first token's is by nothing.

    Raises:
        ModelError: CUDA gets float32, or a window together with `first`.
    """
    scale = joint.shape[-1] ** -0.5 if scale is None else scale
    if joint.is_cuda:
        return _cuda_attention(joint, offsets, longest, window, scale, rotation, first)
    cos, sin = rotation or (None, None)
    return cpu_attention(joint, first, cos, sin, offsets, -1 if window is None else window, scale)


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
    joint = torch.stack([x[0].transpose(0, 1) for x in (query, key, value)], dim=1)
    return attend(joint, offsets, longest, window, scaling)[None], None


def refuse_dropout(probability: float) -> None:
    """Raise a ModelError unless the attention dropout is 0."""
    if probability:
        raise ModelError(
            f"packed attention has no dropout and the backbone asks for {probability}; set model.attention_dropout=0 "
            "(a change of the recipe) or model.attention=padded"
        )


def _cuda_attention(
    joint: Tensor,
    offsets: Tensor,
    longest: int,
    window: int | None,
    scale: float,
    rotation: Rotation | None,
    first: Tensor | None,
) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn  # imports CUDA kernels

    if joint.dtype not in (torch.bfloat16, torch.float16):
        raise ModelError(
            f"packed attention on CUDA takes bfloat16 or float16, got {joint.dtype}; set trainer.precision=bf16-mixed "
            "or model.attention=padded"
        )
    if first is not None and window is not None:
        raise ModelError("with queries of first tokens only, CUDA's windows would be counted from the sequence's end")
    parts = _Rotated.apply(joint, *rotation) if rotation else joint.unbind(1)  # type: ignore[no-untyped-call]
    q, k, v = parts if first is None else (first, *parts)
    of_queries, longest_query = offsets, longest
    if first is not None:
        of_queries, longest_query = torch.arange(len(first) + 1, dtype=torch.int32, device=joint.device), 1
    sides = (-1, -1) if window is None else (window, window)
    return cast(
        Tensor, varlen_attn(q, k, v, of_queries, offsets, longest_query, longest, scale=scale, window_size=sides)
    )


class _Rotated(torch.autograd.Function):
    """Splits `joint` and turns all but its values; backwards it turns the other way.

    As one step of autograd's, whose own would fill a tensor with zeros for every half that is sliced, and round each
    half's gradient to bfloat16 before they are added.
    """

    @staticmethod
    def forward(ctx: Any, joint: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(cos, sin)
        return (*rotate(joint[:, :-1], cos, sin).to(joint.dtype).unbind(1), joint[:, -1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        d_joint = torch.stack(grads, dim=1)
        turned, (cos, sin) = d_joint[:, :-1], ctx.saved_tensors
        turned.copy_(rotate(turned, cos, sin, back=True))
        return d_joint, None, None


# Registered without a mask function: transformers then builds no mask at all for it.
ALL_ATTENTION_FUNCTIONS.register(PACKED, packed_attention)
