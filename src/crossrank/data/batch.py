"""A batch of pairs without padding."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from crossrank.data.tokens import PairEncoder, TokenIds


@dataclass
class PairBatch:
    """Packed pairs: pair i is the tokens [offsets[i], offsets[i + 1]) of one row.

    A batch may end in a `tail`: meaningless tokens that are a sequence of their own, the last one, and only fill a
    shape. They change nothing, for no token sees another sequence, and nothing counts them.
    """

    input_ids: Tensor  # int64 [tokens]
    position_ids: Tensor  # int64 [tokens], from 0 in each pair
    token_type_ids: Tensor  # int64 [tokens]
    offsets: Tensor  # int32 [pairs + 1], or with a tail [pairs + 2]
    labels: Tensor  # float32 [pairs]
    query_index: Tensor  # int64 [pairs]: pairs of the same question share a number, from 0 in each batch
    longest: int  # tokens of the longest sequence, on the host so that no kernel launch has to wait for it
    token_pairs: int  # sum of squared lengths: what attention costs
    tail: int = 0  # tokens of the tail
    ranks: Tensor | None = None  # int64 [pairs]: 0 for a positive, from 1, the hardest, for its negatives; -1 for none

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def tokens(self) -> int:
        """How many tokens the pairs have; none of them is padding."""
        return len(self.input_ids) - self.tail

    def rounded(self, multiple: int, always: bool = False) -> "PairBatch":
        """Return the batch with a tail that makes its tokens a multiple of `multiple`; one that has a tail keeps it.

        With `always` there are 1 to `multiple` tokens of tail, so that the shapes depend on nothing but the number of
        pairs and the rounded number of tokens.
        """
        tail = -len(self.input_ids) % multiple or (multiple if always else 0)
        if self.tail or not tail:
            return self
        return replace(
            self,
            input_ids=F.pad(self.input_ids, (0, tail)),
            position_ids=torch.cat([self.position_ids, torch.arange(tail, device=self.position_ids.device)]),
            token_type_ids=F.pad(self.token_type_ids, (0, tail)),
            offsets=torch.cat([self.offsets, self.offsets[-1:] + tail]),
            longest=max(self.longest, tail),
            tail=tail,
        )

    def of_few_shapes(self, multiple: int) -> "PairBatch":
        """Return the batch with a tail, its tokens and the bound of its longest sequence multiples of `multiple`."""
        rounded = self.rounded(multiple, always=True)
        return replace(rounded, longest=-(-rounded.longest // multiple) * multiple)

    def without_tail(self) -> "PairBatch":
        """Return the pairs alone."""
        if not self.tail:
            return self
        ids, positions, types = (x[: self.tokens] for x in (self.input_ids, self.position_ids, self.token_type_ids))
        return replace(
            self, input_ids=ids, position_ids=positions, token_type_ids=types, offsets=self.offsets[:-1], tail=0
        )

    def pieces(self, count: int) -> list["PairBatch"]:
        """Return the pairs in `count` batches of about as many tokens, in their order; fewer where pairs are too few.

        `query_index` stays that of the whole; a tail is left out. Offsets that lie on a device are waited for.
        """
        whole, offsets = self.without_tail(), np.asarray(self.offsets.tolist()[: len(self) + 1])
        shares = np.arange(1, count) * (offsets[-1] / count)
        cuts = np.unique([0, *np.searchsorted(offsets, shares), len(self)])
        return [whole._between(start, stop, offsets) for start, stop in pairwise(cuts.tolist())]

    def _between(self, start: int, stop: int, offsets: npt.NDArray[np.int64]) -> "PairBatch":
        pairs, tokens = slice(start, stop), slice(offsets[start], offsets[stop])
        lengths = np.diff(offsets[start : stop + 1])
        return replace(
            self,
            input_ids=self.input_ids[tokens],
            position_ids=self.position_ids[tokens],
            token_type_ids=self.token_type_ids[tokens],
            offsets=self.offsets[start : stop + 1] - self.offsets[start],
            labels=self.labels[pairs],
            query_index=self.query_index[pairs],
            longest=int(lengths.max()),
            token_pairs=int(np.square(lengths).sum()),
            ranks=None if self.ranks is None else self.ranks[pairs],
        )

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
    ranks: npt.ArrayLike | None = None,
) -> PairBatch:
    """Pack tokenised (question, document) pairs into one batch.

    `labels` default to 0; `questions` are any ids of the pairs' questions and default to one question a pair; `ranks`
    are those of `TrainingRows.ranks`, where there are any.
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
        ranks=None if ranks is None else _int64(np.asarray(ranks)),
    )


def _int64(values: npt.NDArray[np.integer]) -> Tensor:
    return torch.from_numpy(values.astype(np.int64))
