"""Every distinct text tokenised once; a pair's ids are joined from its two texts as the tokenizer would.

`longest_first` truncation, special tokens and token types are those of the tokenizer's own pair encoding; the tests
hold the two equal.
"""

import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from crossrank.data.cache import growing_arrays, save_array
from crossrank.data.fingerprint import fingerprint
from crossrank.data.progress import progress
from crossrank.errors import ModelError

log = logging.getLogger(__name__)

TokenIds = npt.NDArray[np.int32]
TEXTS_PER_BLOCK = 4096


@dataclass(frozen=True)
class Layout:
    """The special tokens around the two texts of a pair, and the token type of each of the five parts."""

    prefix: TokenIds
    middle: TokenIds
    suffix: TokenIds
    types: tuple[int, int, int, int, int]  # prefix, question, middle, document, suffix

    @property
    def specials(self) -> int:
        """How many tokens a pair has besides its texts."""
        return len(self.prefix) + len(self.middle) + len(self.suffix)


class PairEncoder:
    """A tokenizer seen as a function from two texts to one packed sequence of at most `max_length` tokens.

    Raises:
        ModelError: the tokenizer puts no special token before, between or after a pair, or `max_length` leaves no
            room for text.
    """

    def __init__(self, tokenizer: Any, max_length: int) -> None:  # Any: transformers' tokenizers are untyped
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.layout = _probe_layout(tokenizer)
        if max_length < self.layout.specials + 2:
            raise ModelError(
                f"max_length {max_length} leaves no room for text: the tokenizer adds {self.layout.specials} special "
                f"tokens to a pair, so at least {self.layout.specials + 2} are needed"
            )

    @cached_property
    def fingerprint(self) -> str:
        """An id of the tokenizer's content and of `max_length`."""
        return fingerprint("tokens-1", self.content, self.max_length)

    @cached_property
    def content(self) -> str:
        """An id of the tokenizer's content."""
        content = json.loads(self.tokenizer.backend_tokenizer.to_str())
        state = {"truncation": None, "padding": None}  # what the last call asked for is no part of the tokenizer
        return fingerprint(content | state)

    def encode(self, texts: Sequence[str]) -> list[TokenIds]:
        """Return the ids of each whole text, without special tokens."""
        if not texts:
            return []
        encoded = self.tokenizer(list(texts), add_special_tokens=False, verbose=False, return_attention_mask=False)
        return [np.asarray(ids, np.int32) for ids in encoded["input_ids"]]

    def join(self, question: TokenIds, document: TokenIds) -> tuple[TokenIds, TokenIds]:
        """Return the pair's ids and token types, truncated longest first to `max_length`."""
        a, b = self.kept(len(question), len(document))
        parts = (self.layout.prefix, question[:a], self.layout.middle, document[:b], self.layout.suffix)
        lengths = [len(part) for part in parts]
        return np.concatenate(parts), np.repeat(np.asarray(self.layout.types, np.int32), lengths)

    def kept(self, question: int, document: int) -> tuple[int, int]:
        """Return how many tokens of each text stay.

        The longer text is cut first; once both are equal, they are cut alike and an odd token goes to the longer
        one (to the document when they are equally long).
        """
        room = self.max_length - self.layout.specials
        if question + document <= room:
            return question, document
        short, long = sorted((question, document))
        short = min(short, room // 2)
        long = room - short
        return (long, short) if question > document else (short, long)


@dataclass(frozen=True)
class TokenStore:
    """Token ids of many texts, flat and memory-mapped: text i is `ids[offsets[i]:offsets[i + 1]]`."""

    ids: npt.NDArray[np.integer]
    offsets: npt.NDArray[np.int64]

    @classmethod
    def open(cls, folder: Path) -> "TokenStore":
        """Map a store that `write_tokens` wrote."""
        return cls(np.load(folder / "ids.npy", mmap_mode="r"), np.load(folder / "offsets.npy", mmap_mode="r"))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, text: int) -> TokenIds:
        return np.asarray(self.ids[self.offsets[text] : self.offsets[text + 1]], np.int32)


def write_tokens(encoder: PairEncoder, texts: Sequence[str], folder: Path) -> None:
    """Tokenise the texts into `folder`, a block at a time."""
    lengths: list[npt.NDArray[np.int64]] = []
    dtype = np.uint16 if len(encoder.tokenizer) <= np.iinfo(np.uint16).max else np.int32
    with growing_arrays(folder, {"ids": dtype}) as append, progress("tokenising", len(texts)) as advance:
        for ids in _blocks(encoder, texts):
            append(np.concatenate(ids))
            advance(len(ids))
            lengths.append(np.fromiter(map(len, ids), np.int64, len(ids)))
    offsets = np.concatenate([np.zeros(1, np.int64), *lengths]).cumsum()
    save_array(folder / "offsets.npy", offsets)
    too_long = int((np.diff(offsets) > encoder.max_length - encoder.layout.specials).sum())
    if too_long:
        log.warning(
            "%d of %d texts are longer than max_length = %d and are cut", too_long, len(texts), encoder.max_length
        )


def _blocks(encoder: PairEncoder, texts: Sequence[str]) -> Iterable[list[TokenIds]]:
    for start in range(0, len(texts), TEXTS_PER_BLOCK):
        yield encoder.encode(texts[start : start + TEXTS_PER_BLOCK])


def _probe_layout(tokenizer: Any) -> Layout:
    encoded = tokenizer("a", "b", return_token_type_ids=True)
    ids = np.asarray(encoded["input_ids"], np.int32)
    sequence = np.asarray([-1 if part is None else part for part in encoded.sequence_ids()])
    question, document = np.nonzero(sequence == 0)[0], np.nonzero(sequence == 1)[0]
    prefix, middle, suffix = ids[: question[0]], ids[question[-1] + 1 : document[0]], ids[document[-1] + 1 :]
    missing = [name for name, part in (("before", prefix), ("between", middle), ("after", suffix)) if not len(part)]
    if missing:
        raise ModelError(
            f"the tokenizer puts no special token {' and '.join(missing)} the texts of a pair; a cross-encoder needs "
            "one that writes [CLS] question [SEP] document [SEP] or the like"
        )
    types = np.asarray(encoded["token_type_ids"])
    after = types[document[-1] + 1]
    return Layout(
        prefix, middle, suffix,
        (int(types[0]), int(types[question[0]]), int(types[question[-1] + 1]), int(types[document[0]]), int(after)),
    )  # fmt: skip
