"""Linear layers of the fused forward, and what their weights are made into.

On the CPU without gradients it is oneDNN's product, which adds the bias and applies the GELU while a block of the
result is still in the cache; torch's own writes the bias first, multiplies onto it and reads all of it again for the
GELU. Everywhere else it is torch's; on one GPU that learns under autocast it takes weights that were cast together,
since a small step takes as long as its launches.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossrank.errors import ModelError

# oneDNN keeps some 0.1 MiB for each number of rows it has met, and a batch has as many first tokens as pairs.
ROUND_ROWS_TO = 16

Ready = tuple[Tensor, Tensor | None]  # a weight as the product wants it, and the bias in its dtype

_prepared: ContextVar[dict[tuple[Any, ...], Ready] | None] = ContextVar("prepared", default=None)
_cast: ContextVar[dict[Tensor, Tensor] | None] = ContextVar("cast", default=None)


@contextmanager
def prepared_weights() -> Iterator[None]:
    """Within it, weights are joined, cast and laid out for the product once, not at every batch.

    They must not change meanwhile. It takes as much memory as the layers' weights in the dtype of the products. Within
    another such block, that one's are used.
    """
    store = _prepared.get()
    token = _prepared.set({} if store is None else store)
    try:
        yield
    finally:
        _prepared.reset(token)


@contextmanager
def weights_cast_together(module: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Within it, products of `module`'s linear layers take weights and biases that are cast to `dtype` all at once.

    Their gradients come back the same way, and both are what autocast makes of each by itself, in two kernels a weight.
    """
    parameters = [p for layer in module.modules() if isinstance(layer, nn.Linear) for p in layer.parameters()]
    made = _CastTogether.apply(dtype, *parameters)  # type: ignore[no-untyped-call]
    token = _cast.set(dict(zip(parameters, made, strict=True)))
    try:
        yield
    finally:
        _cast.reset(token)


class _CastTogether(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.dtype = tensors[0].dtype
        return _all_cast(tensors, dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return None, *_all_cast(gradients, ctx.dtype)


def _all_cast(tensors: tuple[Tensor, ...], dtype: torch.dtype) -> tuple[Tensor, ...]:
    made = tuple(torch.empty_like(tensor, dtype=dtype) for tensor in tensors)
    torch._foreach_copy_(made, tensors)
    return made


def linear(x: Tensor, *layers: nn.Module, gelu: bool = False) -> Tensor:
    """Apply several linear layers to x [tokens, in] as one product, and GELU to the result [tokens, sum of out].

    Raises:
        ModelError: one of several is not a plain linear layer, so that its weights are not all there is to it.
    """
    if len(layers) == 1 and type(layers[0]) is not nn.Linear:
        y = cast(Tensor, layers[0](x))
    elif x.device.type == "cpu" and not torch.is_grad_enabled() and _onednn_multiplies(x.dtype):
        (weight, bias), rows = _ready(x, plain(*layers)), len(x)
        if rows > ROUND_ROWS_TO and rows % ROUND_ROWS_TO:
            x = F.pad(x, (0, 0, 0, -rows % ROUND_ROWS_TO))
        y = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "gelu" if gelu else "none", [], "none" if gelu else "")
        return cast(Tensor, y[:rows])
    else:
        y = F.linear(x, *joined(plain(*layers)))
    return F.gelu(y) if gelu else y


def plain(*layers: nn.Module) -> tuple[nn.Linear, ...]:
    """Return the layers.

    Raises:
        ModelError: one is more than its weights, as an adapter is.
    """
    for layer in layers:
        if type(layer) is not nn.Linear:
            raise ModelError(
                f"the fused forward reads the weights of plain linear layers, this one is a {type(layer).__name__}; "
                "set model.attention=packed"
            )
    return cast(tuple[nn.Linear, ...], layers)


def joined(layers: tuple[nn.Linear, ...]) -> tuple[Tensor, Tensor | None]:
    """Return weight and bias of the layers side by side, as they were cast together, if they were."""
    made = {} if torch.compiler.is_compiling() else _cast.get() or {}  # which torch.compile cannot read
    weights = [made.get(layer.weight, layer.weight) for layer in layers]
    biases = [made.get(layer.bias, layer.bias) for layer in layers if layer.bias is not None]
    if len(layers) == 1:
        return weights[0], biases[0] if biases else None
    return torch.cat(weights), torch.cat(biases) if biases else None


def _onednn_multiplies(dtype: torch.dtype) -> bool:
    if not (torch._C._has_mkldnn and torch.backends.mkldnn.enabled):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _ready(x: Tensor, layers: tuple[nn.Linear, ...]) -> Ready:
    store = _prepared.get()
    key = (x.dtype, *layers)
    if store is not None and key in store:
        return store[key]
    weight, bias = joined(layers)
    ready = weight.to(x.dtype), None if bias is None else bias.to(x.dtype)
    if store is not None:
        ready = torch.ops.mkldnn._reorder_linear_weight(ready[0], len(x)), ready[1]
        store[key] = ready
    return ready
