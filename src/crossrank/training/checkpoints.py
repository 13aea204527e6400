"""Checkpoint files: written whole or not at all, named by their content, loaded only if they are what they were."""

import logging
import os
import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from crossrank.data.cache import sync
from crossrank.data.fingerprint import file_fingerprint
from crossrank.errors import ResumeError, TrainingError

log = logging.getLogger(__name__)

CONTENT = "{content}"  # in a name: becomes 16 hex digits of the file's SHA-256


class SavedState(NamedTuple):
    """A complete state of a training on disk."""

    file: Path
    step: int  # optimizer steps made


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its final name, syncs it and renames it: a kill or a full disk spoils no older one."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Save `checkpoint` under `path` in one step.

        Raises:
            TrainingError: the disk is full.
        """
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.tmp-{os.getpid()}")
        try:
            with temporary.open("wb") as stream:
                torch.save(checkpoint, stream)
                stream.flush()
                os.fsync(stream.fileno())
            if CONTENT in target.name:
                target = target.with_name(target.name.replace(CONTENT, file_fingerprint(temporary)))
            temporary.replace(target)
            sync(target.parent)
        except (OSError, RuntimeError) as error:
            free = shutil.disk_usage(target.parent).free
            if free < max(temporary.stat().st_size if temporary.exists() else 0, 1 << 20):
                raise TrainingError(
                    f"training stopped: the disk is full while writing {target} ({free / 1e9:.2f} GB free); earlier "
                    "checkpoints are whole: free some space and go on with resume="
                    f"{target.parent.parent}"
                ) from error
            raise
        finally:
            temporary.unlink(missing_ok=True)

    def load_checkpoint(self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = True) -> Any:
        """Load tensors and plain values, whatever `weights_only` says: a pickle that would run code is refused.

        Raises:
            ResumeError: the file is damaged, or holds anything else.
        """
        try:
            return read_checkpoint(Path(path), map_location)
        except ValueError as error:
            raise ResumeError(
                f"{path} is no state to go on from ({error}); remove it to go on from an earlier one"
            ) from error


def read_checkpoint(file: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Return the tensors and plain values of a checkpoint, by name; nothing in it is executed.

    Raises:
        ValueError: the file cannot be read, or holds anything else.
    """
    try:
        saved = torch.load(file, map_location=map_location, weights_only=True)
    except Exception as error:  # unpickling damaged bytes may raise anything
        raise ValueError(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(saved, dict):
        raise ValueError(f"it holds a {type(saved).__name__}")
    return saved


def state_name(step: int) -> str:
    """Return the name under which the complete state after a step is saved."""
    return f"step={step:06d}-{CONTENT}.ckpt"


def saved_states(folder: Path) -> list[SavedState]:
    """Return the complete states in a folder, the newest first, whether they are whole or not."""
    found = (file for file in folder.glob("step=*-*.ckpt") if file.is_file())
    files = [file for file in found if re.fullmatch(r"[0-9]{1,18}", file.stem[5:].partition("-")[0])]
    return sorted((SavedState(file, int(file.stem[5:].partition("-")[0])) for file in files), key=_age, reverse=True)


def newest_whole_state(folder: Path) -> SavedState | None:
    """Return the newest state whose content is what its name says; one that is not is named in a warning."""
    for state in saved_states(folder):
        if file_fingerprint(state.file) == state.file.stem.rpartition("-")[2]:
            return state
        log.warning("%s is damaged, its content is not what its name says; the one before it is used", state.file)
    return None


def remove_leftovers(folder: Path) -> None:
    """Remove what a kill left of a checkpoint that was being written."""
    for file in folder.glob(".*.ckpt.tmp-*"):
        file.unlink(missing_ok=True)


def _age(state: SavedState) -> tuple[int, int]:
    return state.step, state.file.stat().st_mtime_ns
