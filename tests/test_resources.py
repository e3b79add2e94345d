"""The memory that a process holds."""

import os
import subprocess
import sys

import pytest

resource = pytest.importorskip("resource")  # not on Windows

PROGRAM = """
import contextlib, resource, sys
import torch
from selfinv.resources import memory_kept, own_memory
torch.set_num_threads(1)
with memory_kept() if sys.argv[1] == "kept" else contextlib.nullcontext():
    with memory_kept() if sys.argv[1] == "kept" else contextlib.nullcontext():
        pass  # the inner one must not end the outer one
    torch.ones(48 * 2**20 // 4)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(100):
        torch.ones(48 * 2**20 // 4)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults, own_memory("VmRSS"))
"""


def faults_and_memory(how):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", PROGRAM, how]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return [int(word) for word in done.stdout.split()]


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone can be told")
def test_freed_memory_is_used_again_and_given_back_in_the_end():
    faults, held = faults_and_memory("")
    faults_kept, held_in_the_end = faults_and_memory("kept")
    if faults < 100 * 48 * 2**20 / (4 * resource.getpagesize()):
        pytest.skip("this system's allocator keeps such arrays by itself")
    assert faults_kept < 0.25 * faults
    assert held_in_the_end < held + 20 * 2**20
