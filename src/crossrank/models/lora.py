"""LoRA: a backbone whose matrices stay as they are, each with a trained product of two small ones beside it."""

import importlib.util
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from crossrank.data.tokens import PairEncoder
from crossrank.errors import ModelError
from crossrank.hub import Asset
from crossrank.models.backbones import Backbone
from crossrank.models.cross_encoder import AttentionPath, CrossEncoder

log = logging.getLogger(__name__)

ADAPTER = "default"  # peft's own name of the only one
WITHIN = ".base_layer."  # stands in the name of a parameter that peft has put something around


@dataclass(frozen=True)
class LoRA:
    """The backbone `base`, of which only low-rank adapters and the head are trained.

    A linear layer W becomes W + alpha / rank * B A with A [rank, in] drawn from the seed and B [out, rank] zero, so
    that the untrained model is that of `base`. `target_modules` names the layers by the last part of their names, such
    as `query` or `Wqkv`; by default it is every linear layer of every encoder layer. The head, which is all that stands
    between the last encoder layer and the logit, BERT's pooler with it, is trained as it is. `dropout` is that of what
    goes into A.

    The adapters are peft's; what is exported has them added to the matrices and needs no peft. The fused forward reads
    plain matrices only, so an adapted model is computed by the backbone's own modules: on packed rows, or padded where
    `base` says so.

    Source: Hu et al., LoRA, ICLR 2022; all linear layers: Dettmers et al., QLoRA, NeurIPS 2023.
    """

    base: Backbone
    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    target_modules: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"rank must be at least 1, got {self.rank}")
        if self.alpha < 1:
            raise ValueError(f"alpha, by which the adapters are scaled, must be at least 1, got {self.alpha}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is a probability, from 0 to below 1, got {self.dropout}")
        if isinstance(self.base, LoRA):
            raise ValueError("base is adapted already; give it a backbone that is not")
        if getattr(self.base, "attention", None) == "fused":
            raise ValueError("the fused forward has no place for adapters; set base.attention=packed or auto")
        if importlib.util.find_spec("peft") is None:
            raise ValueError("LoRA needs peft, which is not installed; pip install -e '.[lora]'")

    def assets(self) -> Sequence[Asset]:
        """Return what the base fetches."""
        return self.base.assets()

    def encoder(self) -> PairEncoder:
        """Return the base's tokenizer."""
        return self.base.encoder()

    def build(self, seed: int) -> CrossEncoder:
        """Return the base with adapters, in training mode, all that is new drawn from `seed`.

        Raises:
            ModelError: the base cannot be built, or has no linear layer of a name in `target_modules`.
        """
        model = self.base.build(seed)
        adapt(model.classifier, self, seed)
        _log_trained(model.classifier)
        attention: AttentionPath = "auto" if model.attention == "fused" else model.attention
        return CrossEncoder(model.classifier, attention, model.recompute).train()


def adapt(classifier: Any, settings: LoRA, seed: int) -> None:
    """Put adapters beside the linear layers of a classifier, in place, and leave them and the head alone to be trained.

    Raises:
        ModelError: no linear layer has a name that is wanted.
    """
    from peft import LoraConfig, inject_adapter_in_model

    head = _head(classifier)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=_targets(classifier, settings.target_modules),
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        inject_adapter_in_model(config, classifier)
    for parameter in head:
        parameter.requires_grad_(True)


def merged_state(classifier: nn.Module) -> Mapping[str, Tensor]:
    """Return a classifier's state as that of a plain one: adapters are added to the matrices they stand beside.

    The classifier is left as it is. Without adapters it is its own state.
    """
    state = {name: value for name, value in classifier.state_dict().items() if ".lora_" not in name}
    for name, module in classifier.named_modules():
        if hasattr(module, "get_delta_weight"):
            change = cast(Any, module).get_delta_weight(ADAPTER).detach()
            state[f"{name}{WITHIN}weight"] = state[f"{name}{WITHIN}weight"] + change
    return {name.replace(WITHIN, "."): value for name, value in state.items()}


def _head(classifier: Any) -> list[nn.Parameter]:
    backbone = f"{classifier.base_model_prefix}."
    named = classifier.named_parameters()
    return [parameter for name, parameter in named if not name.startswith(backbone) or ".pooler." in name]


def _targets(classifier: Any, wanted: Sequence[str] | None) -> list[str]:
    """Return the full names of the linear layers in the encoder's layers, or of those of them that are wanted.

    Raises:
        ModelError: a name that is wanted is none of theirs.
    """
    encoder = classifier.base_model
    prefix = classifier.base_model_prefix
    layers = next((part for part in encoder.modules() if isinstance(part, nn.ModuleList)), nn.ModuleList())
    inside = {id(module) for module in layers.modules()}
    found = [
        f"{prefix}.{name}" for name, module in encoder.named_modules()
        if type(module) is nn.Linear and id(module) in inside
    ]  # fmt: skip
    known = list(dict.fromkeys(name.rpartition(".")[2] for name in found))
    if unknown := [name for name in wanted or () if name not in known]:
        raise ModelError(
            f"no linear layer of the {classifier.config.model_type}'s is called {unknown[0]!r}; target_modules can "
            f"name: {', '.join(known)}"
        )
    return [name for name in found if wanted is None or name.rpartition(".")[2] in wanted]


def _log_trained(classifier: nn.Module) -> None:
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in classifier.parameters()]
    trained, everything = sum(size for size, trains in sizes if trains), sum(size for size, _ in sizes)
    log.info("LoRA trains %s of %s parameters, %.2f %%", f"{trained:,}", f"{everything:,}", 100 * trained / everything)
