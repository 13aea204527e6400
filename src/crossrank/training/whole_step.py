"""A whole optimizer step as one call: forward, backward, clipping and update, replayed as a CUDA graph.

A small step is bound by the time that the host takes to launch its thousands of kernels. A graph launches them all at
once, but only for tensors of one shape at one place: batches come in few shapes (`PairBatch.of_few_shapes`), and each
shape has a graph of its own, whose inputs a batch is copied into. Source of the design: torch's notes on CUDA graphs,
https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from crossrank.data.batch import PairBatch
from crossrank.losses import Loss
from crossrank.models.cross_encoder import CrossEncoder
from crossrank.training.optim import clip_norm

log = logging.getLogger(__name__)

Shape = tuple[int, int, int]  # tokens with the tail, tokens of the longest sequence at most, pairs


@dataclass(frozen=True)
class StepMode:
    """How a whole step is run.

    `cuda_graph` replays it, `compiled` runs the model's forward and backward through torch.compile. What the machine
    cannot do is left out with a warning.
    """

    cuda_graph: bool
    compiled: bool


@dataclass(frozen=True)
class _Captured:
    graph: Any  # torch.cuda.CUDAGraph
    inputs: PairBatch
    loss: Tensor
    logits: Tensor


class WholeStep:
    """Makes one optimizer step on a batch: `step(batch) -> loss, logits`, on the device; nothing waits for them.

    The first batch of a shape runs eagerly, which is the warm-up that a capture needs; the second is captured. The
    optimizer's lr becomes a tensor, so that a schedule can change what a graph reads.
    """

    def __init__(
        self,
        model: CrossEncoder,
        loss: Loss,
        optimizer: Optimizer,
        clip: float | None,
        forget: Callable[[], None],
        autocast: torch.dtype | None,
        mode: StepMode,
    ) -> None:
        self.model, self.loss, self.optimizer, self.clip, self.autocast = model, loss, optimizer, clip, autocast
        self._forget = forget  # makes the gradients zero or None
        self._device = next(model.parameters()).device
        self._score: Callable[[PairBatch], Tensor] = model
        self.graphs = mode.cuda_graph and self._can_capture()
        self._met: set[Shape] = set()
        self._captured: dict[Shape, _Captured] = {}
        self._pool: Any = None
        if mode.compiled:
            self._compile()
        if self.graphs:
            for group in optimizer.param_groups:
                group["lr"] = torch.tensor(float(group["lr"]), device=self._device)
                group["capturable"] = True

    def __call__(self, batch: PairBatch) -> tuple[Tensor, Tensor]:
        """Train on the batch, which may still lie on the host.

        Returns its loss, a scalar, and its logits float32[pairs], both from before the update and without a graph.
        """
        shape = (len(batch.input_ids), batch.longest, len(batch))
        self.model.computed_tokens = shape[0]  # a replay runs no Python
        if not self.graphs:
            return self._run(batch)
        if shape not in self._met:
            self._met.add(shape)
            return self._warm_up(batch)
        if shape not in self._captured and not self._capture(shape, batch):
            return self._run(batch)
        captured = self._captured[shape]
        _copy(batch, captured.inputs)
        captured.graph.replay()
        return captured.loss.clone(), captured.logits.clone()

    def _run(self, batch: PairBatch) -> tuple[Tensor, Tensor]:
        batch, kind = batch.to(self._device, non_blocking=True), self._device.type
        with torch.autocast(kind, enabled=False):  # Lightning's stands around all of it
            # without the cache: a cast weight that a graph made is no one else's
            with torch.autocast(kind, dtype=self.autocast, enabled=self.autocast is not None, cache_enabled=False):
                logits = self._score(batch)
                loss = self.loss(logits, batch.labels, batch.query_index)
            self._forget()
            loss.backward()  # type: ignore[no-untyped-call]
            if self.clip:
                clip_norm(self.optimizer, self.clip)
            self.optimizer.step()
        return loss.detach(), logits.detach()

    def _warm_up(self, batch: PairBatch) -> tuple[Tensor, Tensor]:
        """Run eagerly beside the current stream, as torch asks for before a capture."""
        current, side = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(current)
        with torch.cuda.stream(side):
            made = self._run(batch)
        current.wait_stream(side)
        return made

    def _capture(self, shape: Shape, batch: PairBatch) -> bool:
        inputs = batch.to(self._device)
        self.optimizer.zero_grad(set_to_none=True)  # the graph makes gradients of its own
        try:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool):
                loss, logits = self._run(inputs)
        except RuntimeError as error:
            log.warning("CUDA graph: capture failed, every step is launched kernel by kernel from here on: %s", error)
            self.graphs = False
            self.optimizer.zero_grad(set_to_none=True)
            return False
        self._pool = self._pool or graph.pool()
        self._captured[shape] = _Captured(graph, inputs, loss, logits)
        log.info("CUDA graph: captured a step of %d tokens, %d graphs in all", shape[0], len(self._captured))
        return True

    def _can_capture(self) -> bool:
        reason = None
        if self._device.type != "cuda":
            reason = f"the model is on {self._device.type}"
        elif not all("capturable" in group for group in self.optimizer.param_groups):
            reason = f"{type(self.optimizer).__name__} has no option capturable"
        elif self.model.attention == "padded":
            reason = "padded attention makes shapes that depend on the batch"
        if reason:
            log.warning("CUDA graph: asked for and not used, every step is launched kernel by kernel: %s", reason)
        return reason is None

    def _compile(self) -> None:
        if self._device.type != "cuda":
            log.warning("torch.compile: asked for and not used, it gains nothing on the CPU")
            return
        compiled: Callable[[PairBatch], Tensor] = torch.compile(self.model, dynamic=True)

        def score(batch: PairBatch) -> Tensor:
            try:
                return compiled(batch)
            except torch._dynamo.exc.TorchDynamoException as error:
                log.warning("torch.compile: failed, the model runs uncompiled from here on: %s", error)
                self._score = self.model
                return self.model(batch)  # type: ignore[no-any-return]

        self._score = score


def _copy(batch: PairBatch, into: PairBatch) -> None:
    for field in fields(PairBatch):
        value = getattr(batch, field.name)
        if isinstance(value, Tensor):
            getattr(into, field.name).copy_(value, non_blocking=True)
