"""Strangers' texts inside markdown and Python, shown as they are; this machine's folders left out."""

import os
import re
from pathlib import Path
from typing import Any

from crossrank.analysis.sections import escaped

SHOWN = 300  # characters of a text
PLACE = re.compile(r"(?<![\w.:/-])(?:~|\.{0,2})/(?:[^\s/'\",\]})]+/)*([^\s/'\",\]})]*)")


def cell(text: str, width: int = SHOWN) -> str:
    """Return a text for a cell of a table, cut to `width` characters."""
    return escaped(_cut(text, width)) or "(empty)"


def python_text(text: str, width: int = SHOWN) -> str:
    """Return a text as a Python literal that cannot end the block of code it stands in."""
    return repr(_cut(text, width)).replace("`", "\\x60")


def _cut(text: str, width: int) -> str:
    """Return a text in one line; blanks within it count once."""
    line = " ".join(text.split())
    return line if len(line) <= width else f"{line[: width - 1].rstrip()}…"


def placeless(value: Any) -> Any:
    """Return a config's value, or a tree of them, with a file's name in place of where it lies on this machine."""
    if isinstance(value, dict):
        return {key: placeless(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [placeless(child) for child in value]
    if not isinstance(value, str):
        return value
    if value.startswith(os.sep) or Path(value).is_dir():
        return Path(value).name
    return PLACE.sub(r"\1", value)
