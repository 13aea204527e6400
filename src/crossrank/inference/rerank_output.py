"""A folder that fills with scores part by part, and can be gone on with after a kill."""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from crossrank.data.cache import DENIED, FULL, replace_text, sync
from crossrank.errors import CacheError, DataError, ResumeError
from crossrank.inference.evaluation_run import TAG

PROGRESS, PARTS, SCORES, RUN = "progress.json", "parts", "scores.parquet", "run.trec"
SCHEMA = pa.schema({
    "query_id": pa.string(), "document_id": pa.string(), "rank": pa.int32(), "score": pa.float32(),
    "logit": pa.float32(), "first_stage_rank": pa.int32(), "truncated": pa.bool_(),
})  # fmt: skip


@dataclass(frozen=True)
class Done:
    """How much is safely on the disk."""

    parts: int = 0
    queries: int = 0
    pairs: int = 0
    truncated: int = 0  # pairs
    finished: bool = False


class RerankOutput:
    """Where a reranking writes: a parquet file a part, in the end `scores.parquet` and `run.trec`.

    `progress.json` says of which `inputs` they are and how much is done. Obtained by `opened`.
    """

    def __init__(self, folder: Path, inputs: Mapping[str, Any]) -> None:
        self.folder, self._inputs = folder, dict(inputs)
        self.done = Done()
        file = folder / PROGRESS
        if file.is_file():
            self.done = self._read(file)
        elif any((folder / name).exists() for name in (SCORES, RUN, PARTS)):
            raise DataError(f"{folder}: holds results without a {PROGRESS}; give another output=FOLDER")

    def add(self, rows: pa.Table, queries: int, pairs: int, truncated: int) -> None:
        """Write a part, and count what it holds once it is on the disk."""
        self._replace(PARTS, f"{self.done.parts:06d}.parquet", lambda file: pq.write_table(rows, file))
        self._count(
            parts=self.done.parts + 1,
            queries=self.done.queries + queries,
            pairs=self.done.pairs + pairs,
            truncated=self.done.truncated + truncated,
        )

    def finish(self) -> None:
        """Join the parts, one at a time, and drop them."""
        if not self.done.finished:
            self._replace("", SCORES, self._write_scores)
            self._replace("", RUN, self._write_run)
            self._count(finished=True)
        shutil.rmtree(self.folder / PARTS, ignore_errors=True)

    def _parts(self) -> Iterator[pa.Table]:
        for number in range(self.done.parts):
            yield pq.read_table(self.folder / PARTS / f"{number:06d}.parquet", schema=SCHEMA)

    def _write_scores(self, file: Path) -> None:
        with pq.ParquetWriter(file, SCHEMA) as writer:
            for part in self._parts():
                writer.write_table(part)

    def _write_run(self, file: Path) -> None:
        with file.open("w", encoding="utf-8") as stream:
            for part in self._parts():
                columns = (part[name].to_pylist() for name in ("query_id", "document_id", "rank", "logit"))
                for query, document, rank, logit in zip(*columns, strict=True):
                    stream.write(f"{query} Q0 {document} {rank} {logit:.9g} {TAG}\n")

    def _replace(self, within: str, name: str, write: Any) -> None:
        folder = self.folder / within
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{name}.tmp"
        write(temporary)
        sync(temporary)
        temporary.replace(folder / name)

    def _count(self, **more: int) -> None:
        self.done = replace(self.done, **more)  # type: ignore[arg-type]
        record = {"inputs": self._inputs, **asdict(self.done)}
        replace_text(self.folder / PROGRESS, json.dumps(record, indent=2) + "\n")

    def _read(self, file: Path) -> Done:
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
            before, done = record.pop("inputs"), Done(**record)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ResumeError(f"{file} cannot be read ({error}); give another output=FOLDER") from error
        other = [key for key in {**self._inputs, **before} if before.get(key) != self._inputs.get(key)]
        if other:
            raise ResumeError(
                f"{self.folder} holds scores of something else: {', '.join(other)} differ{'s' * (len(other) == 1)}; "
                "give what it was begun with, or another output=FOLDER"
            )
        return done


@contextmanager
def opened(folder: Path, inputs: Mapping[str, Any]) -> Iterator[RerankOutput]:
    """Open a folder for this process alone.

    Raises:
        ResumeError: it holds scores of other inputs, or another process writes there.
        DataError: it holds results of something else.
        CacheError: the disk is full, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock", timeout=0):
            yield RerankOutput(folder, inputs)
    except Timeout as error:
        raise ResumeError(f"another process is writing to {folder}; wait for it or give another output=") from error
    except OSError as error:
        if error.errno in FULL:
            raise CacheError(
                f"the disk is full while writing {folder}: free some space and give the same command again, which "
                "goes on from the last part"
            ) from error
        if error.errno in DENIED:
            raise CacheError(f"cannot write {folder}: {error.strerror}; give another output=FOLDER") from error
        raise
