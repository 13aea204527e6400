"""The gradient of a large word embedding, of which a step touches few rows."""

import torch
from torch import Tensor, nn


class TouchedRows:
    """Keeps an embedding's dense gradient between steps and clears only the rows that were written.

    torch would allocate, fill and add up all of it in every step: 47 MB for 30,522 words of MiniLM, of which a step of
    16 pairs touches 3 %. Here autograd hands over the touched rows alone and adds them to the gradient that is there.
    The gradient, and so the optimizer's step, is the same.
    """

    def __init__(self, embedding: nn.Embedding) -> None:
        self.embedding = embedding
        self._gradient = torch.zeros_like(embedding.weight)
        self._rows: list[Tensor] = []
        embedding.sparse = True
        self._handle = embedding.weight.register_hook(self._note)  # type: ignore[no-untyped-call]

    def clear(self) -> None:
        """Make the gradient zero, and the embedding's again; call it where the others are set to None."""
        for rows in self._rows:
            self._gradient.index_fill_(0, rows, 0.0)
        self._rows.clear()
        self.embedding.weight.grad = self._gradient

    def close(self) -> None:
        """Leave the embedding as it was, without a gradient."""
        self._handle.remove()
        self.embedding.sparse, self.embedding.weight.grad = False, None

    def _note(self, gradient: Tensor) -> None:
        self._rows.append(gradient._indices()[0])
