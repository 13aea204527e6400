"""What a fault of the machine is called, and that nothing else is."""

import errno
import logging

import pytest
import torch
from torch._utils import ExceptionWrapper

from crossrank.errors import CacheError, DataError, TrainingError
from crossrank.faults import left_behind, told


def raising(error, run_dir):
    with told(run_dir):
        raise error


FAULTS = {
    "disk": (
        OSError(errno.ENOSPC, "No space left on device", "metrics.jsonl"),
        "the disk is full while writing metrics",
    ),
    "quota": (OSError(errno.EDQUOT, "Disk quota exceeded"), "the disk is full"),
    "host memory": (MemoryError(), "out of memory: lower model.max_length or data.pairs_per_step"),
    "CUDA memory": (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), "out of memory: lower"),
    "torch's host memory": (
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried to"),
        "out of memory: lower",
    ),
    "worker": (
        RuntimeError("DataLoader worker (pid 123) is killed by signal: Killed. "),
        "a process that collates batches was killed, as when memory runs out: lower data.workers",
    ),
    "workers": (RuntimeError("DataLoader worker (pid(s) 12, 13) exited unexpectedly"), "a process that collates"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_sentence_that_says_how_to_go_on(fault, tmp_path):
    error, message = FAULTS[fault]
    with pytest.raises(TrainingError, match=message) as caught:
        raising(error, tmp_path)
    assert f"go on with resume={tmp_path}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    "error", [OSError(errno.EACCES, "Permission denied"), RuntimeError("size mismatch"), KeyError("x")]
)
def test_any_other_error_stays_what_it_is(error, tmp_path):
    with pytest.raises(type(error)) as caught:
        raising(error, tmp_path)
    assert caught.value is error


def of_a_worker(error, cause=None):
    """As torch hands on what a process that collates batches raised: as one string, the stack trace in it."""
    try:
        raise error from cause
    except type(error):
        ExceptionWrapper(where="in DataLoader worker process 1").reraise()


@pytest.mark.parametrize("cause", [None, KeyError("x"), DataError("b.jsonl, row 1: another")])
@pytest.mark.parametrize("kind", [DataError, CacheError])
def test_an_error_of_ours_from_a_worker_is_one_sentence_again(kind, cause, tmp_path):
    with pytest.raises(kind) as caught, told(tmp_path):
        of_a_worker(kind("a.jsonl, row 3: no question; give one"), cause)
    assert str(caught.value) == "a.jsonl, row 3: no question; give one"
    assert "Traceback" in str(caught.value.__cause__)  # for who debugs it


def test_an_error_of_ours_from_elsewhere_stays_what_it_is(tmp_path):
    error = DataError("a.jsonl, row 3: no question")
    with pytest.raises(DataError) as caught:
        raising(error, tmp_path)
    assert caught.value is error


def test_a_lack_of_memory_in_a_worker_is_told_as_such(tmp_path):
    with pytest.raises(TrainingError, match="out of memory: lower"), told(tmp_path):
        of_a_worker(MemoryError())


def test_torchs_own_error_is_recognised(tmp_path):
    """The text above is torch's: here it is asked for more than there is."""
    with pytest.raises(TrainingError, match="out of memory"), told(tmp_path):
        torch.empty(2**58, dtype=torch.uint8)


def test_a_page_that_fails_spoils_nothing_and_warns_once(tmp_path, caplog):
    def failing():
        raise DataError("a file\nis damaged")

    with caplog.at_level(logging.WARNING):
        assert left_behind(failing, "python -m src.report RUN") is None
    (record,) = caplog.records
    assert record.message == (
        "a page was not written (DataError: a file is damaged); once that is mended: python -m src.report RUN"
    )
    assert left_behind(lambda: tmp_path, "python -m src.report RUN") == tmp_path
