r"""How wide a network: the less a measurement tells, the fewer weights may learn from it.

A network that is too wide learns the noise by heart, which the few validation values tell too late. What a
measurement tells can be counted before anything is trained, in bits, by how far its power spectrum stands
above that of its noise (`selfinv.spectrum`). The number of weights, which grows with the square of the width,
is to be in proportion to them. Behind a blur it may be larger: a network can only learn what noise its
predictions can follow, and they are blurred.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from torch import Tensor

from selfinv.learning.masks import neighbour_fill
from selfinv.learning.measurement import Measurement
from selfinv.learning.random import generator_for
from selfinv.learning.unet import UNetSettings
from selfinv.spectrum import PowerSpectrum

WIDTH_PER_ROOT_BIT = 0.25  # channels of the finest level, without blur
STEP = 4  # widths are multiples of it


def adapted(network: UNetSettings, data: Measurement) -> UNetSettings:
    """The network, at most as wide as the measurement can teach.

    Where values are no pixels, of which there is a spectrum, as it is.
    """
    if data.entrance.crude is not None:
        return network
    passed = data.forward_model.passed(data.y.new_empty(1, data.y.shape[1], *data.object_shape))
    return replace(network, widths=suited_widths(network.widths, information(data.y, data.missing), passed))


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
    return sum(spectrum.bits() for spectrum in spectra(y, missing))


def spectra(y: Tensor, missing: Tensor) -> list[PowerSpectrum]:
    """The power spectrum of every image and channel, gaps filled in; as `information`."""
    known = neighbour_fill(y, missing, generator_for(0)).flatten(0, 1).detach().cpu().numpy()
    return [PowerSpectrum.of(image.astype(np.float64)) for image in known]


def white_variance(y: Tensor, missing: Tensor) -> float:
    """The variance of white noise in an image, all images and channels together; NaN where details hide it.

    Shapes as in `information`.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        known = spectra(y, missing)
        if not all(spectrum.levels_off() for spectrum in known):
            return math.nan
        variance = sum(spectrum.noise() for spectrum in known) / len(known)
    return variance if math.isfinite(variance) else math.nan


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
