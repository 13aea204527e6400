"""A checkpoint is written whole or not at all, and is what its name says or is not used."""

import logging
import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from crossrank.data.fingerprint import file_fingerprint
from crossrank.errors import TrainingError
from crossrank.training.checkpoints import (
    AtomicCheckpointIO,
    newest_whole_state,
    remove_leftovers,
    saved_states,
    state_name,
)


def test_a_checkpoint_is_saved_whole_with_its_folders(tmp_path):
    path = tmp_path / "new" / "folder" / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": 3, "weights": torch.arange(3)}, path)
    loaded = torch.load(path, weights_only=True)
    assert loaded["step"] == 3
    assert loaded["weights"].tolist() == [0, 1, 2]
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]
    assert AtomicCheckpointIO().load_checkpoint(path)["step"] == 3


def _break_in_torch_save(monkeypatch):
    def save(checkpoint, stream):
        stream.write(b"half a checkpoint")
        raise RuntimeError("unexpected pos 704 vs 598")

    monkeypatch.setattr(torch, "save", save)
    return RuntimeError


def _break_in_fsync(monkeypatch):
    def fsync(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    return OSError


def _break_in_rename(monkeypatch):
    def replace(self, target):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "replace", replace)
    return OSError


@pytest.mark.parametrize("breaks", [_break_in_torch_save, _break_in_fsync, _break_in_rename])
def test_a_failed_save_spoils_no_older_checkpoint(breaks, tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": 1}, path)
    with monkeypatch.context() as patch:
        error = breaks(patch)
        with pytest.raises(error):
            AtomicCheckpointIO().save_checkpoint({"step": 2}, path)
    assert torch.load(path, weights_only=True) == {"step": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_the_older_checkpoint_is_there_until_the_new_one_is_whole(tmp_path, monkeypatch):
    path, seen = tmp_path / "last.ckpt", []
    AtomicCheckpointIO().save_checkpoint({"step": 1}, path)
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (seen.append(torch.load(path, weights_only=True)), fsync(fd)))
    AtomicCheckpointIO().save_checkpoint({"step": 2}, path)
    assert seen == [{"step": 1}, {"step": 2}]  # synced are the file, before its renaming, and then its folder
    assert torch.load(path, weights_only=True) == {"step": 2}


def test_a_full_disk_is_said_to_be_full(tmp_path, monkeypatch):
    """torch says "unexpected pos 704 vs 598" then."""
    path = tmp_path / "checkpoints" / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": 1}, path)
    usage = namedtuple("usage", "total used free")(10**9, 10**9, 1000)
    with monkeypatch.context() as patch:
        _break_in_torch_save(patch)
        patch.setattr(shutil, "disk_usage", lambda place: usage)
        with pytest.raises(
            TrainingError, match=r"the disk is full while writing .*last\.ckpt \(0\.00 GB free\)"
        ) as error:
            AtomicCheckpointIO().save_checkpoint({"step": 2}, path)
    assert f"resume={tmp_path}" in str(error.value)
    assert torch.load(path, weights_only=True) == {"step": 1}


def save(folder, step):
    AtomicCheckpointIO().save_checkpoint({"step": step}, folder / state_name(step))
    return saved_states(folder)[0].file


def test_a_state_is_named_by_its_step_and_its_content(tmp_path):
    file = save(tmp_path, 12)
    assert file.name == f"step=000012-{file_fingerprint(file)}.ckpt"
    assert [found.name for found in tmp_path.iterdir()] == [file.name]


def test_the_newest_whole_state_is_that_of_the_highest_step(tmp_path, caplog):
    assert newest_whole_state(tmp_path) is None
    for step in (8, 1_000_000, 20):
        save(tmp_path, step)
    (tmp_path / "best.ckpt").touch()
    assert [state.step for state in saved_states(tmp_path)] == [1_000_000, 20, 8]
    assert newest_whole_state(tmp_path).step == 1_000_000
    assert caplog.text == ""


def test_damaged_states_are_named_and_passed_over(tmp_path, caplog):
    good, flipped, cut, empty = (save(tmp_path, step) for step in (1, 2, 3, 4))
    content = bytearray(flipped.read_bytes())
    content[100] ^= 1
    flipped.write_bytes(content)
    cut.write_bytes(cut.read_bytes()[:-1])
    empty.write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        assert newest_whole_state(tmp_path) == (good, 1)
    assert [str(file) in caplog.text for file in (good, flipped, cut, empty)] == [False, True, True, True]


def test_what_a_kill_left_half_written_is_removed(tmp_path):
    good = save(tmp_path, 1)
    (tmp_path / f".{state_name(2)}.tmp-123").write_bytes(b"half")
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == [good]
