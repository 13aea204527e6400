"""Scores the probe with an export in other Python environments, whatever versions they hold."""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from crossrank.errors import ConfigError, ExportError
from crossrank.inference import consumer
from crossrank.inference.probe import Probe

SECONDS = 1200.0  # for imports and a few forward passes on a machine that is busy


def refuse_missing(interpreters: Sequence[str]) -> None:
    """Check that other environments' interpreters are there.

    Raises:
        ConfigError: one is not.
    """
    missing = [f"consumers: {python!r} is no program" for python in interpreters if shutil.which(python) is None]
    if missing:
        raise ConfigError([f"{said}; give the Python of an environment, such as /path/bin/python" for said in missing])


def by_interpreter(python: str, folder: Path, probe: Probe) -> list[dict[str, Any]]:
    """Return the answers of what an interpreter holds: of transformers, and of sentence-transformers if it is there.

    The interpreter sees nothing of this environment: neither PYTHONPATH nor the current folder.

    Raises:
        ExportError: it holds no transformers, or that cannot load the folder.
    """
    with tempfile.TemporaryDirectory() as place, Path(consumer.__file__).open("rb") as program:
        request, answer = Path(place, "request.json"), Path(place, "answer.json")
        asked = {"folder": str(folder.resolve()), "groups": probe.groups, "longest": probe.longest}
        request.write_text(json.dumps(asked | {"max_length": probe.max_length}), encoding="utf-8")
        try:
            done = subprocess.run(
                [python, "-I", "-", str(request), str(answer)], stdin=program, capture_output=True, text=True,
                timeout=SECONDS, check=False,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ExportError(f"{python} did not score the export: {error}") from error
        if done.returncode or not answer.is_file():
            said = (done.stderr.strip().splitlines() or [f"it ended with exit code {done.returncode}"])[-1]
            raise ExportError(f"{python} did not score the export: {said}")
        found: list[dict[str, Any]] = json.loads(answer.read_text(encoding="utf-8"))
        return found
