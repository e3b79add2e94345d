"""Images without what lies within a pass band, however strong that is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import minimum_filter
from scipy.signal import oaconvolve

from selfinv.types import Array

RADIUS = 12  # of the filter, at most
PART = 8  # of an image's side, that it may be
BETA = 6.0  # of Kaiser's window: about a thousandth of the rest of the band is let through


def high_passed(images: Array, band: Array) -> Array:
    """Images less what lies within a pass band; NaN where that would take values that are not known.

    Parameters
    ----------
    images
        ``batch channel *space``, NaN where unknown.
    band
        The autocorrelation, periodic and with lag 0 first, of what fills the pass band evenly.
    """
    low_pass = _windowed(np.fft.fftshift(band), images.shape[2:])
    known = np.isfinite(images)
    passed = oaconvolve(np.where(known, images, 0.0), low_pass[None, None], "same")
    reached = minimum_filter(known, (1, 1, *low_pass.shape), mode="constant")
    return np.where(reached, images - passed, np.nan)


def _windowed(band: Array, space: Sequence[int]) -> Array:
    """The middle of a band's autocorrelation as a filter, under Kaiser's window, with the sum 1."""
    for axis, (n, size) in enumerate(zip(band.shape, space, strict=True)):
        radius = min(RADIUS, size // PART, (n - 1) // 2)
        window = np.kaiser(2 * radius + 3, BETA)[1:-1]
        band = band.take(range(n // 2 - radius, n // 2 + radius + 1), axis)
        band = band * window.reshape(-1, *(1,) * (band.ndim - 1 - axis))
    return band / band.sum()
