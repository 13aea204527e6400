"""Keeps what other packages say out of a program's log, unless it matters to who reads it."""

import logging
import sys
import warnings
from typing import TextIO

CHATTY = ("httpx", "httpx2", "sentence_transformers", "lightning.pytorch", "lightning.fabric", "bm25s", "matplotlib")
NOISE = (".*treespec, LeafSpec.*", ".*does not have many workers.*", ".*ended before the epoch ended.*")


def quieten() -> None:
    """Hide what is neither a warning nor ours, and warnings about what is meant to be so."""
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in NOISE:
        warnings.filterwarnings("ignore", message=message)


class Said(logging.StreamHandler[TextIO]):
    """Writes to what standard error is now: while a bar is drawn, lines go above it."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        """Where to write."""
        return sys.stderr
