r"""Values that the blur cannot have made, found from what stands around them.

A dead or hot pixel, a cosmic ray: shown to a network it spreads through every filter. What an instrument has
blurred cannot stand out like that, for light that falls on one pixel falls on its neighbours as well. So a
value :math:`y` is taken for wild, and filled in like a hidden one, if it differs from the mean :math:`n` of
the *others* around it (hidden ones filled in) both by more than noise and by more than a point source makes
it differ,

.. math:: |y - n| > 4 s \quad\text{and}\quad |y - n| > 1.5\,\kappa\,|n - b|,

with :math:`b` a wider mean, the highest :math:`|n - b|` among a value and those next to it, and
:math:`\kappa` the largest ratio of the two for the PSF itself. A star's peak passes; behind a sharp PSF
nearly everything does. A wild value is still predicted and scored where the loss, a likelihood,
has outliers: there this is about what a network sees, not about what counts. Least squares have none; with
them (photon counts with hot pixels) a wild value is one that is missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from selfinv.learning.inverse_filters import point_spread
from selfinv.learning.losses import BEYOND_NOISE, halvings
from selfinv.learning.masks import neighbour_fill
from selfinv.learning.random import generator_for
from selfinv.learning.smoothing import smooth, smoothing_radius, smoothing_taps
from selfinv.solvers.base import Forward

NEAR, WIDE = 1.2, 2.5  # samples, the deviations of the Gaussian means
BEYOND_POINTS = 1.5  # times what a point source shows
MOST = 0.05  # of the values: more are not outliers
REACH = smoothing_radius(WIDE) + 1


@dataclass(frozen=True)
class OutlierTest:
    r"""The test for one instrument and its noise.

    Parameters
    ----------
    sharpness
        :math:`\kappa`, of the PSF.
    deviation
        :math:`s`, the typical difference between a value and that mean, where it is largest.
    left
        Whether wild values count for nothing, rather than as outliers of a likelihood.
    """

    sharpness: float
    deviation: float
    left: bool = False

    @classmethod
    def of(cls, operator: Forward, y: Tensor, missing: Tensor, *, left: bool = False) -> OutlierTest | None:
        """For data ``batch channel *space`` and what blurred them; None without a PSF or any sense in it."""
        psf = point_spread(operator)
        if psf is None or not bool((psf != 0).any()):
            return None
        shown = neighbour_fill(y, missing, generator_for(0)) if missing.any() else y
        mean, wide = _around(shown)
        deviation = _largest_deviation((shown - mean)[~missing].abs(), wide[~missing])
        test = cls(sharpness_of(psf, y.ndim - 2), deviation, left)
        taken = float(test.wild(shown, missing).float().mean())
        return test if deviation and taken < MOST else None

    def replaced(self, filled: Tensor, hidden: Tensor) -> Tensor:
        """The measurement with wild values replaced by the mean of those around them; as `wild`."""
        mean, wild = self._judged(filled)
        return torch.where(wild & ~hidden, mean, filled)

    def left_out(self, y: Tensor, missing: Tensor) -> Tensor:
        """What is missing of a measurement, ``batch channel *space``, without its wild values."""
        if not self.left:
            return missing
        return missing | self.wild(neighbour_fill(y, missing, generator_for(0)), missing)

    def wild(self, filled: Tensor, hidden: Tensor) -> Tensor:
        """Which values are wild, but for ``hidden`` ones.

        Parameters
        ----------
        filled
            ``batch channel *space``, with something made of the others in place of ``hidden`` values: then
            nothing of these gets in here.
        """
        return self._judged(filled)[1] & ~hidden

    def _judged(self, filled: Tensor) -> tuple[Tensor, Tensor]:
        mean, limit = as_points_stand_out(filled, self.sharpness)
        return mean, (filled - mean).abs() > limit.clamp_min(BEYOND_NOISE * self.deviation)


def sharpness_of(psf: Tensor, ndim: int) -> float:
    r""":math:`\kappa` of a PSF, ``(..., *kernel)`` with ``ndim`` axes: the sharpest of several."""
    kernel = psf.detach().float().cpu().reshape(-1, 1, *psf.shape[psf.ndim - ndim :])
    point = F.pad(kernel, [2 * REACH] * (2 * ndim))
    mean, wide = _around(point)
    difference, bright = (point - mean).abs(), _light(mean, wide)
    counts = difference > 0.1 * difference.max()
    return float((difference / bright.clamp_min(1e-9 * float(point.abs().max())))[counts].max())


def as_points_stand_out(y: Tensor, sharpness: float) -> tuple[Tensor, Tensor]:
    """The mean of the others around each value, and the most by which a point source stands out of it."""
    mean, wide = _around(y)
    return mean, BEYOND_POINTS * sharpness * _light(mean, wide)


def mean_around(y: Tensor) -> Tensor:
    """The mean of the others around each value."""
    own = smoothing_taps(NEAR)[smoothing_radius(NEAR)] ** (y.ndim - 2)
    return (smooth(y, NEAR) - own * y) / (_inside(y, NEAR) - own)


def is_cut_off(y: Tensor) -> Tensor:
    """Whether some of what is around a place is outside the image; broadcasts against ``y``."""
    return _inside(y, NEAR) < 0.999


def _around(y: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of the others around each value, and a wider one."""
    return mean_around(y), smooth(y, WIDE) / _inside(y, WIDE)


def _light(mean: Tensor, wide: Tensor) -> Tensor:
    """How far the means stand out from the wider ones, the highest of each value and those next to it."""
    bright = (mean - wide).abs()
    for axis in range(2, mean.ndim):
        here, n = bright.clone(), mean.shape[axis] - 1
        for start, other in ((1, 0), (0, 1)):
            place = bright.narrow(axis, start, n)
            torch.maximum(place, here.narrow(axis, other, n), out=place)
    return bright


def _largest_deviation(difference: Tensor, level: Tensor) -> float:
    """The typical difference among all values, the brighter half, quarter, ...: the largest of these."""
    ordered = difference[level.argsort(descending=True)]
    return max((1.4826 * float(ordered[:count].median()) for count in halvings(len(ordered))), default=0.0)


def _inside(y: Tensor, sigma: float) -> Tensor:
    """How much of the Gaussian around each place is inside the image."""
    weight = y.new_ones(())
    for axis in range(2, y.ndim):
        line = _line_inside(y.shape[axis], sigma, y.dtype, y.device)
        weight = weight * line.reshape(-1, *(1,) * (y.ndim - 1 - axis))
    return weight


@lru_cache(maxsize=256)
def _line_inside(n: int, sigma: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    return smooth(torch.ones(1, 1, n, dtype=dtype, device=device), sigma)
