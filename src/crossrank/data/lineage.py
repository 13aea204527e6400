"""What a training set was made of, step by step.

Each step hashes to an id from what it depends on, the ids of the steps before it among them, and the ids name the
caches: changing one option gives new ids to its step and to those that follow from it, and to no other.
"""

import dataclasses
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from crossrank.data.fingerprint import fingerprint
from crossrank.data.miners.none import NoMiner
from crossrank.data.mining import Miner
from crossrank.data.near_equal import NearEqual
from crossrank.data.pairs import Ingredients, Source
from crossrank.data.policy import Policy
from crossrank.data.splits import ENDING
from crossrank.data.teacher import Teacher, filters_of
from crossrank.data.tokens import PairEncoder

FOLLOWS = {  # each step and those that it follows from, in the order in which a change spreads
    "source": (),
    "split": ("source",),
    "given": ("split",),  # the rows that the source labels itself
    "miner": (),
    "pool": ("split", "miner"),
    "twins": ("pool",),  # where the policy leaves them out
    "teacher": (),  # where there is one
    "answers": ("pool", "twins", "teacher"),  # the teacher's
    "policy": (),
    "tokenizer": (),
    "tokens": ("split", "tokenizer"),
    "rows": ("given", "pool", "twins", "answers", "policy"),
}
NEAR = NearEqual()  # what makes a document a twin of a positive


@dataclass(frozen=True)
class Step:
    """One step: its id, and what a person would want to know of it, as plain values by name."""

    id: Annotated[str, Field(pattern="^[0-9a-f]{16}$")]  # checked where a record is read: it names folders
    description: dict[str, Any]


@dataclass(frozen=True)
class Lineage:
    """The steps by name, in the order of `FOLLOWS`: those that the settings ask for and that could be known."""

    steps: dict[str, Step]

    @property
    def ids(self) -> dict[str, str]:
        """The id of each step."""
        return {name: step.id for name, step in self.steps.items()}

    def folders(self, cache_dir: Path) -> dict[str, Path]:
        """Return where what the steps gave is cached, by its kind; not every training has every kind."""
        places = {
            "texts": ("sources", "split", ENDING),
            "given": ("given", "given", ""),
            "pool": ("pools", "pool", ""),
            "twins": ("twins", "twins", ""),
            "answers": ("teachers", "answers", ""),
            "question tokens": ("tokens", "tokens", "-questions"),
            "document tokens": ("tokens", "tokens", "-documents"),
            "rows": ("rows", "rows", ""),
            "rows and given": ("rows", "rows", "-and-given"),  # where there are both
            "description": ("rows", "rows", "-description"),
        }
        ids = self.ids
        return {
            kind: cache_dir / folder / f"{ids[step]}{end}"
            for kind, (folder, step, end) in places.items()
            if step in ids
        }

    def published(self) -> "Lineage":
        """Return the same without the folders in which files lie on this machine."""
        return Lineage({name: Step(step.id, _placeless(step.description)) for name, step in self.steps.items()})


def pool_lineage(
    source: Source, miner: Miner, policy: Policy, depth: int | None = None, teacher: Teacher | None = None
) -> Lineage:
    """Return the steps of a pool and of what a policy reads of it; no text is read.

    `depth` candidates are mined a question, by default as many as the policy looks at.

    Raises:
        DataError: the source is not there.
        AssetError: a model is not there.
    """
    own = {name: find() for name, find in _own(source, miner, policy, teacher).items()}
    return Lineage(_with_what_follows(own, _derived(policy, depth, teacher), {}))


def given_lineage(source: Source, miner: Miner) -> Lineage:
    """Return the steps of what a source labels itself, which a training without mining has alone; no text is read.

    Raises:
        DataError: the source is not there.
    """
    own = {name: find() for name, find in _own(source, miner, None, None).items()}
    return Lineage(_with_what_follows(own, GIVEN, {}))


def with_rows(pool: Lineage, encoder: PairEncoder) -> Lineage:
    """Return the steps of a pool and those of its tokens and rows."""
    return Lineage(_with_what_follows(pool.steps | {"tokenizer": _tokenizer_step(encoder)}, TRAINED_ON, {}))


def knowable_lineage(
    source: Source,
    miner: Miner,
    policy: Policy,
    encoder: Callable[[], PairEncoder],
    depth: int | None = None,
    teacher: Teacher | None = None,
) -> tuple[Lineage, dict[str, str]]:
    """Return the steps that can be known where files may have gone, and why each of the others cannot."""
    steps: dict[str, Step] = {}
    unknown: dict[str, str] = {}
    mined = not isinstance(miner, NoMiner)
    own = _own(source, miner, policy if mined else None, teacher if mined else None)
    own["tokenizer"] = lambda: _tokenizer_step(encoder())
    for name, find in own.items():
        try:
            steps[name] = find()
        except Exception as error:  # a damaged file may raise anything
            unknown[name] = " ".join(str(error).split())
    derived = _derived(policy, depth, teacher) if mined else GIVEN
    return Lineage(_with_what_follows(steps, derived | TRAINED_ON, unknown)), unknown


def _own(source: Source, miner: Miner, policy: Policy | None, teacher: Teacher | None) -> dict[str, Callable[[], Step]]:
    """Return how the steps are found whose ids do not come from others'."""
    ingredients = cache(source.ingredients)  # hashes whole files
    own = {
        "source": lambda: _source_step(source, ingredients()),
        "split": lambda: _step(ingredients().fingerprint, ingredients().split),
        "miner": lambda: _step(miner.fingerprint(), _settings(miner)),
    }
    if policy is not None:
        own["policy"] = lambda: _step(fingerprint(dataclasses.asdict(policy)), _settings(policy))
    if teacher is not None:
        own["teacher"] = lambda: _step(teacher.fingerprint(), _settings(teacher))
    return own


GIVEN: dict[str, dict[str, Any]] = {"given": {}}
TRAINED_ON: dict[str, dict[str, Any]] = {"tokens": {}, "rows": {}}


def _derived(policy: Policy, depth: int | None, teacher: Teacher | None) -> dict[str, dict[str, Any]]:
    """Return the steps whose ids come from others', and what else is in each."""
    derived: dict[str, dict[str, Any]] = {"given": {}, "pool": {"depth": depth or policy.rank_max}}
    if policy.drop_twins:
        derived["twins"] = dataclasses.asdict(NEAR)
    return derived if teacher is None else derived | {"answers": filters_of(policy)}


def _with_what_follows(
    steps: dict[str, Step], derived: dict[str, dict[str, Any]], unknown: dict[str, str]
) -> dict[str, Step]:
    found: dict[str, Step] = {}
    for name, before in FOLLOWS.items():
        lacking = [step for step in before if step in unknown]
        if name in steps:
            found[name] = steps[name]
        elif name in derived and lacking:
            unknown[name] = f"follows from {' and '.join(lacking)}"
        elif name in derived:
            ids = [found[step].id for step in before if step in found]
            found[name] = _step(fingerprint(ids, derived[name]), derived[name])
    return found


def _source_step(source: Source, ingredients: Ingredients) -> Step:
    settings = {key: value for key, value in _settings(source).items() if key not in ingredients.split}
    return _step(fingerprint(ingredients.content), settings | ingredients.content)


def _tokenizer_step(encoder: PairEncoder) -> Step:
    words = {"kind": type(encoder.tokenizer).__name__, "vocabulary": len(encoder.tokenizer)}
    return _step(encoder.fingerprint, words | {"content": encoder.content, "max_length": encoder.max_length})


def _settings(component: Any) -> dict[str, Any]:
    known = dataclasses.is_dataclass(component) and not isinstance(component, type)
    return {"kind": type(component).__name__, **(dataclasses.asdict(component) if known else {})}


def _step(identity: str, description: dict[str, Any]) -> Step:
    return Step(identity, json.loads(json.dumps(description, default=str)))  # as it will be read back


def _placeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _placeless(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_placeless(child) for child in value]
    if isinstance(value, str) and (value.startswith((".", "~", os.sep)) or Path(value).exists()):
        return Path(value).name
    return value
