"""Questions with documents of their own: what the columns of a file say it is, and what a row of it says."""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from crossrank.data.readers import Row, is_unicode
from crossrank.errors import DataError

Format = Literal["auto", "pairs", "triplets", "ntuples", "labelled_lists", "scored_lists"]
Role = Literal["question", "positive", "negative", "documents", "labels", "scores"]

NAMES: Mapping[Role, Sequence[str]] = {  # what sentence-transformers and its data sets call each column
    "question": ("question", "query", "anchor"),
    "positive": ("positive", "answer"),
    "negative": ("negative", "negatives"),
    "documents": ("documents", "docs", "document", "passages", "passage"),
    "labels": ("labels", "label"),
    "scores": ("scores", "score"),
}
NEEDS: Mapping[str, Sequence[Role]] = {
    "pairs": ("question", "positive"),
    "triplets": ("question", "positive", "negative"),
    "ntuples": ("question", "positive", "negative"),
    "labelled_lists": ("question", "documents", "labels"),
    "scored_lists": ("question", "documents", "scores"),
}
EXPECTED = (
    "question with positive (pairs), positive and negative (triplets), positive and negative_1, negative_2, ... "
    "(ntuples), documents and labels (labelled_lists), or documents and scores (scored_lists)"
)
LARGEST = float(np.finfo(np.float32).max)


class UnusableRow(ValueError):
    """Says why a row cannot be used."""


@dataclass(frozen=True)
class Layout:
    """Which columns hold what. `documents` are one column, or the positive's and those of the negatives."""

    format: Format
    question: str
    documents: Sequence[str]
    numbered: re.Pattern[str] | None = None  # columns of further documents, any number of them in a row
    labels: str | None = None

    @property
    def scored(self) -> bool:
        """Whether the labels are a teacher's scores."""
        return self.format == "scored_lists"

    def read(self, row: Row, encoded: bool) -> tuple[str, list[str], list[float]]:
        """Return a row's question, its documents and their labels.

        With `encoded` every value is text, and a list is JSON, as in csv.

        Raises:
            UnusableRow: a value is missing or of another type, or documents and labels do not match.
        """
        question = _texts([_value(row, self.question)], self.question)[0]
        listed = encoded and self.labels is not None and _begins_a_list(_value(row, self.labels))
        decode = listed and len(self.documents) == 1 and self.numbered is None  # else a text may begin with a bracket
        parts = [_texts(_value(row, column), column, decode) for column in self._columns(row)]
        documents = [text for part in parts for text in part]
        if self.labels is not None:
            return question, documents, self._numbers(_value(row, self.labels), encoded, len(documents))
        if self.numbered and len(parts) == 1:
            raise UnusableRow("no negative; every row needs one")
        return question, documents, [1.0] * len(parts[0]) + [0.0] * (len(documents) - len(parts[0]))

    def _columns(self, row: Row) -> Iterator[str]:
        yield from self.documents
        if self.numbered:
            found = [column for column in row if isinstance(column, str) and self.numbered.fullmatch(column)]
            yield from sorted((c for c in found if row[c] not in (None, "")), key=lambda c: int(c.rpartition("_")[2]))

    def _numbers(self, value: Any, encoded: bool, count: int) -> list[float]:
        listed = _decoded(value, str(self.labels)) if encoded else value
        numbers = [_number(item, encoded) for item in (listed if isinstance(listed, list) else [listed])]
        found = [number for number in numbers if number is not None]
        if len(found) != count or len(numbers) != count:
            shown = repr(value) if len(repr(value)) <= 60 else f"{value!r:.57}..."
            raise UnusableRow(
                f"{self.labels!r} must be a number for each document, of which there are {count}: {shown}"
            )
        if not self.scored and min(found) < 0:
            raise UnusableRow(f"{self.labels!r} holds {min(found):g}; a label is at least 0, a score may be anything")
        return found


def layout_of(columns: Sequence[Any], wanted: Format, named: Mapping[Role, str | None]) -> Layout:
    """Return what the columns of a file hold; `named` are those that the user names.

    Raises:
        DataError: they are no known format, or not the wanted one; says what they are and what is expected.
    """
    found: dict[Role, str] = {}
    for role, names in NAMES.items():
        given = named.get(role)
        present = next((name for name in ([given] if given else names) if name in columns), None)
        if present:
            found[role] = present
        elif given and not (role == "negative" and _numbered(given, columns)):
            raise DataError(f"no column {given!r}; {_are(columns)}")
    stem = named.get("negative") or "negative"
    numbered = _numbered(stem, columns)
    kind: Format = _guess(found, numbered is not None, columns) if wanted == "auto" else wanted
    is_list = kind in ("labelled_lists", "scored_lists")
    labels = found.get("scores" if kind == "scored_lists" else "labels") if is_list else None
    documents = [found[role] for role in _document_roles(kind, found)]
    lacking = [role for role in NEEDS[kind] if role not in found and not (role == "negative" and numbered)]
    if "documents" in lacking and documents:
        lacking.remove("documents")
    if lacking:
        raise DataError(f"{kind} need columns {', '.join(NEEDS[kind])}; no {' and no '.join(lacking)}; {_are(columns)}")
    in_lists = kind == "ntuples" or (is_list and "documents" not in found)
    return Layout(kind, found["question"], documents, numbered if in_lists else None, labels)


def _document_roles(kind: str, found: Mapping[Role, str]) -> Sequence[Role]:
    if kind.endswith("_lists") and "documents" in found:
        return ("documents",)
    roles: Sequence[Role] = ("positive",) if kind == "pairs" else ("positive", "negative")
    return [role for role in roles if role in found]


def _guess(found: Mapping[Role, str], numbered: bool, columns: Sequence[Any]) -> Format:
    negatives = numbered or "negative" in found
    roles: Sequence[Role] = ("labels", "scores")
    labels = [role for role in roles if role in found]
    if "question" not in found or not {"positive", "documents"} & found.keys():
        raise DataError(f"{_are(columns)}; expected are {EXPECTED}")
    if "documents" in found or (labels and not negatives):
        if len(labels) != 1:
            raise DataError(f"{_are(columns)}; beside documents one of labels and scores is expected, or a format")
        return "labelled_lists" if labels == ["labels"] else "scored_lists"
    if labels:
        raise DataError(f"{_are(columns)}; {found[labels[0]]!r} beside negatives may mean anything: name the format")
    return "ntuples" if numbered else "triplets" if negatives else "pairs"


def _numbered(stem: str, columns: Sequence[Any]) -> re.Pattern[str] | None:
    pattern = re.compile(rf"{re.escape(stem)}_[0-9]{{1,9}}")
    return pattern if any(isinstance(column, str) and pattern.fullmatch(column) for column in columns) else None


def _are(columns: Sequence[Any]) -> str:
    return f"the columns are: {', '.join(map(str, columns))}"


def _value(row: Row, column: str) -> Any:
    if column not in row:
        raise DataError(f"no column {column!r}; {_are(list(row))}")
    return row[column]


def _texts(value: Any, column: str, decode: bool = False) -> list[str]:
    value = _decoded(value, column) if decode else value
    texts = value if isinstance(value, list) else [value]
    if not texts or not all(map(_is_text, texts)):
        raise UnusableRow(f"{column!r} is empty or not a text; every row needs a question and documents")
    return texts


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip()) and is_unicode(value)


def _begins_a_list(value: object) -> bool:
    return isinstance(value, str) and value.lstrip().startswith("[")


def _decoded(value: Any, column: str) -> Any:
    if not _begins_a_list(value):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise UnusableRow(f"{column!r} begins as a JSON list and is none ({error})") from error


def _number(value: object, encoded: bool) -> float | None:
    if not isinstance(value, (int, float)) and not (encoded and isinstance(value, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and abs(number) <= LARGEST else None
