"""Whether a PSF is told clearly too wide, as the image itself shows.

An image restored with a PSF too wide is all ringing, and nothing in what is left over tells of it: the
inverse of a wider blur explains the measurement as well. But its spectrum does not fall, or have its rings,
where the PSF's would (`selfinv.semiblind.spectrum`), and hidden values are predicted better with a narrower
one. Noise that neighbours share has a spectrum that falls, too, and a narrower PSF predicts a value by
keeping its neighbours' noise: unless noise is known to be independent, those are hidden with it. Of a PSF too
narrow neither says anything: an object that is soft itself looks the same.
"""

from __future__ import annotations

import numpy as np

from selfinv.semiblind.families import scaled_family
from selfinv.semiblind.fit import fit_spectrum, from_0_to_1, held_out_difference, too_small
from selfinv.types import Array, Floats, middle_of, spatial_index

CLEARLY = 0.9  # of the told width: the interval ends below it
STEP = 0.06  # of a first, coarse grid
SHARED = (2, 2)  # values to each side: as far as smoothing and compression make neighbours alike
LARGEST, MOST = 512, 4  # samples a side of the part that is looked at, and planes


def narrower(y: Floats, kernel: Array, *, independent: bool) -> tuple[float, float] | None:
    """By what factors (95 %) a PSF must be scaled to fit, if it is clearly too wide; else None.

    Parameters
    ----------
    y
        ``batch channel y x``, NaN where nothing was measured.
    kernel
        The PSF as told, ``y x``.
    independent
        Whether the noise of neighbours is known to be.

    Raises
    ------
    InputError
        If the kernel is none (`selfinv.psf.check_psf`).
    """
    part = y[spatial_index(middle_of(y.shape[2:], [LARGEST] * 2))]
    each = (from_0_to_1(plane) for plane in part.reshape(-1, 1, *part.shape[2:])[:MOST])
    varied = [plane for plane in each if plane is not None]
    if not varied:
        return None
    planes = np.stack(varied)
    family = scaled_family(kernel)
    if too_small(planes.shape[2:], family.at(family.start).shape):
        return None
    # Of most images the first grid tells that it is not.
    fitted = fit_spectrum(planes, family, lambda intervals: intervals[0][1] >= CLEARLY + STEP)
    low, high = fitted.intervals[0]
    if high >= CLEARLY:
        return None
    compared = held_out_difference(
        planes, family.at(family.start), family.at((high,)), seed=0, blind_spot=() if independent else SHARED
    )
    return (low, high) if compared.significant and compared.mean < 0 else None
