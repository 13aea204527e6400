"""What a run is made in: the state of the code's repository, the machine, everything that is installed."""

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch

from crossrank.redaction import redact

MOST_CHARACTERS = 1_000_000  # of a diff; more is no change but another project
MOST_NAMES = 100  # of files that git does not know


def git_state() -> dict[str, Any]:
    """Return the commit, whether anything was changed since, and the names of files that git does not know.

    Every value is None where there is no git or no repository.
    """
    changes, untracked = _git("status", "--porcelain"), _git("ls-files", "--others", "--exclude-standard")
    return {
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": None if changes is None else bool(changes),
        "untracked": None if untracked is None else untracked.splitlines()[:MOST_NAMES],
    }


def uncommitted_diff() -> str:
    """Return what `git apply` needs to get from the commit to the code at hand, secrets hidden; empty without changes.

    What is longer than a million characters is cut, and says so in its last line.
    """
    diff = "\n".join(map(redact, (_git("diff", "HEAD") or "").splitlines()))
    if len(diff) > MOST_CHARACTERS:
        diff = f"{diff[:MOST_CHARACTERS]}\n# cut here: the diff has {len(diff):,} characters"
    return f"{diff}\n" if diff else ""


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *words], cwd=Path(__file__).parents[3], capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout.strip()


def machine() -> dict[str, Any]:
    """Return processors, memory (GiB), GPUs with theirs, and the system."""
    properties = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return {
        "cpu": next(_said_of_the_cpu(), platform.processor() or None),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": _memory(),
        "gpus": [{"name": found.name, "memory_gib": round(found.total_memory / 2**30, 1)} for found in properties],
        "cuda": torch.version.cuda,
        "system": platform.platform(),
    }


def _said_of_the_cpu() -> Iterator[str]:
    file = Path("/proc/cpuinfo")
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
        if line.startswith("model name"):
            yield line.partition(":")[2].strip()


def _memory() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):  # not every system says
        return None


@cache
def installed() -> str:
    """Return every installed distribution with its version, a line each, as `pip install -r` reads it."""
    read = (part.metadata for part in importlib.metadata.distributions())  # each time it is asked for, a file is parsed
    found = {(words["Name"], words["Version"]) for words in read}
    return "".join(f"{name}=={version}\n" for name, version in sorted(found, key=lambda pair: pair[0].lower()))
