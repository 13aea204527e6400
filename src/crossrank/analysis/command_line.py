"""Systems and runs as plain words on the command line."""

import os
import re
from collections.abc import Sequence

from crossrank.errors import DataError

TAKE_A_WORD = {  # Hydra's options whose next word is theirs
    "--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd",
    "--experimental-rerun", "--info", "-i",
}  # fmt: skip


def with_systems(arguments: Sequence[str]) -> list[str]:
    """Return a command line whose words without "=" are gathered in Hydra's systems=[...].

    A word with "=" counts too where a file or a folder is called so; options of Hydra and their values do not count.

    Raises:
        DataError: systems are given both ways.
    """
    words, rest = _words(arguments)
    if words and any(word.lstrip("+").startswith("systems=") for word in rest):
        raise DataError(f"systems are given both as words ({', '.join(words)}) and as systems=[...]; give them once")
    return [*rest, f"systems=[{','.join(map(quoted, words))}]"] if words else rest


def with_run(arguments: Sequence[str]) -> list[str]:
    """Return a command line whose one word without "=" is Hydra's run=...; words are told apart as for systems.

    Raises:
        DataError: more than one run is given.
    """
    words, rest = _words(arguments)
    given = [*words, *(word for word in rest if word.lstrip("+").startswith("run="))]
    if len(given) > 1:
        raise DataError(f"one run at a time, got {len(given)}: {', '.join(given)}")
    return [*rest, f"run={quoted(words[0])}"] if words else rest


def _words(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    words: list[str] = []
    rest: list[str] = []
    for before, word in zip(["", *arguments], arguments, strict=False):
        option = word.startswith(("-", "~")) or before in TAKE_A_WORD
        is_path = not option and ("=" not in word or os.path.exists(word.partition(",")[0]))  # noqa: PTH110
        (words if is_path else rest).append(word)
    return words, rest


def quoted(word: str) -> str:
    """Return a word in quotation marks, with what OmegaConf and Hydra's grammar would take for theirs escaped."""
    literal = re.sub(r"(\\*)\$\{", lambda found: f"{found[1] * 2}\\${{", word)
    escaped = re.sub(r'(\\*)"', lambda found: f'{found[1] * 2}\\"', literal)
    trailing = len(escaped) - len(escaped.rstrip("\\"))
    return f'"{escaped}{escaped[len(escaped) - trailing :]}"'
