"""Several sources as one, each with its share of the questions."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

from crossrank.data.pairs import Ingredients, QAPairs, Source, Splits, StreamingSource
from crossrank.data.splits import streamed
from crossrank.data.texts import Texts, codes_by_appearance, digests
from crossrank.errors import DataError
from crossrank.hub import Asset

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Mixture:
    """Takes from each of the `sources` its share, by `weights`, of `size` questions, each with all of its pairs.

    Without a `size` as many as no source has to repeat any for. With one, a source that is too small is taken whole as
    often as its share allows, and random ones of its questions once more. Dev sets are taken whole, and no question of
    one is trained on, whatever source it also stands in. What is drawn depends on `seed` and a source's name.
    """

    sources: Mapping[str, Source]
    weights: Mapping[str, float]
    size: int | None = None
    seed: int = 12

    def __post_init__(self) -> None:
        if not self.sources or self.sources.keys() != self.weights.keys():
            raise ValueError(
                f"every source needs a weight: the sources are {sorted(self.sources) or 'none'}, the weights those of "
                f"{sorted(self.weights) or 'none'}"
            )
        for name, weight in self.weights.items():
            if not (weight > 0 and math.isfinite(weight)):
                raise ValueError(f"a weight is a number above 0, got {weight} for {name!r}")
            if not isinstance(self.sources[name], Source):
                raise ValueError(f"{name!r} is a {type(self.sources[name]).__name__} and no source")
        if self.size is not None and self.size < len(self.sources):
            raise ValueError(f"size counts questions, at least one of each of {len(self.sources)}, got {self.size}")

    def assets(self) -> Sequence[Asset]:
        """Return what the sources need."""
        return [asset for source in self.sources.values() for asset in source.assets()]

    def ingredients(self) -> Ingredients:
        """Return those of the sources by their names, the weights and what is drawn.

        Raises:
            DataError: a source's data is not there.
        """
        parts = {name: self.sources[name].ingredients() for name in sorted(self.sources)}
        weights = {name: float(self.weights[name]) for name in parts}
        content = {"kind": "mixture", "sources": {name: part.content for name, part in parts.items()}}
        drawn = {"weights": weights, "size": self.size, "seed": self.seed}
        return Ingredients(content, drawn | {"splits": {name: part.split for name, part in parts.items()}})

    def fingerprint(self) -> str:
        """Return an id of the sources, their weights and what is drawn; their order does not count."""
        return self.ingredients().fingerprint

    def load(self) -> Splits:
        """Load every source and draw from it.

        Raises:
            DataError: a source is broken, has nothing to train on, or repeats questions; only some of them have scores.
        """
        return streamed(self)

    def stream(self, scratch: Path) -> Splits:
        """Draw from every source, streamed into `scratch` where it can be; see `load`."""
        splits = {name: self._splits(name, scratch / str(i)) for i, name in enumerate(sorted(self.sources))}
        if repeats := [name for name, part in splits.items() if part.train.copies is not None]:
            raise DataError(f"{repeats[0]!r} repeats questions itself, which shares cannot count; mix its sources here")
        held_out = {question for part in splits.values() for question in part.dev.questions}
        train = {name: _without(part.train, held_out, name) for name, part in splits.items()}
        questions = {name: codes_by_appearance(digests(pairs.questions)) for name, pairs in train.items()}
        counts = self.shares({name: len(first) for name, (_, first) in questions.items()})
        drawn = [self._draw(name, train[name], questions[name][0], counts[name]) for name in train]
        return Splits(train=_joined(drawn), dev=_joined([part.dev for part in splits.values()]))

    def shares(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """Return how many questions each source gives, where they have so many: its exact share, rounded up or down.

        Raises:
            DataError: a source has none.
        """
        if empty := [name for name, count in sizes.items() if not count]:
            raise DataError(f"the source {empty[0]!r} has no question to train on")
        whole = sum(map(Fraction, self.weights.values()))
        parts = {name: Fraction(self.weights[name]) / whole for name in sorted(self.weights)}
        total = self.size or math.floor(min(sizes[name] / part for name, part in parts.items()))
        counts = {name: math.floor(total * part) for name, part in parts.items()}
        by_rest = sorted(parts, key=lambda name: counts[name] - total * parts[name])
        for name in by_rest[: total - sum(counts.values())]:
            counts[name] += 1
        return counts

    def _splits(self, name: str, scratch: Path) -> Splits:
        source = self.sources[name]
        if not isinstance(source, StreamingSource):
            return source.load()
        scratch.mkdir()
        return source.stream(scratch)

    def _draw(self, name: str, pairs: QAPairs, questions: npt.NDArray[np.int32], count: int) -> QAPairs:
        """Return the pairs of `count` random questions; of all, some of them more often, where there are fewer."""
        known = int(questions.max()) + 1
        times, more = divmod(count, known)
        copies = np.full(known, times, np.int32)
        copies[np.random.default_rng([self.seed, *name.encode()]).permutation(known)[:more]] += 1
        if count > known:
            log.info("%r has %d questions and gives %d: each %d times, %d once more", name, known, count, times, more)
        rows = np.flatnonzero(copies[questions])
        return replace(pairs.take(rows), copies=copies[questions[rows]])


def _without(pairs: QAPairs, held_out: set[str], name: str) -> QAPairs:
    kept = np.fromiter((question not in held_out for question in pairs.questions), bool, len(pairs))
    if kept.all():
        return pairs
    log.warning("%d pairs of %r ask what a dev set holds, and are left out", len(pairs) - int(kept.sum()), name)
    return pairs.take(np.flatnonzero(kept))


def _joined(parts: Sequence[QAPairs]) -> QAPairs:
    parts = [part for part in parts if len(part)] or parts[:1]
    if len({part.scored for part in parts}) > 1:
        raise DataError("some sources have scores and some have none; a mixture needs either")
    labelled = any(part.labels is not None for part in parts)
    labels = [np.ones(len(part), np.float32) if part.labels is None else part.labels for part in parts]
    copies = np.concatenate([np.ones(len(part), np.int32) if part.copies is None else part.copies for part in parts])
    return QAPairs(
        Texts.joined([Texts.of(part.questions) for part in parts]),
        Texts.joined([Texts.of(part.answers) for part in parts]),
        np.concatenate(labels) if labelled else None,
        any(part.scored for part in parts),
        copies if (copies != 1).any() else None,
    )
