r"""How wide a network: the less a measurement tells, the fewer weights may learn from it.

A network that is too wide learns the noise by heart, which the few validation values tell too late. What a
measurement tells can be counted before anything is trained: its power spectrum stands above that of the noise
by :math:`P/N`, and a mode with Gaussian noise tells :math:`\tfrac12 \log_2(P/N)` bits (Shannon 1949,
doi:10.1109/JRPROC.1949.232969; of images, Fellgett and Linfoot 1955, doi:10.1098/rsta.1955.0001). The number
of weights, which grows with the square of the width, is to be in proportion to these bits. Behind a blur it
may be larger: a network can only learn what noise its predictions can follow, and they are blurred.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import fft
from torch import Tensor

from selfinv.learning.masks import neighbour_fill
from selfinv.learning.random import generator_for
from selfinv.types import Array, spatial_index

WIDTH_PER_ROOT_BIT = 0.25  # channels of the finest level, without blur
STEP = 4  # widths are multiples of it
FLOOR = 0.4  # cycles per sample, along the axes together: the rest of the spectrum is noise
RINGS = 100  # in which modes are averaged, per cycle per sample, at most
MOST_VALUES = 2**21  # of which a spectrum is taken


def information(y: Tensor, missing: Tensor) -> float:
    """Bits that a measurement tells, all images and channels together.

    Parameters
    ----------
    y
        ``batch channel *space``, in any units.
    missing
        Boolean, of that shape: where nothing was measured.

    Returns
    -------
    float
        As if modes of the same frequency had the same power. Infinite where there is no noise.
    """
    known = neighbour_fill(y, missing, generator_for(0)).flatten(0, 1).detach().cpu().numpy()
    return sum(_bits(image.astype(np.float64)) for image in known)


def _bits(image: Array) -> float:
    """Of the middle of the image, if it is large; the rest tells as much by its size."""
    scale = min(1.0, (MOST_VALUES / image.size) ** (1.0 / image.ndim))
    sides = [max(1, math.floor(n * scale)) for n in image.shape]
    starts = [(n - side) // 2 for n, side in zip(image.shape, sides, strict=True)]
    middle = image[spatial_index(slice(a, a + n) for a, n in zip(starts, sides, strict=True))]
    tapered, alike = middle - middle.mean(), 1.0
    for axis, n in enumerate(sides):
        window = np.hanning(n + 2)[1:-1]
        alike *= np.mean(window**4) / np.mean(window**2) ** 2
        shape = [-1 if a == axis else 1 for a in range(image.ndim)]
        tapered *= (window / math.sqrt(np.mean(window**2))).reshape(shape)
    power = np.abs(fft.fftn(tapered)) ** 2
    frequency = np.sqrt(sum(f**2 for f in np.ix_(*(fft.fftfreq(n) for n in sides))))
    high = power[frequency > FLOOR]
    noise = float(np.median(high)) / math.log(2.0) if high.size else 0.0  # the median of exponential values
    if noise <= 0.0:
        return math.inf
    ring = np.rint(frequency * min(0.5 * max(sides), RINGS)).astype(np.int64).ravel()
    modes = np.bincount(ring)
    mean = np.bincount(ring, power.ravel()) / np.maximum(modes, 1)
    # Less what chance adds: two standard errors of the mean, of modes that the taper makes alike.
    above = mean / noise - 2.0 * np.sqrt(alike / np.maximum(modes, 1))
    bits = 0.5 * modes @ np.log2(np.maximum(above, 1.0))
    return float(bits) * image.size / middle.size


def suited_widths(widths: tuple[int, ...], bits: float, passed: float) -> tuple[int, ...]:
    """These channels of each level, all fewer in proportion where so many bits teach fewer.

    Parameters
    ----------
    passed
        The mean square of what is measured of a white object of variance 1 and mean 1 in the units of both:
        1 without blur, less with.
    """
    blur = math.sqrt(min(1.0, max(passed, 1e-6)))
    most = WIDTH_PER_ROOT_BIT * math.sqrt(bits / blur)
    if most >= widths[0]:
        return widths
    first = max(STEP, STEP * round(most / STEP))
    return tuple(max(STEP, n * first // widths[0]) for n in widths)
