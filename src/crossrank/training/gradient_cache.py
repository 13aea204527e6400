"""A step in pieces whose loss sees all of them: the gradient of a large step in the memory of a small one.

The loss needs the logits of all pairs, which are few, and not what the model computed on the way to them. So the pieces
are scored without keeping that; the loss gives its gradient at the logits; and each piece is scored again, this time to
carry its part of that gradient back to the weights.

Source: Gao et al., Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup, RepL4NLP 2021, there of
embeddings. The last piece is scored once here: it goes back at once.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from crossrank.data.batch import PairBatch
from crossrank.losses import Loss
from crossrank.models.cross_encoder import ROUND_TOKENS_TO, CrossEncoder

RandomState = tuple[Tensor, Tensor | None]  # of the CPU and of the device


@dataclass(frozen=True)
class _Waiting:
    """What the second half of a step needs: the pieces, the states they were scored in, and their gradients."""

    pieces: list[PairBatch]
    states: list[RandomState]
    last: Tensor
    gradients: tuple[Tensor, ...]


class GradientCache:
    """Computes a step in at most `pieces` pieces: `score(batch) -> loss, logits`, then `backward()`.

    Loss and gradients are those of the step in one piece but for rounding, whatever the loss. Dropout drops the same
    in both passes, and not what it would in one piece. It takes up to twice the forward passes of a plain step.
    """

    def __init__(self, model: CrossEncoder, loss: Loss, pieces: int, autocast: torch.dtype | None) -> None:
        self.model, self.loss, self.pieces, self.autocast = model, loss, pieces, autocast
        self.computed_tokens = 0  # of the last batch, each counted once
        self._device = next(model.parameters()).device
        self._waiting: _Waiting | None = None

    def score(self, batch: PairBatch) -> tuple[Tensor, Tensor]:
        """Return the batch's loss, a scalar, and its logits float32[pairs], both without a graph.

        The batch should lie on the host, where it is cut.
        """
        *pieces, final = (self._shaped(piece) for piece in batch.pieces(self.pieces))
        labels, query_index = (x.to(self._device, non_blocking=True) for x in (batch.labels, batch.query_index))
        states, logits, self.computed_tokens = [], [], 0
        with self._cast():
            for piece in pieces:
                states.append(self._random_state())
                with torch.no_grad():
                    logits.append(self._logits(piece))
            last = self._logits(final)
            leaf = torch.cat([*logits, last.detach()]).requires_grad_()
            loss = self.loss(leaf, labels, query_index)
        (gradient,) = torch.autograd.grad(loss, leaf)
        sizes = [len(piece) for piece in (*pieces, final)]
        self._waiting = _Waiting(pieces, states, last, torch.split(gradient, sizes))
        return loss.detach(), leaf.detach()

    def backward(self) -> None:
        """Add the gradient of the loss that `score` returned last to that of the weights."""
        assert self._waiting is not None, "there is nothing to go back from: score a batch first"
        waiting, self._waiting = self._waiting, None
        *gradients, final = waiting.gradients
        waiting.last.backward(final)  # type: ignore[no-untyped-call]
        devices = [self._device] if self._device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            for piece, state, gradient in zip(waiting.pieces, waiting.states, gradients, strict=True):
                self._set_random_state(state)
                with self._cast():
                    logits = self.model(piece)
                logits.backward(gradient)

    def _shaped(self, piece: PairBatch) -> PairBatch:
        """Return the piece on the device, and with a tail where passes with and without a graph would differ in it.

        Dropout would draw other numbers for another number of tokens.
        """
        return piece.rounded(ROUND_TOKENS_TO).to(self._device, non_blocking=True)

    def _logits(self, piece: PairBatch) -> Tensor:
        logits: Tensor = self.model(piece)
        self.computed_tokens += self.model.computed_tokens
        return logits

    def _cast(self) -> torch.autocast:
        # without the cache: some versions of torch take what was cast without a graph for what needs one
        kind, wanted = self._device.type, self.autocast is not None
        return torch.autocast(kind, dtype=self.autocast, enabled=wanted, cache_enabled=False)

    def _random_state(self) -> RandomState:
        on_device = torch.cuda.get_rng_state(self._device) if self._device.type == "cuda" else None
        return torch.get_rng_state(), on_device

    def _set_random_state(self, state: RandomState) -> None:
        on_host, on_device = state
        torch.set_rng_state(on_host)
        if on_device is not None:
            torch.cuda.set_rng_state(on_device, self._device)
