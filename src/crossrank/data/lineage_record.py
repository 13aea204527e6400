"""What a run wrote down of its lineage, and in words what is not what it was."""

import dataclasses
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from crossrank.data.cache import contents_when_built, replace_text
from crossrank.data.fingerprint import fingerprint, sha256
from crossrank.data.lineage import FOLLOWS, Lineage, Step
from crossrank.errors import DataError

RECORD = "lineage.json"
UNSAID = "its settings are the same; the files that they name, or the library that reads them, are not"


@dataclass(frozen=True)
class LineageRecord:
    """A run's `lineage.json`: its steps, what their caches held, and the files that it ended with."""

    steps: dict[str, Step]
    caches: dict[str, str]  # kind of cache: hash of all its files when it was built
    files: dict[str, str] = dataclasses.field(default_factory=dict)  # path in the run's folder: SHA-256

    @classmethod
    def of(cls, made: Lineage, cache_dir: Path) -> "LineageRecord":
        """Return the record of a training set whose caches are built."""
        built = {kind: contents_when_built(folder) for kind, folder in made.folders(cache_dir).items()}
        return cls(made.steps, {kind: fingerprint(content) for kind, content in built.items() if content})

    @classmethod
    def read(cls, run_dir: Path) -> "LineageRecord":
        """Return the record in a run's folder.

        Raises:
            DataError: there is none, or it is damaged.
        """
        file = run_dir / RECORD
        if not file.is_file():
            raise DataError(
                f"{run_dir}: no {RECORD}; it is no run, or one made before crossrank recorded what runs are made of"
            )
        try:
            record = TypeAdapter(cls).validate_json(file.read_bytes())
        except ValidationError as error:
            raise DataError(f"{file} is no record of a run: {error.errors()[0]['msg']}") from error
        outside = [name for name in record.files if Path(name).is_absolute() or ".." in Path(name).parts]
        if outside:
            raise DataError(f"{file} is no record of a run: {outside[0]!r} lies outside the run's folder")
        return record

    def with_files(self, run_dir: Path, files: Sequence[Path]) -> "LineageRecord":
        """Return the record with the hashes of files in the run's folder."""
        hashes = {file.relative_to(run_dir).as_posix(): sha256(file) for file in files}
        return dataclasses.replace(self, files=hashes)

    @property
    def lineage(self) -> Lineage:
        """The steps."""
        return Lineage(self.steps)

    def write(self, folder: Path) -> None:
        """Write the record into a folder, in one step."""
        replace_text(folder / RECORD, TypeAdapter(type(self)).dump_json(self, indent=2).decode() + "\n")


def differences(recorded: Lineage, now: Lineage, unknown: Collection[str] = ()) -> dict[str, list[str]]:
    """Return, in words, what of each step is not what it was; steps that are the same or `unknown` are left out."""
    changed: dict[str, list[str]] = {}
    for name, before in FOLLOWS.items():
        was, is_now = recorded.steps.get(name), now.steps.get(name)
        if name in unknown or (was and was.id) == (is_now and is_now.id):
            continue
        if was is None or is_now is None:
            changed[name] = ["there was none" if was is None else "there is none any more"]
            continue
        words = list(_changes(was.description, is_now.description))
        above = [step for step in before if step in changed]
        changed[name] = [*words, *([f"follows from {' and '.join(above)}"] if above else [])] or [UNSAID]
    return changed


def _changes(was: Any, is_now: Any, path: str = "") -> Iterator[str]:
    if isinstance(was, dict) and isinstance(is_now, dict):
        for key in dict.fromkeys([*was, *is_now]):
            yield from _changes(was.get(key), is_now.get(key), f"{path}.{key}".lstrip("."))
    elif isinstance(was, list) and isinstance(is_now, list) and len(was) == len(is_now):
        for i, (a, b) in enumerate(zip(was, is_now, strict=True)):
            yield from _changes(a, b, f"{path}[{i}]")
    elif was != is_now:
        yield f"{path} was {was!r} and is {is_now!r}"
