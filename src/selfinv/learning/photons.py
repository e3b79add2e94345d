"""Whether an image's values are numbers of photons, of which the noise is known."""

from __future__ import annotations

import numpy as np

from selfinv.types import Floats

ROUNDING = 1e-6  # of the range
WHOLE = 0.05  # how far from whole numbers rounding may take counts
ON_NOTHING = 0.5  # of the values, that are no photon


def as_counts(values: Floats) -> tuple[Floats, float] | None:
    """Values in the finest step between them, above the lowest, and that step; None if they are not whole."""
    levels = np.unique(values)
    gaps = np.diff(levels)
    gaps = gaps[gaps > ROUNDING * (levels[-1] - levels[0])]
    if not gaps.size:
        return None
    range_ = float(levels[-1] - levels[0])
    step = range_ / max(1, round(range_ / float(gaps.min())))
    counts = (values - levels[0]) / step
    return (counts, step) if float(np.abs(counts - counts.round()).max()) <= WHOLE else None


def mostly_none(counts: Floats) -> bool:
    """Whether most are no photon at all, and single ones the most frequent of the others."""
    none, single, two = (float(np.mean(counts.round() == n)) for n in range(3))
    return none > ON_NOTHING and single > two > 0.0
