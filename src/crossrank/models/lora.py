"""LoRA: matrices stay as they are, and beside each a product of two small ones is trained."""

import importlib.util
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from crossrank.errors import ModelError
from crossrank.models.cross_encoder import AttentionPath, CrossEncoder

log = logging.getLogger(__name__)

ADAPTER = "default"  # peft's own name of the only one
WITHIN = ".base_layer."  # stands in the name of a parameter that peft has put something around


class Adapter(Protocol):
    """A description of what is trained in place of all of a model's parameters."""

    def adapt(self, model: CrossEncoder, seed: int) -> CrossEncoder:
        """Return the model, adapted in place, in training mode, what is new drawn from `seed`."""
        ...


@dataclass(frozen=True)
class LoRA:
    """Low-rank adapters: of a model they and its head are all that is trained.

    A linear layer W becomes W + alpha / rank * B A with A [rank, in] drawn from the seed and B [out, rank] zero, so
    that an untrained model scores as it did. `target_modules` names the layers by the last part of their names, such
    as `query` or `Wqkv`; by default it is every linear layer of every encoder layer. The head, which is all that stands
    between the last encoder layer and the logit, BERT's pooler with it, is trained as it is. `dropout` is that of what
    goes into A.

    The adapters are peft's; what is exported has them added to the matrices and needs no peft. The fused forward reads
    plain matrices only, so the backbone's own modules compute an adapted model: on packed rows, or on padded ones where
    the model was to be padded.

    Source: Hu et al., LoRA, ICLR 2022; all linear layers: Dettmers et al., QLoRA, NeurIPS 2023.
    """

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
        if importlib.util.find_spec("peft") is None:
            raise ValueError("LoRA needs peft, which is not installed; pip install -e '.[lora]'")

    def adapt(self, model: CrossEncoder, seed: int) -> CrossEncoder:
        """Put adapters beside the model's linear layers and freeze all but them and the head.

        Raises:
            ModelError: the model has no linear layer of a name in `target_modules`.
        """
        from peft import LoraConfig, inject_adapter_in_model

        classifier: Any = model.classifier
        head = _head(classifier)
        targets = _targets(classifier, self.target_modules)
        config = LoraConfig(r=self.rank, lora_alpha=self.alpha, lora_dropout=self.dropout, target_modules=targets)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            inject_adapter_in_model(config, classifier)
        for parameter in head:
            parameter.requires_grad_(True)
        _log_trained(classifier)
        attention: AttentionPath = "auto" if model.attention == "fused" else model.attention
        return CrossEncoder(classifier, attention, model.recompute).train()


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
            f"no linear layer of {classifier.config.model_type} is called {unknown[0]!r}; target_modules can "
            f"name: {', '.join(known)}"
        )
    return [name for name in found if wanted is None or name.rpartition(".")[2] in wanted]


def _log_trained(classifier: nn.Module) -> None:
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in classifier.parameters()]
    trained, everything = sum(size for size, trains in sizes if trains), sum(size for size, _ in sizes)
    log.info("LoRA trains %s of %s parameters, %.2f %%", f"{trained:,}", f"{everything:,}", 100 * trained / everything)
