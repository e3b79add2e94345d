"""Where and with what a number was measured: versions, commit, processor, memory."""

from __future__ import annotations

import contextlib
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from selfinv.resources import cores as cores
from selfinv.resources import give_memory_back, own_memory


@lru_cache(maxsize=1)
def commit() -> str:
    """The source's commit, with a + if the source was changed since; empty if it is not in a repository."""
    here = Path(__file__).parent
    words = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        done = subprocess.run(words, cwd=here, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


@lru_cache(maxsize=1)
def processor() -> str:
    """Its name."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def describe(device: str) -> dict[str, str | int]:
    """Columns of every result: versions, commit, processor, threads, and the GPU where one was used."""
    import numpy as np
    import torch

    from selfinv import __version__

    gpu = torch.cuda.get_device_name(torch.device(device)) if device.startswith("cuda") else ""
    return {
        "selfinv": __version__,
        "commit": commit(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "cpu": processor(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "device": gpu or device,
    }


class Memory:
    """The most memory used beyond what was in use at the start, in MiB; 0 until `peak_memory` ends."""

    mebibytes: float = 0.0


@contextmanager
def peak_memory(cuda: bool) -> Iterator[Memory]:
    """Measure the peak of the GPU's memory, or else of this process's.

    On Linux the kernel's own high-water mark is reset first. Elsewhere it cannot be, and the peak of the
    process's whole life less the start is taken, which is too low after a larger case.
    """
    memory = Memory()
    if cuda:
        import torch

        torch.cuda.reset_peak_memory_stats()
        start = torch.cuda.memory_allocated()
        try:
            yield memory
        finally:
            memory.mebibytes = (torch.cuda.max_memory_allocated() - start) / 2**20
        return
    give_memory_back()  # what earlier cases left would be used unseen
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    start_size = own_memory("VmRSS") or _highest()
    try:
        yield memory
    finally:
        memory.mebibytes = max(0.0, ((own_memory("VmHWM") or _highest()) - start_size) / 2**20)


def _highest() -> int:
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 2**10
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
