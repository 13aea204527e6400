"""BERT and ModernBERT over one packed row, straight from the parameters of the transformers modules.

The same mathematics with fewer and larger steps than the modules' own forward: one matrix product for query, key and
value, one cast of each hidden state, and where the head looks at first tokens only, a last layer that is computed for
them alone (its keys and values still come from all tokens). The modules keep their parameters, so a state dict or an
export sees nothing of it; layers that were put around them, such as an adapter's, are refused rather than left out.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn
from torch.utils.checkpoint import checkpoint

from crossrank.data.batch import PairBatch
from crossrank.models.attention import Rotation, attend, refuse_dropout
from crossrank.models.linear import joined, linear, plain, weights_cast_together


def bert_hidden(classifier: Any, batch: PairBatch, recompute: bool = False) -> tuple[Tensor, Tensor]:
    """Return a `BertForSequenceClassification`'s last hidden states and the offsets of each pair's.

    They are the first tokens', [pairs, width], for the head sees no others. With `recompute`, the backward pass
    computes each layer again instead of keeping its intermediate results: less memory for more time.
    """
    bert = classifier.bert
    embeddings = bert.embeddings
    refuse_dropout(bert.encoder.layer[0].attention.self.dropout.p if classifier.training else 0.0)
    hidden = (
        embeddings.word_embeddings(batch.input_ids)
        + embeddings.token_type_embeddings(batch.token_type_ids)
        + embeddings.position_embeddings(batch.position_ids)
    )
    hidden = embeddings.dropout(embeddings.LayerNorm(hidden))
    last = len(bert.encoder.layer) - 1
    with _weights_of(bert.encoder, hidden, recompute):
        for index, layer in enumerate(bert.encoder.layer):
            hidden = _run(_bert_layer, recompute, layer, hidden, batch, index == last)
    return hidden, _one_each(batch)


def _bert_layer(layer: Any, hidden: Tensor, batch: PairBatch, first_only: bool) -> Tensor:
    attention, output = layer.attention.self, layer.attention.output
    heads = attention.num_attention_heads
    x = _as_product_input(hidden)
    if first_only:
        hidden = first_tokens(hidden, batch.offsets)
        first = linear(first_tokens(x, batch.offsets), attention.query).view(len(hidden), heads, -1)
        joint = linear(x, attention.key, attention.value)
    else:
        first, joint = None, linear(x, attention.query, attention.key, attention.value)
    joint = joint.view(len(x), 2 if first_only else 3, heads, -1)
    seen = attend(joint, batch.offsets, batch.longest, scale=attention.scaling, first=first)
    hidden = output.LayerNorm(output.dropout(linear(seen.flatten(-2), output.dense)) + hidden)
    dense, activation = layer.intermediate.dense, layer.intermediate.intermediate_act_fn
    x, gelu = _as_product_input(hidden), getattr(activation, "act", None) is F.gelu
    wide = linear(x, dense, gelu=True) if gelu else activation(linear(x, dense))
    return cast(Tensor, layer.output.LayerNorm(layer.output.dropout(linear(wide, layer.output.dense)) + hidden))


def modernbert_hidden(classifier: Any, batch: PairBatch, recompute: bool = False) -> tuple[Tensor, Tensor]:
    """Return a `ModernBertForSequenceClassification`'s last hidden states and the offsets of each pair's.

    They are the first tokens', [pairs, width], where the head sees no others and the last layer has no window, and
    otherwise all tokens', [tokens, width]. `recompute` as for BERT.
    """
    model, config = classifier.model, classifier.config
    refuse_dropout(config.attention_dropout if classifier.training else 0.0)
    hidden = model.embeddings(input_ids=batch.input_ids)
    kinds = config.layer_types
    rotations = {kind: _rotation(model, hidden, batch, kind) for kind in set(kinds)}
    first_tokens_do = config.classifier_pooling == "cls" and kinds[-1] == "full_attention"
    last = len(kinds) - 1
    with _weights_of(model.layers, hidden, recompute):
        for index, (layer, kind) in enumerate(zip(model.layers, kinds, strict=True)):
            first_only = first_tokens_do and index == last
            hidden = _run(_modernbert_layer, recompute, layer, hidden, batch, rotations[kind], first_only)
    return model.final_norm(hidden), _one_each(batch) if first_tokens_do else batch.offsets


def _modernbert_layer(layer: Any, hidden: Tensor, batch: PairBatch, rotation: Rotation, first_only: bool) -> Tensor:
    attention = layer.attn
    window = None if attention.sliding_window is None else attention.sliding_window - 1
    x = _as_product_input(layer.attn_norm(hidden))
    if first_only:
        weights, bias = joined(plain(attention.Wqkv))
        hidden = first_tokens(hidden, batch.offsets)
        width = weights.shape[1]
        first = F.linear(first_tokens(x, batch.offsets), weights[:width], None if bias is None else bias[:width])
        first = first.view(len(hidden), -1, attention.head_dim)
        joint = F.linear(x, weights[width:], None if bias is None else bias[width:])
    else:
        first, joint = None, linear(x, attention.Wqkv)
    joint = joint.view(len(x), 2 if first_only else 3, -1, attention.head_dim)
    seen = attend(joint, batch.offsets, batch.longest, window, rotation=rotation, first=first)
    hidden = hidden + attention.out_drop(linear(seen.flatten(-2), attention.Wo))
    mlp, x = layer.mlp, _as_product_input(layer.mlp_norm(hidden))
    wide, gate = linear(x, mlp.Wi).chunk(2, dim=-1)
    return hidden + linear(mlp.drop(mlp.act(wide) * gate), mlp.Wo)


def _rotation(model: Any, hidden: Tensor, batch: PairBatch, kind: str) -> Rotation:
    cos, sin = (x[0] for x in model.rotary_emb(hidden.float(), batch.position_ids[None], kind))
    left, right = sin.chunk(2, dim=-1)
    return cos, torch.cat([-left, right], dim=-1)


def _as_product_input(x: Tensor) -> Tensor:
    """Cast once, where autocast would cast for each of several products."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


def first_tokens(hidden: Tensor, offsets: Tensor) -> Tensor:
    """Return the first token's state of each sequence, [pairs, width]."""
    return hidden.index_select(0, offsets[:-1].long())


def _one_each(batch: PairBatch) -> Tensor:
    return torch.arange(len(batch.offsets), dtype=torch.int32, device=batch.offsets.device)


def _run(layer: Callable[..., Tensor], recompute: bool, *inputs: Any) -> Tensor:
    if recompute and torch.is_grad_enabled():
        return cast(Tensor, checkpoint(layer, *inputs, use_reentrant=False))
    return layer(*inputs)


def _weights_of(layers: nn.Module, hidden: Tensor, recompute: bool) -> AbstractContextManager[None]:
    """Cast the weights of all layers together where launches are what a step waits for: learning on one GPU.

    Several processes exchange a layer's gradients while those of others are computed, and who recomputes has no memory
    for them all in bfloat16 beside those in float32. torch.compile fuses the casts its own way.
    """
    learns = hidden.is_cuda and torch.is_grad_enabled() and torch.is_autocast_enabled("cuda")
    alone = not (distributed.is_available() and distributed.is_initialized())
    if learns and alone and not recompute and not torch.compiler.is_compiling():
        return weights_cast_together(layers, torch.get_autocast_dtype("cuda"))
    return nullcontext()


Forward = Callable[[Any, PairBatch, bool], tuple[Tensor, Tensor]]
FORWARDS: dict[str, Forward] = {"bert": bert_hidden, "modernbert": modernbert_hidden}
