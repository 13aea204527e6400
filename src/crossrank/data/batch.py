"""A batch of pairs without padding."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from crossrank.data.tokens import PairEncoder, TokenIds


@dataclass
class PairBatch:
    """Packed pairs: pair i is the tokens [offsets[i], offsets[i + 1]) of one row."""

    input_ids: Tensor  # int64 [tokens]
    position_ids: Tensor  # int64 [tokens], from 0 in each pair
    token_type_ids: Tensor  # int64 [tokens]
    offsets: Tensor  # int32 [pairs + 1]
    labels: Tensor  # float32 [pairs]
    query_index: Tensor  # int64 [pairs]: pairs of the same question share a number, from 0 in each batch
    longest: int  # tokens of the longest pair, on the host so that no kernel launch has to wait for it
    token_pairs: int  # sum of squared lengths: what attention costs

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def tokens(self) -> int:
        """How many tokens the batch holds; none of them is padding."""
        return len(self.input_ids)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "PairBatch":
        """Return the batch on a device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "PairBatch":
        """Return the batch in pinned memory; torch's DataLoader calls this."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, change: Callable[[Tensor], Tensor]) -> "PairBatch":
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: change(value) for name, value in values.items() if isinstance(value, Tensor)})  # type: ignore[arg-type]


def collate(
    encoder: PairEncoder,
    pairs: Sequence[tuple[TokenIds, TokenIds]],
    labels: npt.ArrayLike | None = None,
    questions: npt.ArrayLike | None = None,
) -> PairBatch:
    """Pack tokenised (question, document) pairs into one batch.

    `labels` default to 0; `questions` are any ids of the pairs' questions and default to one question a pair.
    """
    joined = [encoder.join(question, document) for question, document in pairs]
    lengths = np.fromiter((len(ids) for ids, _ in joined), np.int64, len(joined))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    positions = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    numbered = np.arange(len(pairs)) if questions is None else np.unique(questions, return_inverse=True)[1]
    return PairBatch(
        input_ids=_int64(np.concatenate([ids for ids, _ in joined])),
        position_ids=_int64(positions),
        token_type_ids=_int64(np.concatenate([types for _, types in joined])),
        offsets=torch.from_numpy(offsets.astype(np.int32)),
        labels=torch.zeros(len(pairs)) if labels is None else torch.from_numpy(np.asarray(labels, np.float32)),
        query_index=_int64(numbered),
        longest=int(lengths.max()),
        token_pairs=int(np.square(lengths).sum()),
    )


def _int64(values: npt.NDArray[np.integer]) -> Tensor:
    return torch.from_numpy(values.astype(np.int64))
