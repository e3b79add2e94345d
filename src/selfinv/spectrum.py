"""The power spectrum of one image, and how much of it is noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import fft

from selfinv.types import Array, middle_of

FLOOR = 0.7  # of the highest frequency: beyond there is noise, and little else
MIDDLE = 0.85  # of it, where that is halved to see whether it falls no more
FLAT = 1.15  # times as much, at most, is as much
TAPER = 0.2  # of the image, both ends of an axis together
RINGS = 100  # per cycle per sample, at most
MOST_VALUES = 2**21


def taper(shape: Sequence[int], part: float) -> Array:
    """A cosine window that falls to nothing over a ``part`` of each axis, both ends together.

    Edges that do not fit together would have power at all frequencies. Sampled at the values' middles, so
    that none is thrown away entirely.
    """
    window = np.ones(())
    for axis, n in enumerate(shape):
        place = np.arange(n) + 0.5
        rise = np.minimum(place, n - place) / max(0.5 * part * n, 0.5)
        side = np.sin(rise.clip(max=1.0) * (np.pi / 2)) ** 2
        window = window * side.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return window


@dataclass(frozen=True)
class PowerSpectrum:
    """Of an image less its mean, tapered to its edges.

    Parameters
    ----------
    power
        Of every mode, 1-D: of white noise, its variance on average.
    frequency
        In cycles per sample, all axes together.
    alike
        By how much the taper makes neighbouring modes alike: a mean of them has so many times the variance.
    longest
        Samples along the longest axis.
    part
        What it was taken of, as a part of the image.
    """

    power: Array
    frequency: Array
    alike: float
    longest: int
    part: float = 1.0

    @classmethod
    def of(cls, image: Array) -> PowerSpectrum:
        """Of an image without gaps, of any number of axes; of its middle, if it is large."""
        whole = image.size
        scale = min(1.0, (MOST_VALUES / whole) ** (1.0 / image.ndim))
        image = image[middle_of(image.shape, [max(1, math.floor(n * scale)) for n in image.shape])]
        window = taper(image.shape, TAPER)
        squared = float(np.mean(window**2))
        alike = float(np.mean(window**4)) / squared**2
        power = np.abs(fft.fftn((image - image.mean()) * window)) ** 2 / (image.size * squared)
        squares = sum(f**2 for f in np.ix_(*(fft.fftfreq(n) for n in image.shape)))
        return cls(power.ravel(), np.sqrt(squares).ravel(), alike, max(image.shape), image.size / whole)

    def noise(self) -> float:
        """The variance of the noise, were it alone at the highest frequencies."""
        return self._typical(FLOOR, 1.0)[0]

    def most_noise(self) -> float:
        """What the variance of white noise is at most: the mean power at the highest frequencies.

        And two standard errors; modes come in pairs.
        """
        band = self.power[self.frequency > MIDDLE * self.frequency.max()]
        return float(band.mean()) * (1.0 + 2.0 * math.sqrt(2.0 * self.alike / band.size))

    @staticmethod
    def weight(shape: Sequence[int]) -> Array:
        """How much each place of a whole image counts, 1 on the mean."""
        squared = taper(shape, TAPER) ** 2
        return squared / squared.mean()

    def beyond(self, frequency: float) -> float:
        """The variance of what is beyond a frequency, in cycles per sample."""
        return float(np.where(self.frequency > frequency, self.power, 0.0).mean())

    def levels_off(self) -> bool:
        """Whether noise is alone there: the power falls no more."""
        (before, error), (end, other) = self._typical(FLOOR, MIDDLE), self._typical(MIDDLE, 1.0)
        return before <= (FLAT + 2.0 * math.hypot(error, other)) * end

    def _typical(self, first: float, last: float) -> tuple[float, float]:
        """The mean power in a band, in parts of the highest frequency, and its relative standard error.

        By the median, that a few strong modes do not move; powers of noise are exponentially distributed.
        """
        place = self.frequency / self.frequency.max()
        band = self.power[(place > first) & (place <= last)]
        if not band.size:
            return math.nan, math.nan
        return float(np.median(band)) / math.log(2.0), math.sqrt(self.alike / band.size) / math.log(2.0)

    def bits(self) -> float:
        r"""What the image tells above its noise, :math:`\sum \tfrac12 \log_2(P/N)`; infinite without noise.

        As if modes of the same frequency had the same power (Shannon 1949, doi:10.1109/JRPROC.1949.232969;
        of images, Fellgett and Linfoot 1955, doi:10.1098/rsta.1955.0001).
        """
        noise = self.noise()
        if noise <= 0.0:
            return math.inf
        per_cycle = min(RINGS, 0.5 * self.longest)
        ring = np.rint(self.frequency * per_cycle).astype(np.int64)
        modes = np.bincount(ring)
        mean = np.bincount(ring, self.power) / np.maximum(modes, 1)
        chance = 2.0 * np.sqrt(self.alike / np.maximum(modes, 1))  # two standard errors
        told = 0.5 * modes @ np.log2(np.maximum(mean / noise - chance, 1.0))
        return float(told) / self.part
