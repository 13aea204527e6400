"""Scores text pairs in one length-sorted pass of packed batches."""

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import distributed

from crossrank.data.batch import collate
from crossrank.data.cache import cached
from crossrank.data.fingerprint import fingerprint
from crossrank.data.progress import progress
from crossrank.data.tokens import PairEncoder, TokenIds, TokenStore, write_tokens
from crossrank.models.cross_encoder import CrossEncoder
from crossrank.models.linear import prepared_weights

TOKENS_ON_GPU = 32768
TOKENS_ON_CPU, TOKENS_IN_AUTOCAST = 2048, 4096  # bfloat16 is 12 % faster with 4096, float32 as fast with either


class PairScorer:
    """Calls a cross-encoder on (question, document) texts: `scorer(pairs) -> float32[pairs]`, logits in their order.

    A text is tokenised once in the scorer's life, so an evaluation that comes back every N steps pays for it once.
    Batches hold at most `tokens_per_batch` tokens (or one pair that is longer) of pairs of similar length, by default
    as many as suit the model's device and dtype; no score depends on which pairs are scored together, but for
    rounding. Equal pairs are scored once, so that their scores are equal to the last bit. In a process group, each
    process scores every n-th batch and all get all scores, the same to the last bit as one process would; unless it
    is `alone`, as where the others have ended.
    """

    def __init__(
        self,
        model: CrossEncoder,
        encoder: PairEncoder,
        tokens_per_batch: int | None = None,
        autocast: torch.dtype | None = None,
    ) -> None:
        if tokens_per_batch is not None and tokens_per_batch < 1:
            raise ValueError(f"tokens_per_batch must be at least 1, got {tokens_per_batch}")
        self.model, self.encoder, self.autocast = model, encoder, autocast
        self.alone = False
        on_cpu = next(model.parameters()).device.type == "cpu"
        suited = (TOKENS_IN_AUTOCAST if autocast else TOKENS_ON_CPU) if on_cpu else TOKENS_ON_GPU
        self.tokens_per_batch = tokens_per_batch or suited
        self._tokens: dict[str, TokenIds] = {}

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> npt.NDArray[np.float32]:
        """Return the logit of each pair; the model is left in the mode it was in."""
        if not pairs:
            return np.zeros(0, np.float32)
        row = {pair: place for place, pair in enumerate(dict.fromkeys(pairs))}
        scores = self._distinct(list(row))
        return scores[[row[pair] for pair in pairs]]

    def remember(self, texts: Iterable[str], cache_dir: Path) -> None:
        """Tokenise the texts, or read how they were tokenised from `cache_dir`, before they are scored.

        Raises:
            CacheError: the cache cannot be written.
        """
        distinct = list(dict.fromkeys(texts))
        named = fingerprint("scored-texts", self.encoder.fingerprint, distinct)
        store = TokenStore.open(
            cached(cache_dir / "tokens" / named, lambda to: write_tokens(self.encoder, distinct, to))
        )
        self._tokens.update((text, store[i]) for i, text in enumerate(distinct))

    def truncated(self, pairs: Sequence[tuple[str, str]]) -> npt.NDArray[np.bool_]:
        """Return which pairs have more tokens than the model takes, so that their texts are cut."""
        self._tokenise(pairs)
        whole = [sum(len(self._tokens[text]) for text in pair) for pair in pairs]
        return np.asarray(whole, np.int64) > self.encoder.max_length - self.encoder.layout.specials

    def forget(self) -> None:
        """Drop all tokenised texts; a scorer that goes on for long would keep every text it has seen."""
        self._tokens.clear()

    def _distinct(self, pairs: Sequence[tuple[str, str]]) -> npt.NDArray[np.float32]:
        self._tokenise(pairs)
        lengths = np.fromiter((self._length(pair) for pair in pairs), np.int64, len(pairs))
        order = np.argsort(-lengths, kind="stable")
        scores, scored = torch.zeros(len(pairs)), []
        modes = {module: module.training for module in self.model.modules()}
        self.model.eval()
        device = next(self.model.parameters()).device
        rank, processes = (0, 1) if self.alone else _place()
        batches = self._batches(order, lengths)[rank::processes]
        prepared = prepared_weights() if len(batches) > 1 else nullcontext()  # of use from the second batch on
        try:
            with (
                torch.inference_mode(), self._precision(device.type), prepared,
                progress("scoring pairs", len(pairs)) as advance,
            ):  # fmt: skip
                for chosen in batches:
                    scored.append(self._score([pairs[i] for i in chosen], device))
                    advance(len(chosen))
        finally:
            for module, training in modes.items():
                module.training = training
        if batches:
            scores[torch.from_numpy(np.concatenate(batches))] = torch.cat(scored).cpu()
        return _gathered(scores, device) if processes > 1 else scores.numpy()

    def _precision(self, device: str) -> torch.autocast:
        return torch.autocast(device, dtype=self.autocast, enabled=bool(self.autocast))

    def _score(self, pairs: Sequence[tuple[str, str]], device: torch.device) -> torch.Tensor:
        """Return logits on the device; the host does not wait for them and collates the next batch meanwhile."""
        batch = collate(self.encoder, [(self._tokens[q], self._tokens[d]) for q, d in pairs])
        if device.type == "cuda":
            batch = batch.pin_memory()
        return cast(torch.Tensor, self.model(batch.to(device, non_blocking=True)))

    def _tokenise(self, pairs: Sequence[tuple[str, str]]) -> None:
        new = list({text: None for pair in pairs for text in pair if text not in self._tokens})
        self._tokens.update(zip(new, self.encoder.encode(new), strict=True))

    def _length(self, pair: tuple[str, str]) -> int:
        question, document = self._tokens[pair[0]], self._tokens[pair[1]]
        return sum(self.encoder.kept(len(question), len(document))) + self.encoder.layout.specials

    def _batches(self, order: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> "list[npt.NDArray[np.int64]]":
        batches, start, tokens = [], 0, 0
        for position, pair in enumerate(order):
            if position > start and tokens + lengths[pair] > self.tokens_per_batch:
                batches.append(order[start:position])
                start, tokens = position, 0
            tokens += lengths[pair]
        return [*batches, order[start:]]


def _place() -> tuple[int, int]:
    """Return this process's rank and how many processes there are."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def _gathered(scores: torch.Tensor, device: torch.device) -> npt.NDArray[np.float32]:
    """Add up what each process scored; to add zeros changes nothing."""
    shared = scores.to(device)  # gloo adds up on the host, nccl on the device
    distributed.all_reduce(shared)
    return shared.cpu().numpy()
