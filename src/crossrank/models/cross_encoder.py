"""A transformers sequence classifier with one label, as a function from packed pairs to logits."""

import logging
from collections.abc import Callable
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from crossrank.data.batch import PairBatch
from crossrank.errors import ModelError
from crossrank.models.attention import PACKED
from crossrank.models.fused import FORWARDS, first_tokens
from crossrank.models.linear import ROUND_ROWS_TO

AttentionPath = Literal["auto", "fused", "packed", "padded"]
ROUND_TOKENS_TO = 64
MANY_TOKENS = 1024  # a question alone must not pay for tokens that it has not

log = logging.getLogger(__name__)


class CrossEncoder(nn.Module):
    """Scores packed pairs with a Hugging Face `*ForSequenceClassification`, whose parameters it leaves as they are.

    `attention` chooses the way to the same logits:

    - `fused`: our own forward over the packed row; BERT and ModernBERT.
    - `packed`: the backbone's own modules over the packed row, then its head on each pair: the other `HEADS`.
    - `padded`: padded rows through the classifier itself: the reference, and the way for what packed attention cannot
      do (attention dropout, float32 on CUDA).
    - `auto`: `fused` where there is one and nothing is adapted, else `packed`.

    With `recompute`, the backward pass computes each layer again instead of keeping its intermediate results.

    `computed_tokens` tells how many tokens the last forward pass computed: the batch's own and those that only fill a
    shape. `adapted` tells whether adapters stand around layers of the classifier.

    Raises:
        ModelError: the classifier has not one label, or the way does not know its kind or its adapters.
    """

    computed_tokens: int

    def __init__(self, classifier: nn.Module, attention: AttentionPath = "auto", recompute: bool = False) -> None:
        super().__init__()
        self.classifier = classifier
        self.config = cast(Any, classifier).config
        if self.config.num_labels != 1:
            raise ModelError(f"a reranker has one label, this model has {self.config.num_labels}")
        self.adapted = any(hasattr(module, "base_layer") for module in classifier.modules())
        self.attention = _resolved(attention, self.config.model_type, self.adapted)
        self.recompute = recompute
        if recompute:
            cast(Any, classifier).activation_checkpointing_enable()
        cast(Any, classifier).set_attn_implementation("sdpa" if self.attention == "padded" else PACKED)

    @property
    def word_embedding(self) -> nn.Embedding:
        """The table of word vectors."""
        return cast(nn.Embedding, cast(Any, self.classifier).get_input_embeddings())

    def forward(self, batch: PairBatch) -> Tensor:
        """Return logits float32[pairs].

        Raises:
            ModelError: a packed batch would reach an attention function that does not honour its offsets.
        """
        pairs = len(batch)
        if self.attention == "padded":
            self.computed_tokens = pairs * batch.longest
            return self._padded(batch.without_tail()).float().view(-1)
        batch = batch.rounded(self._multiple(batch.input_ids.device.type, batch.tokens))
        self.computed_tokens = len(batch.input_ids)
        hidden, offsets = self._fused(batch) if self.attention == "fused" else self._packed(batch)
        return HEADS[self.config.model_type](self.classifier, hidden, offsets)[:pairs].float().view(-1)

    def _multiple(self, device: str, tokens: int) -> int:
        """Return what the number of tokens is rounded up to.

        bfloat16's matrix kernels are compiled and cached for each number of tokens; without it nearly every batch has
        a new one, which costs time and memory. float32 products on the CPU gain no time from it, but oneDNN's, where
        there are no gradients, keep some 0.1 MiB for each number for good.
        """
        exact = self.word_embedding.weight.dtype == torch.float32 and not torch.is_autocast_enabled(device)
        if device != "cpu" or not exact:
            return ROUND_TOKENS_TO
        if torch.is_grad_enabled():
            return 1
        return ROUND_TOKENS_TO if tokens >= MANY_TOKENS else ROUND_ROWS_TO

    def _fused(self, batch: PairBatch) -> tuple[Tensor, Tensor]:
        return FORWARDS[self.config.model_type](self.classifier, batch, self.recompute)

    def _packed(self, batch: PairBatch) -> tuple[Tensor, Tensor]:
        if self.config._attn_implementation != PACKED:
            raise ModelError(
                f"a packed batch would meet {self.config._attn_implementation!r} attention, which sees across pairs; "
                "use attention='padded' or leave the attention function alone"
            )
        backbone = cast(Any, self.classifier).base_model
        types = {"token_type_ids": batch.token_type_ids[None]} if has_token_types(self.config) else {}
        hidden: Tensor = backbone(
            input_ids=batch.input_ids[None],
            position_ids=batch.position_ids[None] + _first_position(self.config),
            offsets=batch.offsets,
            longest=batch.longest,
            **types,
        ).last_hidden_state[0]
        return hidden, batch.offsets

    def _padded(self, batch: PairBatch) -> Tensor:
        lengths = batch.offsets.diff().long()
        mask = torch.arange(batch.longest, device=lengths.device)[None] < lengths[:, None]
        inputs = {"input_ids": (batch.input_ids, self.config.pad_token_id or 0)}
        if has_token_types(self.config):
            inputs["token_type_ids"] = (batch.token_type_ids, 0)
        padded = {}
        for name, (flat, fill) in inputs.items():
            padded[name] = flat.new_full(mask.shape, fill)
            padded[name][mask] = flat
        logits: Tensor = self.classifier(**padded, attention_mask=mask.long()).logits
        return logits


def _resolved(attention: AttentionPath, model_type: str, adapted: bool) -> AttentionPath:
    if attention == "auto":
        attention = "fused" if model_type in FORWARDS and not adapted else "packed"
        if attention == "packed":
            what = f"adapted {model_type}" if adapted else model_type
            log.info("there is no fused forward for %s: its own modules are used, on packed rows", what)
    elif attention == "fused" and adapted:
        raise ModelError("the fused forward has no place for adapters; set attention to auto, packed or padded")
    known = {"fused": sorted(FORWARDS), "packed": sorted(HEADS)}.get(attention)
    if known is not None and model_type not in known:
        raise ModelError(
            f"{attention} attention knows the heads of {', '.join(known)}, not of {model_type!r}; "
            "set model.attention=padded"
        )
    return attention


def mean_tokens(hidden: Tensor, offsets: Tensor) -> Tensor:
    """Return the mean state of each sequence, [pairs, width]."""
    lengths = offsets.diff().long()
    owner = torch.repeat_interleave(torch.arange(len(lengths), device=hidden.device), lengths, output_size=len(hidden))
    sums = hidden.new_zeros(len(lengths), hidden.shape[-1]).index_add(0, owner, hidden)
    return sums / lengths[:, None].to(hidden.dtype)


def _bert_head(model: Any, hidden: Tensor, offsets: Tensor) -> Tensor:
    pooled = model.bert.pooler(first_tokens(hidden, offsets)[:, None])
    logits: Tensor = model.classifier(model.dropout(pooled))
    return logits


def _modernbert_head(model: Any, hidden: Tensor, offsets: Tensor) -> Tensor:
    pool = first_tokens if model.config.classifier_pooling == "cls" else mean_tokens
    logits: Tensor = model.classifier(model.drop(model.head(pool(hidden, offsets))))
    return logits


def _first_token_head(model: Any, hidden: Tensor, offsets: Tensor) -> Tensor:
    """The head of RoBERTa and its kin takes [pairs, tokens, width] and looks at the first token itself."""
    logits: Tensor = model.classifier(first_tokens(hidden, offsets)[:, None])
    return logits


Head = Callable[[Any, Tensor, Tensor], Tensor]
HEADS: dict[str, Head] = {
    "bert": _bert_head,
    "modernbert": _modernbert_head,
    "roberta": _first_token_head,
    "xlm-roberta": _first_token_head,
    "electra": _first_token_head,
}


def has_token_types(config: Any) -> bool:
    """Whether the model tells question from document by token types."""
    return getattr(config, "type_vocab_size", 0) > 1


def _first_position(config: Any) -> int:
    """RoBERTa counts positions from padding_idx + 1."""
    return config.pad_token_id + 1 if config.model_type in ("roberta", "xlm-roberta") else 0


def longest_input(config: Any) -> int:
    """Return how many tokens the backbone's position table or window allows."""
    return int(config.max_position_embeddings) - _first_position(config)
