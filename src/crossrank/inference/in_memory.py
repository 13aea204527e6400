"""What a model in memory makes of the probe, in float32 on the CPU: what its export has to equal."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from crossrank.data.batch import collate
from crossrank.data.tokens import PairEncoder
from crossrank.inference.probe import Pair, Probe
from crossrank.models.attention import PACKED
from crossrank.models.cross_encoder import CrossEncoder

Logits = npt.NDArray[np.float32]


@dataclass(frozen=True)
class InMemory:
    """A model and its encoder, asked about the probe; the model is left as it was."""

    model: CrossEncoder
    encoder: PairEncoder

    @cached_property
    def probe(self) -> Probe:
        """The pairs, for the encoder's `max_length`."""
        return Probe(self.encoder.max_length)

    @cached_property
    def padded(self) -> Logits:
        """The logits of the padded way through the classifier itself, the reference."""
        with _evaluated(self.model) as model, _padded(model):
            return self._logits(model)

    @cached_property
    def in_use(self) -> Logits:
        """The logits of the way that the model is set to."""
        with _evaluated(self.model) as model:
            return self._logits(model)

    @cached_property
    def ids(self) -> list[list[int]]:
        """The tokens of each pair, and last those of the longest."""
        pairs = [*self.probe.pairs, self.probe.longest]
        return [self.encoder.join(*self._encoded(pair))[0].tolist() for pair in pairs]

    def _encoded(self, pair: Pair) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        question, document = self.encoder.encode(pair)
        return question, document

    def _logits(self, model: CrossEncoder) -> Logits:
        batches = [collate(self.encoder, [self._encoded(pair) for pair in group]) for group in self.probe.groups]
        with torch.inference_mode():
            return torch.cat([model(batch) for batch in batches]).numpy()


@contextmanager
def _evaluated(model: CrossEncoder) -> Iterator[CrossEncoder]:
    """Yield the model in evaluation mode, in float32 on the CPU: a copy where it is not there."""
    weights = next(model.parameters())
    if weights.device.type != "cpu" or weights.dtype != torch.float32:
        yield copy.deepcopy(model).cpu().float().eval()
        return
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield model
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def _padded(model: CrossEncoder) -> Iterator[None]:
    way, classifier = model.attention, model.classifier
    model.attention = "padded"
    classifier.set_attn_implementation("sdpa")  # type: ignore[operator]
    try:
        yield
    finally:
        model.attention = way
        classifier.set_attn_implementation("sdpa" if way == "padded" else PACKED)  # type: ignore[operator]
