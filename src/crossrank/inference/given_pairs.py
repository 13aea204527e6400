"""What callers hand over as pairs of texts, in the forms that sentence-transformers takes, checked."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from crossrank.data.readers import is_unicode
from crossrank.errors import DataError

Pair = tuple[str, str]


def given_pairs(inputs: Any) -> tuple[list[Pair], bool]:
    """Return the pairs, and whether it was a single one rather than a list of them.

    One pair is a list, a tuple or an array of two strings. Several are any sequence of such: a list, an array
    [pairs, 2], a column of a data set.

    Raises:
        DataError: it is neither, or something in it is no string.
    """
    if isinstance(inputs, (str, bytes)) or not hasattr(inputs, "__iter__"):
        raise DataError(f"a pair of two texts or a list of pairs is wanted, got {_kind(inputs)}")
    given = inputs.tolist() if isinstance(inputs, np.ndarray) else list(inputs)
    if given and not isinstance(given[0], (list, tuple, np.ndarray)):
        return [_pair(given, "the pair")], True
    return [_pair(pair, f"pair {number}") for number, pair in enumerate(given)], False


def query_pairs(query: Any, documents: Any, where: str = "") -> list[Pair]:
    """Return a question with each of its documents; `where` says which question of several it is.

    Raises:
        DataError: the question or a document is no string, the question is blank, or there is no document.
    """
    _text(query, f"the question{where}")
    if not query.strip():
        raise DataError(f"the question{where} is empty; give it some words")
    if isinstance(documents, (str, bytes)) or not hasattr(documents, "__iter__"):
        raise DataError(f"a list of documents is wanted for the question{where}, got {_kind(documents)}")
    found = [_text(document, f"document {number} of the question{where}") for number, document in enumerate(documents)]
    if not found:
        raise DataError(f"there is no document to rank for the question{where}; give at least one")
    return [(query, document) for document in found]


def _pair(given: Any, what: str) -> Pair:
    if isinstance(given, (str, bytes)) or not isinstance(given, (Sequence, np.ndarray)) or len(given) != 2:
        raise DataError(f"{what} must be two texts, a question and a document, got {_kind(given)}")
    question, document = (_text(text, f"text {place} of {what}") for place, text in enumerate(given))
    return question, document


def _text(given: Any, what: str) -> str:
    if not isinstance(given, str):
        raise DataError(f"{what} must be a string, got {_kind(given)}")
    if not is_unicode(given):
        raise DataError(f"{what} holds half a character, which is no valid Unicode")
    return str(given)  # numpy's strings are a kind of their own


def _kind(given: Any) -> str:
    size = f" of {len(given)}" if isinstance(given, (list, tuple, np.ndarray)) else ""
    return f"{type(given).__name__}{size}"
