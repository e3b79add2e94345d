"""How much memory a run may use."""

from __future__ import annotations

import re

from selfinv.resources import available_memory
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
    except (ValueError, KeyError, OverflowError):
        raise InputError(f"memory {words!r} is not understood; expected e.g. 4GiB or 500MB") from None
    if value < 1:
        raise InputError(f"memory {words!r} is nothing at all; expected e.g. 4GiB")
    return value


def default_memory() -> int:
    """What is used if nothing is said."""
    return int(SHARE * available_memory())
