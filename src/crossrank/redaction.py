"""Secrets in what is written down or said: known by the names of keys, in URLs, and by how the hub's tokens look."""

import re
from collections.abc import Iterable, Iterator

HIDDEN = "<hidden>"
WORDS = r"(?:api_?key|key|token|secret|password|passwd|passphrase|credentials?)"  # not tokens_per_batch, tokenizer
NAME = re.compile(rf"(?:.*[^a-z0-9])?{WORDS}[^a-z0-9]*", re.IGNORECASE | re.DOTALL)
PAIR = re.compile(rf"((?<![a-z0-9]){WORDS}['\"]?\s*[=:]\s*)(\"[^\"]*\"|'[^']*'|[^\s,&}}\]][^,&}}\]\n]*)", re.IGNORECASE)
USER = re.compile(r"(?<=://)[^/?#\s]+(?=@)")  # of a URL
HUB_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{16,}")


def redact(text: str) -> str:
    """Return a text, such as a word of a command line, with `<hidden>` in place of what looks like a secret.

    It is better to hide too much here: of `token=a b`, all that follows up to a comma or a closing bracket.
    """
    name, equals, _ = text.partition("=")
    if equals and NAME.fullmatch(name):
        return f"{redact(name)}={HIDDEN}"
    hidden = PAIR.sub(rf"\g<1>{HIDDEN}", text)
    return HUB_TOKEN.sub(HIDDEN, USER.sub(HIDDEN, hidden))


def redact_command(words: Iterable[str]) -> list[str]:
    """Return a command line that can be written down, also where a secret is the word after `--token`."""
    shown: list[str] = []
    hide = False
    for word in words:
        shown.append(HIDDEN if hide else redact(word))
        hide = word.startswith("--") and NAME.fullmatch(word) is not None
    return shown


def secrets_in(leaves: Iterable[tuple[str, object]]) -> Iterator[str]:
    """Name the values of a config, given with their full paths, that are secrets; a run's config is written down."""
    for path, value in leaves:
        if not isinstance(value, str) or not value:
            continue
        if NAME.fullmatch(path.rpartition(".")[2]) or USER.search(value) or HUB_TOKEN.search(value):
            yield (
                f"{path}: looks like a secret, and a config is written beside its results; take it out and give it by "
                "an environment variable that the library behind it reads, such as WANDB_API_KEY or HF_TOKEN"
            )
