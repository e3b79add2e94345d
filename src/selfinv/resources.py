"""Floor 0: the cores and the memory that this process may use."""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Iterator
from pathlib import Path

# Of glibc's mallopt (malloc.h).
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
LARGEST_DYNAMIC = 32 * 2**20  # as far as glibc raises the second by itself; the first to twice as much


def cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_memory() -> int:
    """Bytes that this machine, or the container it is, can still give."""
    found = [_free(), _left_by_container()]
    known = [value for value in found if value is not None]
    return min(known) if known else 4 * 2**30


def own_memory(name: str) -> int:
    """Bytes of this process that Linux calls so, ``VmRSS`` (now) or ``VmHWM`` (at most); 0 elsewhere."""
    return _told(Path("/proc/self/status"), name)


@contextlib.contextmanager
def memory_kept() -> Iterator[None]:
    """Let glibc keep what is freed within for what is allocated next; it is given back in the end.

    Arrays above 32 MB otherwise come from the system each time and go back to it, and to have their pages
    made anew takes longer than most things that are done with them. It holds for the whole process, until the
    last of those who ask for it at a time has ended; where the allocator is another one, or has been told how
    to go about it (``MALLOC_…``, ``GLIBC_TUNABLES``), nothing happens.
    """
    libc = _glibc()
    told = any(name.startswith("MALLOC_") for name in os.environ) or "GLIBC_TUNABLES" in os.environ
    if libc is None or told:
        yield
        return
    with _lock:
        _asking.append(libc)
        if len(_asking) == 1:
            # Before 2.35 glibc knows no more than this; and once told one of both, it adapts neither.
            if not libc.mallopt(MMAP_THRESHOLD, 2**30):
                libc.mallopt(MMAP_THRESHOLD, LARGEST_DYNAMIC)
            libc.mallopt(TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield
    finally:
        with _lock:
            _asking.pop()
            if not _asking:
                libc.mallopt(MMAP_THRESHOLD, LARGEST_DYNAMIC)
                libc.mallopt(TRIM_THRESHOLD, 2 * LARGEST_DYNAMIC)
                give_memory_back()


def give_memory_back() -> None:
    """Return what has been freed to the system, where that takes asking (glibc)."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


_lock = threading.Lock()
_asking: list[ctypes.CDLL] = []


def _glibc() -> ctypes.CDLL | None:
    if os.name != "posix":
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None


def _free() -> int | None:
    told = _told(Path("/proc/meminfo"), "MemAvailable")
    if told:
        return told
    try:  # macOS
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def _left_by_container() -> int | None:
    folder = Path("/sys/fs/cgroup")
    try:
        limit, used = ((folder / name).read_text().strip() for name in ("memory.max", "memory.current"))
        return None if limit == "max" else max(0, int(limit) - int(used))
    except (OSError, ValueError):
        return None


def _told(path: Path, name: str) -> int:
    """Bytes from a line like ``VmRSS:  1234 kB``; 0 if there is none."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), 0)
