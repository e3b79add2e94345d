"""How much memory there is, and how much a piece of work takes."""

from __future__ import annotations

import os
import re
from pathlib import Path

from selfinv.types import InputError

UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
UNITS |= {f"{letter}i": 2 ** (10 * (i + 1)) for i, letter in enumerate("kmgt")}
SHARE = 0.6  # of the available memory that is used unless told otherwise


def parse_memory(words: str) -> int:
    """Bytes from words like ``4GiB``, ``500MB`` or ``2e9``.

    >>> parse_memory("4GiB"), parse_memory("1.5 MB")
    (4294967296, 1500000)
    """
    match = re.fullmatch(r"\s*([\d.]+(?:e\d+)?)\s*([kmgt]?i?)b?\s*", words.lower())
    try:
        if match is None:
            raise ValueError
        value = int(float(match[1]) * UNITS[match[2]])
    except (ValueError, KeyError):
        raise InputError(f"memory {words!r} is not understood; expected e.g. 4GiB or 500MB") from None
    if value < 1:
        raise InputError(f"memory {words!r} is nothing at all; expected e.g. 4GiB")
    return value


def available_memory() -> int:
    """Bytes that this machine, or the container it is, can still give."""
    found = [_meminfo(), _cgroup()]
    known = [value for value in found if value is not None]
    return min(known) if known else 4 * 2**30


def default_memory() -> int:
    """What is used if nothing is said."""
    return int(SHARE * available_memory())


def peak_resident() -> int:
    """The most bytes this process has had in memory; 0 where the system does not tell."""
    return 1024 * _field(Path("/proc/self/status"), "VmHWM")


def _meminfo() -> int | None:
    kilobytes = _field(Path("/proc/meminfo"), "MemAvailable")
    if kilobytes:
        return 1024 * kilobytes
    try:  # macOS
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def _cgroup() -> int | None:
    """What a container's limit leaves."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit, used = ((folder / name).read_text().strip() for name in ("memory.max", "memory.current"))
        return None if limit == "max" else max(0, int(limit) - int(used))
    except (OSError, ValueError):
        return None


def _field(path: Path, name: str) -> int:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), 0)
