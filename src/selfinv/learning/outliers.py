r"""Values that the blur cannot have made, found from what stands around them.

A dead or hot pixel, a cosmic ray: shown to a network it spreads through every filter. What an instrument has
blurred cannot stand out like that, for light that falls on one pixel falls on its neighbours as well. So a
value :math:`y` is taken for wild, and filled in like a hidden one, if it differs from the mean :math:`n` of
the *other* shown values around it both by more than noise and by more than a point source makes it differ,

.. math:: |y - n| > 4 s \quad\text{and}\quad |y - n| > 1.5\,\kappa\,|n - b|,

with :math:`b` a wider mean, the highest :math:`|n - b|` among a value and those next to it, and
:math:`\kappa` the largest ratio of the two for the PSF itself. A star's peak passes; behind a sharp PSF
nearly everything does. A wild value is still predicted and scored: this is about what a network sees, not
about what counts (there the likelihood has outliers).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from selfinv.learning.inverse_filters import point_spread
from selfinv.learning.masks import neighbour_fill, smooth, smoothing_radius, smoothing_taps
from selfinv.learning.random import generator_for
from selfinv.solvers.base import Forward

NEAR, WIDE = 1.2, 2.5  # samples, the deviations of the Gaussian means
BEYOND_NOISE = 4.0  # typical deviations
BEYOND_POINTS = 1.5  # times what a point source shows
REACH = smoothing_radius(WIDE) + 1


@dataclass(frozen=True)
class OutlierTest:
    r"""The test for one instrument and its noise.

    Parameters
    ----------
    sharpness
        :math:`\kappa`, of the PSF.
    deviation
        :math:`s`, the typical difference between a value and the mean of those around it.
    """

    sharpness: float
    deviation: float = 0.0

    @classmethod
    def of(cls, operator: Forward, y: Tensor, missing: Tensor) -> OutlierTest | None:
        """For data ``batch channel *space`` and what blurred them; None if no PSF is known."""
        psf = point_spread(operator)
        if psf is None:
            return None
        ndim = y.ndim - 2
        kernel = psf.detach().float().cpu().reshape(-1, 1, *psf.shape[psf.ndim - ndim :])
        point = F.pad(kernel, [2 * REACH] * (2 * ndim))
        _, difference, light = _beside_others(point)
        counts = difference.abs() > 0.1 * difference.abs().max()
        sharpness = float((difference.abs() / light.clamp_min(1e-9 * float(point.abs().max())))[counts].max())
        shown = neighbour_fill(y, missing, generator_for(0)) if missing.any() else y
        _, difference, _ = _beside_others(shown)
        return cls(sharpness, 1.4826 * float(difference[~missing].abs().median()))

    def replaced(self, filled: Tensor, hidden: Tensor) -> Tensor:
        """The measurement with wild values replaced by the mean of those around them.

        Parameters
        ----------
        filled
            ``batch channel *space``, with something made of the others in place of ``hidden`` values: then
            nothing of these gets in here.
        """
        mean, difference, light = _beside_others(filled)
        limit = (BEYOND_POINTS * self.sharpness * light).clamp_min(BEYOND_NOISE * self.deviation)
        return torch.where((difference.abs() > limit) & ~hidden, mean, filled)


def _beside_others(y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The mean of the others around a value, the value less that, and how far such means stand out nearby."""
    own = smoothing_taps(NEAR)[smoothing_radius(NEAR)] ** (y.ndim - 2)
    near, wide = _inside(y, NEAR), _inside(y, WIDE)
    mean = (smooth(y, NEAR) - own * y) / (near - own)
    light = (mean - smooth(y, WIDE) / wide).abs()
    for axis in range(2, y.ndim):
        here, n = light.clone(), y.shape[axis] - 1
        for start, other in ((1, 0), (0, 1)):
            place = light.narrow(axis, start, n)
            torch.maximum(place, here.narrow(axis, other, n), out=place)
    return mean, y - mean, light


def _inside(y: Tensor, sigma: float) -> Tensor:
    """How much of the Gaussian around each place is inside the image."""
    weight = y.new_ones(())
    for axis in range(2, y.ndim):
        line = smooth(y.new_ones(1, 1, y.shape[axis]), sigma).reshape(-1, *(1,) * (y.ndim - 1 - axis))
        weight = weight * line
    return weight
