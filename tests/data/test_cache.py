import errno
import hashlib
import os
import subprocess
import threading
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from crossrank.data.cache import (
    ArrayWriter,
    cached,
    contents,
    contents_when_built,
    growing_arrays,
    replace_text,
    save_array,
)
from crossrank.errors import CacheError


def write_marker(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "made").write_text("whole")


def not_to_be_called(folder: Path) -> None:
    raise AssertionError("this cache was there already")


def left_in(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir() if not file.name.endswith(".lock"))


def test_a_folder_is_built_once_and_then_only_found(tmp_path):
    folder = tmp_path / "a" / "b" / "cache"
    assert cached(folder, write_marker) == folder
    assert cached(folder, not_to_be_called) == folder
    assert (folder / "sub" / "made").read_text() == "whole"
    assert left_in(folder.parent) == ["cache"]


def test_a_folder_knows_what_it_held_when_it_was_built(tmp_path):
    folder = cached(tmp_path / "cache", write_marker)
    built = {"sub/made": hashlib.sha256(b"whole").hexdigest()[:16]}
    assert contents_when_built(folder) == contents(folder) == built
    (folder / "sub" / "made").write_text("hole")
    (folder / "new").touch()
    assert contents_when_built(folder) == built
    assert contents(folder).keys() == {"sub/made", "new"}
    assert contents(folder)["sub/made"] != built["sub/made"]
    for damaged in ("{", "[1]", "3"):
        (folder / "content.json").write_text(damaged)
        assert contents_when_built(folder) == {}
    (folder / "content.json").unlink()
    assert contents_when_built(folder) == {}


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), RuntimeError("broken"), OSError(errno.EIO, "I/O error")])
def test_a_build_that_fails_leaves_nothing_and_its_error_comes_through(tmp_path, failure):
    def build(folder: Path) -> None:
        write_marker(folder)
        assert not (tmp_path / "cache").exists()  # nobody may see it half-written
        raise failure

    with pytest.raises(type(failure)) as caught:
        cached(tmp_path / "cache", build)
    assert caught.value is failure
    assert left_in(tmp_path) == []
    cached(tmp_path / "cache", write_marker)
    assert left_in(tmp_path) == ["cache"]


def test_what_a_killed_process_left_behind_is_not_taken_for_the_cache(tmp_path):
    stale = tmp_path / f".cache.tmp-{os.getpid()}"
    stale.mkdir()
    (stale / "half").write_text("hal")
    cached(tmp_path / "cache", write_marker)
    assert left_in(tmp_path / "cache") == ["content.json", "sub"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_error_with_its_remedy(tmp_path, code):
    def build(folder: Path) -> None:
        raise OSError(code, os.strerror(code))

    with pytest.raises(CacheError, match=r"the disk is full while writing .*cache \(.* GB free\).*cache_dir=FOLDER"):
        cached(tmp_path / "cache", build)
    assert left_in(tmp_path) == []


def append_to_array(folder: Path) -> None:
    with ArrayWriter(folder / "a.npy", (1000, 100), np.float64) as writer:
        for _ in range(1000):
            writer.append(np.ones(100))


@pytest.mark.parametrize(
    "build", [append_to_array, lambda folder: save_array(folder / "a.npy", np.ones(100_000))], ids=["append", "save"]
)
def test_a_really_full_disk_is_a_cache_error(tmp_path, build):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", disk], capture_output=True).returncode:
        pytest.skip("this user may not mount a tmpfs")
    try:
        with pytest.raises(CacheError, match="the disk is full"):
            cached(disk / "cache", build)
        assert left_in(disk) == []
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_a_failing_write_of_the_last_bytes_is_a_cache_error_too(tmp_path):
    def build(folder: Path) -> None:
        (folder / "a.npy").symlink_to("/dev/full")
        save_array(folder / "a.npy", np.ones(3))  # small enough to fail only when the buffer is flushed

    with pytest.raises(CacheError, match="the disk is full"):
        cached(tmp_path / "cache", build)


@pytest.mark.parametrize("below", ["cache", "pools/cache", "deep/pools/cache"])
def test_a_file_where_a_folder_should_be_is_a_cache_error(tmp_path, below):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(CacheError, match=r"cannot write .*cache_dir=FOLDER"):
        cached(tmp_path / "file" / below, not_to_be_called)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_place_without_write_permission_is_a_cache_error(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(CacheError, match=r"cannot write .*Permission denied.*cache_dir=FOLDER"):
        cached(tmp_path / "cache", not_to_be_called)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.EPERM])
def test_a_read_only_place_is_a_cache_error(tmp_path, monkeypatch, code):
    def refuse(self: Path, *_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code), str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(CacheError, match=rf"cannot write .*{os.strerror(code)}.*cache_dir=FOLDER"):
        cached(tmp_path / "cache", not_to_be_called)


def slow_build(folder: Path) -> None:
    with (folder.parent / "built").open("a") as log:
        log.write("once\n")
    time.sleep(0.3)
    write_marker(folder)


def build_at_once(folder: Path, barrier: "threading.Barrier") -> None:
    barrier.wait(20)
    cached(folder, slow_build)


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_of_two_that_want_the_same_folder_one_builds_and_the_other_waits(tmp_path, kind):
    context = get_context("forkserver")
    make, barrier = (
        (threading.Thread, threading.Barrier(2)) if kind == "threads" else (context.Process, context.Barrier(2))
    )
    workers = [make(target=build_at_once, args=(tmp_path / "cache", barrier)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert (tmp_path / "built").read_text() == "once\n"
    assert left_in(tmp_path) == ["built", "cache"]


@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_an_array_written_in_blocks_loads_as_the_whole_array(tmp_path_factory, data):
    dtype = data.draw(st.sampled_from([np.uint8, np.uint16, np.int32, np.int64, np.float32]))
    array = data.draw(arrays.arrays(dtype, arrays.array_shapes(min_dims=1, max_dims=2, min_side=0, max_side=9)))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(array)), max_size=3)))
    file = tmp_path_factory.mktemp("array") / "a.npy"
    with ArrayWriter(file, array.shape, dtype) as writer:
        for block in np.split(array, cuts):
            writer.append(block)
    for mode in (None, "r") if array.size else (None,):  # an empty file cannot be mapped
        loaded = np.load(file, mmap_mode=mode)
        assert loaded.dtype == array.dtype
        np.testing.assert_array_equal(loaded, array)
    save_array(file, array)
    np.testing.assert_array_equal(np.load(file), array)


def test_blocks_are_cast_to_the_files_type_and_may_be_strided(tmp_path):
    with ArrayWriter(tmp_path / "a.npy", (4, 2), np.int32) as writer:
        writer.append(np.arange(8, dtype=np.int64).reshape(2, 4).T)
    assert np.load(tmp_path / "a.npy").tolist() == [[0, 4], [1, 5], [2, 6], [3, 7]]


@pytest.mark.parametrize("rows", [1, 3])
def test_an_array_of_another_size_than_promised_is_not_taken_for_whole(tmp_path, rows):
    with pytest.raises(AssertionError), ArrayWriter(tmp_path / "a.npy", (2, 2), np.int32) as writer:
        writer.append(np.zeros((rows, 2), np.int32))


@pytest.mark.parametrize("dies_in", ["write_text", "replace"])
def test_a_text_is_replaced_whole_or_not_at_all(dies_in, tmp_path, monkeypatch):
    def die(self, *_, **__):
        self.write_bytes(b"ha")
        raise KeyboardInterrupt

    file = tmp_path / "new" / "facts.json"
    replace_text(file, "old")
    assert [found.name for found in file.parent.iterdir()] == ["facts.json"]
    with monkeypatch.context() as patch:
        patch.setattr(Path, dies_in, die)
        with pytest.raises(KeyboardInterrupt):
            replace_text(file, "new")
    assert file.read_text() == "old"
    replace_text(file, "new")
    assert file.read_text() == "new"


def test_arrays_grow_by_blocks_to_whatever_length(tmp_path):
    blocks = [(np.arange(n), np.arange(n) / 2) for n in (3, 0, 5)]
    with growing_arrays(tmp_path, {"a": np.int32, "b": np.float32}) as append:
        for block in blocks:
            append(*block)
    for name, dtype, parts in zip("ab", (np.int32, np.float32), zip(*blocks, strict=True), strict=True):
        found = np.load(tmp_path / f"{name}.npy", mmap_mode="r")
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, np.concatenate(parts))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.npy", "b.npy"]


def test_nothing_appended_is_an_empty_array(tmp_path):
    with growing_arrays(tmp_path, {"a": np.uint16}):
        pass
    assert np.load(tmp_path / "a.npy").tolist() == []
