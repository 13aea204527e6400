import subprocess
import sys

import pytest
import torch

MEASURE = """
import resource, torch
from crossrank.process import keep_freed_memory
torch.set_num_threads(1)
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(2**23)  # 32 MiB, which is 8192 pages
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
assert keep_freed_memory()
faults()
print(faults())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_freed_memory_is_used_again_without_asking_the_system():
    """Page faults of 20 allocations of 32 MiB each, in a process of their own."""
    done = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    as_it_is, kept = map(int, done.stdout.split())
    assert as_it_is > 20 * 100  # huge pages of 2 MiB would still be 16 a tensor
    assert kept < 100


FLUSHED = """
import torch
from crossrank.process import prepare_process
prepare_process()
torch.set_num_threads(2)
small = torch.full((2**22,), 2e-38) * 0.01  # in both threads
print(int(small.count_nonzero()))
"""


def test_numbers_too_small_for_the_exponent_are_0_in_every_thread():
    done = subprocess.run([sys.executable, "-c", FLUSHED], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    if not torch.set_flush_denormal(False):
        pytest.skip("the CPU cannot")
    assert done.stdout.split() == ["0"]
    assert (torch.full((8,), 2e-38) * 0.01).count_nonzero() == 8  # as it is without
