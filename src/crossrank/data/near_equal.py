"""Which texts are equal but for case, punctuation and spaces, or nearly equal by MinHash.

Sources: Broder, On the resemblance and containment of documents, 1997, for MinHash; Leskovec, Rajaraman & Ullman,
Mining of Massive Datasets, section 3.4, for bands. Signatures and bands are datasketch's.
"""

import logging
import math
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import numpy as np
import numpy.typing as npt
from datasketch import MinHash, MinHashLSH

from crossrank.data.cache import ArrayWriter
from crossrank.data.fingerprint import fingerprint
from crossrank.errors import DataError

log = logging.getLogger(__name__)

Signatures = npt.NDArray[np.uint32]  # [texts, permutations]

TEXTS_PER_BLOCK = 4096
GRAMS_AT_ONCE = 4096  # whose permuted hashes are in memory together: 2 MB at 128 permutations
WORDLESS = np.iinfo(np.uint32).max  # every minimum of a text without words
SPACELESS = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")
ASCII = "".join(chr(code).lower() if chr(code).isalnum() else " " for code in range(128))


class _Kept(dict[int, str]):
    """What becomes of each character, found when it is first met."""

    def __missing__(self, code: int) -> str:
        letter, category = chr(code), unicodedata.category(chr(code))
        if category == "Cf" or "VARIATION SELECTOR" in unicodedata.name(letter, ""):
            kept = ""  # soft hyphens, joiners and the like: nothing that a reader sees
        elif category[0] in "LN" or category in ("Mn", "Mc"):  # a vowel sign is as much of a word as a letter
            kept = f" {letter} " if unicodedata.name(letter, "").startswith(SPACELESS) else letter
        else:
            kept = " "
        self[code] = kept
        return kept


_KEPT = _Kept()


def normalised(text: str) -> str:
    """Return a text's words, case-folded and in Unicode's NFKC, with one space between them.

    A word is a run of letters, digits and their marks; in scripts that put no spaces between words (Chinese, Japanese,
    Thai, Lao, Khmer, Burmese) each character is one. A text of punctuation alone becomes "".
    """
    if text.isascii():
        return " ".join(text.translate(ASCII).split())
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(folded.translate(_KEPT).split())


@dataclass(frozen=True)
class NearEqual:
    """When two texts count as near-equal: their signatures agree on at least the share `threshold` of the minima.

    A signature holds the least hash of the normal form's n-grams of `words` words under each of `permutations`; a
    shorter text is one n-gram, a text without words has none and is near to nothing. The share estimates the Jaccard
    similarity J of the two sets of n-grams with a standard error of sqrt(J (1 - J) / permutations): 0.027 at J = 0.9.
    """

    words: int = 3
    permutations: int = 128
    threshold: float = 0.9

    def __post_init__(self) -> None:
        if self.words < 1:
            raise ValueError(f"words counts the words of an n-gram and must be at least 1, got {self.words}")
        if not 16 <= self.permutations <= 4096:
            raise ValueError(f"permutations must lie from 16 to 4096, got {self.permutations}")
        if not 0.5 < self.threshold <= 1:
            raise ValueError(f"threshold is a similarity above 0.5 and at most 1, got {self.threshold}")

    @property
    def disagreements(self) -> int:
        """On how many minima near-equal texts may differ at most."""
        return self.permutations - math.ceil(self.threshold * self.permutations - 1e-9)

    @property
    def signature_fingerprint(self) -> str:
        """An id of everything that a signature depends on but the text; the threshold is none of it."""
        return fingerprint("signatures-1", self.words, self.permutations)

    def grams(self, normal_form: str) -> list[bytes]:
        """Return the n-grams of a normal form, in their order, repeated ones too."""
        words = normal_form.encode().split()
        if len(words) <= self.words:
            return [b" ".join(words)] if words else []
        return list(map(b" ".join, zip(*(words[start:] for start in range(self.words)), strict=False)))

    def jaccard(self, normal_form: str, other: str) -> float:
        """Return the exact Jaccard similarity of two normal forms' n-grams, 0 where one has none."""
        ours, theirs = set(self.grams(normal_form)), set(self.grams(other))
        return len(ours & theirs) / max(1, len(ours | theirs))

    def near(self, signature: Signatures, signatures: Signatures) -> npt.NDArray[np.bool_]:
        """Return which of some signatures [texts, permutations] are near-equal to one, [permutations]."""
        if signature.min() == WORDLESS:
            return np.zeros(len(signatures), bool)
        head = slice(2 * (self.disagreements + 1))  # rules out nearly all of them
        near: npt.NDArray[np.bool_] = (
            np.count_nonzero(signatures[:, head] != signature[head], axis=1) <= self.disagreements
        )
        near[near] = np.count_nonzero(signatures[near] != signature, axis=1) <= self.disagreements
        return near

    def sign(self, normal_forms: Iterable[str]) -> Signatures:
        """Return a signature for each normal form, the same in every process and on every machine."""
        sketch = MinHash(self.permutations, hashfunc=crc32)  # whose values datasketch mixes before it permutes them
        signatures = [sketch.hashvalues[:0]]
        for form in normal_forms:
            sketch.clear()
            grams = self.grams(form)
            for start in range(0, len(grams), GRAMS_AT_ONCE):
                sketch.update_batch(grams[start : start + GRAMS_AT_ONCE])
            signatures.append(sketch.hashvalues)
        return np.concatenate(signatures).reshape(-1, self.permutations)


@dataclass(frozen=True)
class SignedTexts:
    """Texts beside their memory-mapped signatures."""

    texts: Sequence[str]
    signatures: Signatures  # [texts, permutations]
    near: NearEqual

    def __post_init__(self) -> None:
        wanted = (len(self.texts), self.near.permutations)
        if self.signatures.shape != wanted or self.signatures.dtype != np.uint32:
            raise DataError(
                f"the signatures must be uint32 of shape {wanted}, [texts, permutations], got "
                f"{self.signatures.dtype} of {self.signatures.shape}; they are of other texts or settings"
            )

    @classmethod
    def of(cls, texts: Sequence[str], near: NearEqual) -> "SignedTexts":
        """Sign the texts in memory: 512 bytes each at 128 permutations."""
        return cls(texts, near.sign(map(normalised, texts)), near)

    @classmethod
    def open(cls, folder: Path, texts: Sequence[str], near: NearEqual) -> "SignedTexts":
        """Map what `write_signatures` wrote of the same texts.

        Raises:
            DataError: the signatures are not as many as the texts, or of another number of permutations.
        """
        return cls(texts, np.load(folder / "signatures.npy", mmap_mode="r"), near)


def write_signatures(texts: Sequence[str], near: NearEqual, folder: Path) -> None:
    """Write `signatures.npy` into `folder`, a block at a time, so that memory does not grow with the texts.

    Of 100,000 answers of 85 words: 5.5 seconds on one core of an AMD EPYC, and 51 MB of disk at 128 permutations.
    """
    with ArrayWriter(folder / "signatures.npy", (len(texts), near.permutations), np.uint32) as file:
        for start in range(0, len(texts), TEXTS_PER_BLOCK):
            file.append(near.sign(map(normalised, texts[start : start + TEXTS_PER_BLOCK])))
            log.debug("signed %d of %d texts", start, len(texts))


class NearIndex:
    """Finds which of some signatures [texts, permutations] are near-equal to another one, and misses none.

    Near-equal signatures differ on at most d minima; of d + 1 bands of minima one is therefore the same in both, and
    bands are what datasketch's MinHashLSH looks up. Texts without words are left out.

    Of 100,000 texts at a threshold of 0.9: 4 seconds and 340 MB of memory; a lower threshold needs more bands.
    """

    def __init__(self, signatures: Signatures, near: NearEqual) -> None:
        self._signatures = signatures
        self._near = near
        bands = max(2, near.disagreements + 1)  # datasketch wants two at least
        self._bands = MinHashLSH(num_perm=near.permutations, params=(bands, near.permutations // bands))
        self._probe = MinHash(near.permutations)  # lends each signature the shape that datasketch asks for
        for text, signature in enumerate(signatures):
            if signature.min() < WORDLESS:
                self._bands.insert(text, self._as_minhash(signature), check_duplication=False)

    def __contains__(self, text: int) -> bool:
        return text in self._bands

    def remove(self, text: int) -> None:
        """Find this text no more."""
        self._bands.remove(text)

    def search(self, signature: Signatures) -> dict[int, float]:
        """Return the near-equal texts of one signature [permutations] and their estimated similarities, by number."""
        found = np.sort(np.asarray(self._bands.query(self._as_minhash(signature)), np.int64))
        if not len(found):
            return {}
        same = np.count_nonzero(self._signatures[found] == signature, axis=1)
        near = same >= self._near.permutations - self._near.disagreements
        return dict(zip(found[near].tolist(), (same[near] / self._near.permutations).tolist(), strict=True))

    def _as_minhash(self, signature: Signatures) -> MinHash:
        self._probe.hashvalues = np.asarray(signature)
        return self._probe


def clusters(signed: SignedTexts) -> list[list[int]]:
    """Return the groups of two and more texts that are connected by near-equality, numbers ascending, largest first.

    Texts that are equal once normalised have the same signature and so are in one group. Two members of a group may be
    less alike than the threshold, connected by others. Needs the memory of a `NearIndex`.
    """
    index = NearIndex(signed.signatures, signed.near)
    groups = []
    for first in range(len(signed.texts)):
        if first not in index:
            continue
        index.remove(first)
        group = [first]
        for member in group:  # which grows meanwhile
            near = index.search(signed.signatures[member])
            for text in near:
                index.remove(text)  # so that copies by the thousand are not looked up by the thousand
            group += near
        groups.append(sorted(group))
    return sorted((group for group in groups if len(group) > 1), key=lambda group: (-len(group), group[0]))
