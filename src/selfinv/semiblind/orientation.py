"""Whether a PSF is told with its axes exchanged, as the image itself shows.

Files of images and of PSFs do not agree on which axis comes first. What is left over tells nothing of it, but
an image has little power where its PSF transmits little, and hidden values are predicted better with the
right one. (Turned by half a circle a PSF transmits the same everywhere, and is not told.)
"""

from __future__ import annotations

import numpy as np

from selfinv.semiblind.fit import held_out_difference, too_small
from selfinv.semiblind.width import LARGEST, SHARED
from selfinv.spectrum import taper
from selfinv.types import Array, Floats, middle_of, spatial_index

UNLIKE = 0.1  # of the power transmitted: less hardly matters
CLEARLY = 3.0  # standard errors


def is_transposed(y: Floats, kernel: Array, *, independent: bool) -> bool:
    """Whether hidden values say clearly that a PSF's transpose is the right one.

    Parameters as for `selfinv.semiblind.width.narrower`.
    """
    part = y[spatial_index(middle_of(y.shape[2:], [LARGEST] * 2))]
    shape = part.shape[2:]
    if max(kernel.shape) > min(shape) or too_small(shape, kernel.shape):
        return False
    told, other = (np.square(np.abs(np.fft.fft2(k / k.sum(), shape))) for k in (kernel, kernel.T))
    if np.square(told - other).mean() < UNLIKE**2 * np.square(told).mean():
        return False
    centred = np.nan_to_num(part - np.nanmean(part, (2, 3), keepdims=True)) * taper(shape, 1.0)
    power = np.square(np.abs(np.fft.fft2(centred))).sum((0, 1))
    frequency = np.hypot(*np.meshgrid(*(np.fft.fftfreq(n) for n in shape), indexing="ij"))
    if float((frequency**2 * power * (told - other)).sum()) >= 0.0:  # as of objects with edges
        return False  # of most images, which is quick to see
    hidden = () if independent else SHARED
    compared = held_out_difference(part, kernel, kernel.T, seed=0, blind_spot=hidden)
    return compared.mean < -CLEARLY * compared.error
