"""Short hashes that name a cache by everything it depends on."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def fingerprint(*parts: Any) -> str:
    """Return 16 hex digits that change when any part does; parts are anything JSON can hold."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def file_fingerprint(path: Path) -> str:
    """Return 16 hex digits of a file's content, whatever its name and time."""
    return sha256(path)[:16]


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content as 64 hex digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def file_fingerprints(folder: Path, files: Iterable[Path]) -> dict[str, str]:
    """Return the `file_fingerprint` of files in a folder by their paths in there, in the order of the paths."""
    return {file.relative_to(folder).as_posix(): file_fingerprint(file) for file in sorted(files)}


def texts_fingerprint(texts: Iterable[str]) -> str:
    """Return 16 hex digits of the texts and their order."""
    digest = hashlib.sha256()
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:16]
