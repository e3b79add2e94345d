r"""A value's own measurement, where nothing is blurred.

A network that learns from hidden values makes little use of a value itself, of which no neighbour tells all:
of noise of the variance :math:`\sigma^2` and a prediction :math:`p` blind to :math:`y`, off by :math:`v` in
the mean square, the best linear estimate is :math:`p + k (y - p)` with

.. math:: k = \frac{v}{v + \sigma^2}

(as Laine et al. 2019, arXiv:1901.10277, combine them). Both are told from the blind residuals alone, whose
mean square is :math:`v + \sigma^2`: their local means never fall below the noise's variance, and reach it
where the image is plain. It is a straight line over the intensity (Foi et al. 2008,
doi:10.1109/TIP.2008.2001399), through the lowest of those means. Where an image has fine texture everywhere,
the line comes out too high and less use is made of the values, which is the safe side.

The network's answer :math:`x` to all values is better than :math:`p`, and is what the weight is applied to:
:math:`x + k (y - x)`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import nnls
from torch import Tensor

from selfinv.learning.masks import smooth, smoothing_radius

Floats = npt.NDArray[np.float64]

TOGETHER = 200  # independent values in a local mean
BIN = 6000  # values in each of at most ten bins of intensity
LOWEST = 0.05  # the quantile of local means that is taken for plain
NORMAL_QUANTILE = -1.645  # of LOWEST
ROUNDS = 3


@dataclass(frozen=True)
class OwnValues:
    """The noise, and how far blind predictions are off, in the network's units.

    Parameters
    ----------
    offset, slope
        The noise's variance at 0, and its growth with the intensity.
    excess
        The mean squared error of blind predictions.
    share
        How much of a local mean's difference from that is no chance.
    """

    offset: float
    slope: float
    excess: float
    share: float

    @classmethod
    @torch.no_grad()
    def of(cls, y: Tensor, blind: Tensor, missing: Tensor) -> OwnValues:
        """From measured values and their blind predictions, ``batch channel *space``."""
        seen = ~missing
        local = _local_mean((y - blind).square(), missing)
        level = _local_mean(blind, missing)
        offset, slope = _noise_line(level[seen].double().cpu().numpy(), local[seen].double().cpu().numpy())
        found = cls(offset, slope, 0.0, 0.0)
        beyond = (local - found.variance(level))[seen].double()
        squares = _local_mean((y - blind).square().square(), missing) - local.square()
        chance = float(squares[seen].double().mean()) / TOGETHER
        spread = max(0.0, float(beyond.var(correction=0)) - chance)
        return cls(offset, slope, max(0.0, float(beyond.mean())), spread / max(spread + chance, 1e-30))

    def variance(self, level: Tensor) -> Tensor:
        """The noise's variance where the image has these intensities."""
        return (self.offset + self.slope * level).clamp_min(1e-12)

    @torch.no_grad()
    def weights(self, y: Tensor, blind: Tensor, missing: Tensor) -> Tensor:
        """:math:`k` of each value, 0 where it is missing; shapes as in `of`."""
        noise = self.variance(_local_mean(blind, missing))
        beyond = _local_mean((y - blind).square(), missing) - noise
        error = (self.excess + self.share * (beyond - self.excess)).clamp_min(0.0)
        return (error / (error + noise)).masked_fill(missing, 0.0)

    def combine(self, x: Tensor, y: Tensor, blind: Tensor, missing: Tensor) -> Tensor:
        """The network's answer ``x`` with each value of ``y`` given its weight; shapes as in `of`."""
        return torch.lerp(x, y, self.weights(y, blind, missing))


def smoothing_width(ndim: int) -> float:
    """The Gaussian's deviation, in samples, with which `TOGETHER` values are averaged."""
    return float(TOGETHER ** (1.0 / ndim) / (2.0 * math.sqrt(math.pi)))


def smoothing_reach(ndim: int) -> int:
    """How many samples away a value still counts."""
    return smoothing_radius(smoothing_width(ndim))


def _local_mean(x: Tensor, missing: Tensor) -> Tensor:
    width = smoothing_width(x.ndim - 2)
    weight = smooth((~missing).to(x.dtype), width)
    return smooth(x.masked_fill(missing, 0.0), width) / weight.clamp_min(1e-6)


def _noise_line(level: Floats, local: Floats) -> tuple[float, float]:
    """Offset and slope, neither negative, of the noise's variance over the intensity.

    In each bin of intensities the lowest local means, relative to the line so far, say where the line lies.
    """
    bins = int(np.clip(level.size // BIN, 1, 10))
    edges = np.quantile(level, np.linspace(0.0, 1.0, bins + 1))
    members = np.clip(np.searchsorted(edges, level, side="right") - 1, 0, bins - 1)
    chosen = [places for i in range(bins) if (places := members == i).any()]
    plain = 1.0 + NORMAL_QUANTILE * math.sqrt(2.0 / TOGETHER)  # the quantile of a mean of so many squares
    lowest = min(0.0, float(level.min()))  # a line is not to be negative anywhere
    above = level - lowest
    height, slope = float(local.mean()), 0.0
    for _ in range(ROUNDS):
        line = np.maximum(height + slope * above, 1e-12)
        ratio = local / line
        floors = [np.quantile(ratio[p], LOWEST) / plain * line[p].mean() for p in chosen]
        design = np.stack([np.ones(len(chosen)), [above[p].mean() for p in chosen]], axis=1)
        (height, slope), _ = nnls(design / np.array(floors)[:, None], np.ones(len(chosen)))
    return float(height - slope * lowest), float(slope)
