import mmap
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from crossrank.data import mapped
from crossrank.data.cache import cached
from crossrank.data.mapped import let_go, new_array
from crossrank.errors import CacheError


@pytest.mark.parametrize("length", [1, 1000])
def test_a_new_array_is_a_file_that_numpy_reads(tmp_path, length):
    array = new_array(tmp_path / "a.npy", length, np.int64)
    assert isinstance(array, np.memmap)
    array[:] = np.arange(length)
    del array
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), np.arange(length))


def test_a_full_disk_is_an_error_before_anything_is_written(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(mapped.os, "posix_fallocate", full)
    with pytest.raises(CacheError, match="the disk is full"):
        cached(tmp_path / "cache", lambda to: new_array(to / "a.npy", 10, np.int64))


def resident(array: np.memmap) -> int:
    """Bytes of the array's map that are in this process's memory, as the system tells."""
    start = array.__array_interface__["data"][0] & -mmap.PAGESIZE
    with Path("/proc/self/smaps").open() as lines:
        inside = False
        for line in lines:
            first = line.split()[0]
            if "-" in first:
                low, high = (int(part, 16) for part in first.split("-"))
                inside = low <= start < high
            elif inside and first == "Rss:":
                return 1024 * int(line.split()[1])
    raise AssertionError("not mapped")


def test_what_was_read_of_an_array_leaves_memory_and_can_be_read_again(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(1_000_000))
    array = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert array.sum() == 499_999_500_000
    assert resident(array) > 7_000_000
    let_go([array, np.zeros(3)])
    assert resident(array) < 100_000
    assert array.sum() == 499_999_500_000


def test_freed_memory_is_given_back():
    """Small pieces, which glibc keeps however it is set."""
    script = """
import re, sys
from crossrank.data.mapped import give_back
def held(): return int(re.search("RssAnon:\\s+(\\d+)", open("/proc/self/status").read())[1])
before = held()
pieces = [bytes(1000) + bytes([i % 7]) for i in range(100_000)]
last = [bytes(1000) for _ in range(100)]
del pieces
kept = held() - before
give_back()
print(kept, held() - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    kept, left = map(int, done.stdout.split())
    assert kept > 50_000
    assert left < kept / 2
