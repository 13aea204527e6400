"""Rows of a jsonl, csv, tsv (each also as gz), parquet or arrow file, with the row's number in every error."""

import csv
import gzip
import json
import logging
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from crossrank.errors import DataError

log = logging.getLogger(__name__)

SUFFIXES = (".jsonl", ".jsonl.gz", ".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet", ".arrow")
COLUMNAR = {".parquet", ".arrow"}
OTHER_SPLIT = re.compile(r"(?:^|[^a-z])(?:test|dev|valid|validation|val|eval)(?:$|[^a-z])")
ROWS_PER_BATCH = 4096
Row = Mapping[str, Any]
Item = TypeVar("Item")


def read_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """Yield `(row number from 1, row)` of a file.

    Raises:
        DataError: no such file, an unknown suffix, an empty file, bytes that are not UTF-8, a truncated gz, a broken
            line; names the file and, where there is one, the row.
    """
    if path.is_file() and not path.name.endswith(SUFFIXES):
        raise DataError(f"{path}: the name must end in one of {', '.join(SUFFIXES)}")
    return _numbered(path, _columnar(path) if path.suffix in COLUMNAR else _text_rows(path))


def shards(path: Path, pattern: str | None = None) -> list[Path]:
    """Return the files that hold the rows of a path: itself, or those in a folder, at any depth, ordered by name.

    `pattern` is a glob inside the folder, such as "triplet/train-*"; by default all that can be read is taken.

    Raises:
        DataError: there is no such file; or, without a pattern, some files are named like another split than train.
    """
    if not path.is_dir():
        if not path.is_file():
            raise DataError(f"{path}: no such file")
        return [path]
    found = (file.relative_to(path) for file in path.glob(pattern or "**/*") if file.is_file())
    readable = (file for file in found if file.name.endswith(SUFFIXES) and not file.name.startswith("."))
    names = sorted(file.as_posix() for file in readable)
    if not names:
        raise DataError(f"{path}: holds no {pattern or 'file'} that ends in one of {', '.join(SUFFIXES)}")
    other = [name for name in names if OTHER_SPLIT.search(name.lower())]
    if pattern is None and other:
        raise DataError(f"{path}: {other[0]!r} looks like data to test on; name the files, such as files='train*'")
    return [path / name for name in names]


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield `(row number from 1, line)` of a text file, or of one that is also gz, without its blank lines.

    Raises:
        DataError: as `read_rows`.
    """
    return _numbered(path, _lines(path))


def _numbered(path: Path, rows: Iterator[Item]) -> Iterator[tuple[int, Item]]:
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    number = 0
    try:
        for number, row in enumerate(rows, start=1):
            yield number, row
    except DataError:
        raise
    except UnicodeDecodeError as error:
        raise DataError(f"{path}, row {number + 1}: not UTF-8 ({error.reason}); save the file as UTF-8") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
            f"{path}, after row {number}: the gz is truncated or broken ({error}); copy it again"
        ) from error
    except (pa.ArrowException, OSError) as error:  # pyarrow raises both for a damaged file
        kind = f"{path.suffix[1:]} file" if path.suffix in COLUMNAR else "file"
        raise DataError(f"{path}: not a readable {kind} ({_one_line(error)})") from error
    except (ValueError, RecursionError, csv.Error) as error:  # json: bad syntax, too deep, too many digits
        raise DataError(f"{path}, row {number + 1}: cannot be parsed ({error})") from error
    if number == 0:
        raise DataError(f"{path}: the file holds no rows")


def _lines(path: Path, blank: bool = False) -> Iterator[str]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as stream:
        yield from (line for line in _decoded(stream) if blank or line.strip())


def _text_rows(path: Path) -> Iterator[Row]:
    if path.name.endswith((".csv", ".csv.gz")):
        yield from csv.DictReader(_lines(path, blank=True), strict=True)
    elif path.name.endswith((".tsv", ".tsv.gz")):  # as BEIR and MS MARCO write them: a quotation mark is a character
        yield from csv.DictReader(_lines(path), delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        for number, line in enumerate(_lines(path), start=1):
            row = json.loads(line)
            if not isinstance(row, dict):
                raise DataError(f"{path}, row {number}: a JSON object is wanted, got {type(row).__name__}")
            yield row


def _decoded(stream: Iterable[bytes]) -> Iterator[str]:
    """Decode line by line, so that bytes that are not UTF-8 are met at their own row; drop Excel's leading mark."""
    for number, line in enumerate(stream):
        yield line.decode("utf-8" if number else "utf-8-sig")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _columnar(path: Path) -> Iterator[Row]:
    if path.suffix == ".parquet":
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=ROWS_PER_BATCH):
                yield from batch.to_pylist()
        return
    with pa.memory_map(str(path)) as mapped:
        for batch in _arrow(mapped):
            batch.validate(full=True)  # nothing else keeps a damaged file from being read beyond its end
            for start in range(0, len(batch), ROWS_PER_BATCH):
                yield from batch.slice(start, ROWS_PER_BATCH).to_pylist()


def _arrow(mapped: pa.MemoryMappedFile) -> Iterator[pa.RecordBatch]:
    """Read the file format or, as `datasets` saves its tables, the stream format."""
    if mapped.read(6) == b"ARROW1":
        reader = pa.ipc.open_file(mapped)
        yield from map(reader.get_batch, range(reader.num_record_batches))
    else:
        mapped.seek(0)
        yield from pa.ipc.open_stream(mapped)


@dataclass
class BadRows:
    """What to do with a row that cannot be used: stop at once, or drop it and count it."""

    path: Path
    policy: Literal["error", "drop"] = "error"
    dropped: int = 0
    example: str = ""

    def reject(self, number: int, reason: str) -> None:
        """Raise, or count the row.

        Raises:
            DataError: under the policy "error"; names file and row.
        """
        if self.policy == "error":
            raise DataError(f"{self.path}, row {number}: {reason}")
        self.dropped += 1
        self.example = self.example or f"row {number}: {reason}"

    def warn(self) -> None:
        """Say once how many rows were dropped."""
        if self.dropped:
            log.warning("%s: dropped %d unusable rows, the first: %s", self.path, self.dropped, self.example)


def read_all(
    files: Iterable[Path], bad_rows: Literal["error", "drop"], limit: int | None = None
) -> Iterator[tuple[BadRows, int, Row]]:
    """Yield the rows of several files, the first `limit` of them all, each with what to do if it is of no use.

    Raises:
        DataError: as `read_rows`.
    """
    for file in files:
        bad, number = BadRows(file, bad_rows), 0
        for number, row in islice(read_rows(file), limit):
            yield bad, number, row
        bad.warn()
        if limit is not None and (limit := limit - number) == 0:
            return


def text_column(row: Row, column: str, path: Path, number: int, known: Sequence[str] | None = None) -> str | None:
    """Return the row's text, or None where it is missing, null, blank, not a string or no valid Unicode.

    Raises:
        DataError: the file has no such column at all.
    """
    if column not in row:
        columns = ", ".join(map(str, known or row))
        raise DataError(f"{path}, row {number}: no column {column!r}; the columns are: {columns}")
    value = row[column]
    return value if isinstance(value, str) and value.strip() and is_unicode(value) else None


def is_unicode(text: str) -> bool:
    """Whether a text holds no half of a surrogate pair, which JSON can write and nothing after it can read."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
