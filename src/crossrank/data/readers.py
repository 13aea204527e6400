"""Rows of a jsonl, csv, tsv (each also as gz) or parquet file, with the row's number in every error."""

import csv
import gzip
import json
import logging
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from crossrank.errors import DataError

log = logging.getLogger(__name__)

SUFFIXES = (".jsonl", ".jsonl.gz", ".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")
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
    return _numbered(path, _parquet(path) if path.suffix == ".parquet" else _text_rows(path))


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
        kind = "parquet file" if path.suffix == ".parquet" else "file"
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


def _parquet(path: Path) -> Iterator[Row]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=4096):
            yield from batch.to_pylist()


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
