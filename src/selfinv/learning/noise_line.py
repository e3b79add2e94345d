r"""The noise's variance as a straight line over the intensity, told from one image.

Photon noise and read noise together make such a line (Foi et al. 2008, doi:10.1109/TIP.2008.2001399). Two
things are never smaller than the noise, on the mean, and reach it where an image is plain: the squared
residuals of blind predictions, and the image's finest detail, which second differences along all axes bring
out (Immerkær 1996, doi:10.1006/cviu.1996.0060). Through the lowest local means of either a line is drawn, and
the lower of both lines is nearer to the noise. Where there is fine texture everywhere it is still too high.

Noise may differ from place to place for reasons that intensity does not tell: exposures put together, a flat
field, frames that fade. By how much is asked of the finest detail around each place, where that looks like
white noise (`surplus`).

Neither tells anything of single photons in the dark, which are not spread as noise usually is. There whole
numbers of photons show themselves: their noise is known.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor
from torch.nn import functional

from selfinv.learning.photons import as_counts, mostly_none
from selfinv.learning.smoothing import smooth, smoothing_radius
from selfinv.types import Array, Floats

TOGETHER = 200  # independent values in a local mean
BIN = 500  # values in each of at most ten bins of intensity
LOWEST = 0.05  # the quantile of local means that is taken for plain
NORMAL_QUANTILE = -1.645  # of LOWEST
ROUNDS = 3
LEAST_FLOOR = 0.1  # of the mean one: in a dark background without noise no floor is to outweigh all others
EVEN, ENOUGH_EVEN = (0.7, 1.3), 0.01  # 1 for Gaussian noise; of the places, to tell the noise by
RARE = (0.3, 10.0)  # photons: rare ones, but not so rare that predictions are off by as much
AS_POISSON = (0.7, 1.5)  # mean square of residuals, in parts of the variance
OUT = 5.0  # deviations
ROOT = 2.0**0.25 * math.gamma(0.75) / math.sqrt(math.pi)  # of a normal number's size, on the mean
WIDER = 2.0  # distances over which it is asked where noise is larger than told
WHITE = (0.75, 0.9)  # finest detail over fine detail; of 31 images hardly any has 0.8 anywhere without noise
ENOUGH_PLACES = 1000  # in an image, or chance is larger than that
SURE = (1.3, 1.6)  # times what is told: three deviations of chance and more
CLEAR = 3.0  # deviations from where noise is cut off
# Second differences of noise are alike: of so many times as many along an axis a mean is worth the same.
ALIKE = 1.0 + 2.0 * ((4.0 / 6.0) ** 2 + (1.0 / 6.0) ** 2)

Limits = tuple[float | None, float | None]


@dataclass(frozen=True)
class NoiseLine:
    """The noise's variance over the intensity.

    Parameters
    ----------
    offset, slope
        The variance at 0 (where there may be no light, and no noise either, so that it can be negative), and
        its growth.
    least
        The variance where the line is below it.
    exact
        Whether it follows from how the values are made; others are told by the plainest places there are.
    """

    offset: float
    slope: float
    least: float = 1e-12
    exact: bool = False

    def variance(self, level: Tensor) -> Tensor:
        """Where the image has these intensities."""
        return (self.offset + self.slope * level).clamp_min(self.least)

    def times(self, factor: float) -> NoiseLine:
        return NoiseLine(factor * self.offset, factor * self.slope, factor * self.least, self.exact)

    def in_units(self, level: float, span: float) -> NoiseLine:
        """The same noise where ``level`` is taken off, and the rest divided by ``span``."""
        offset = self.offset + self.slope * level
        return NoiseLine(offset / span**2, self.slope / span, self.least / span**2, self.exact)

    def floored(self, part: float, level: Tensor) -> NoiseLine:
        """At least this part of the variance at the mean of these intensities."""
        return replace(self, least=max(self.least, part * (self.offset + self.slope * float(level.mean()))))


def variance_of(lines: Sequence[NoiseLine], level: Tensor) -> Tensor:
    """The variance where an image, ``batch channel *space``, has these intensities; a line a channel."""
    channels = level.split(1, dim=1)
    return torch.cat([line.variance(here) for line, here in zip(lines, channels, strict=True)], dim=1)


def of_residuals(
    y: Tensor, blind: Tensor, missing: Tensor, limits: Limits = (None, None), *, sparse: bool = False
) -> NoiseLine | None:
    """From measured values and their blind predictions; None where these say nothing of the noise.

    Parameters
    ----------
    y, blind, missing
        ``batch channel *space``.
    limits
        Where noise is cut off.
    sparse
        Whether what stands out of those around it is left out (`standing_out`).
    """
    return _line(y - blind, blind, y, missing, limits, sparse=sparse)


def of_finest_detail(
    y: Tensor, level: Tensor, missing: Tensor, limits: Limits = (None, None), *, sparse: bool = False
) -> NoiseLine | None:
    """From the image itself, whose intensities without noise are about ``level``; as `of_residuals`."""
    axes = long_axes(y)
    if not axes:
        return None
    detail, gaps = _detail(y, missing, axes)
    return _line(detail, level, y, gaps, limits, ALIKE, sparse=sparse)


def surplus(y: Tensor, missing: Tensor, told: Tensor) -> Tensor:
    """By what factor noise is larger at each place than ``told`` by intensity, 1 or more.

    Exposures put together, a flat field, frames that get darker and are scaled: noise may differ from place
    to place for reasons that intensity does not tell. It then shows in the finest detail there. Of white
    noise that is as large along all axes as along all but one; of texture, whose spectrum falls, far smaller.

    Parameters
    ----------
    y, missing, told
        ``batch channel *space``; variances.
    """
    axes = long_axes(y)
    if len(axes) < 2 or math.prod(y.shape[2:]) < ENOUGH_PLACES:
        return torch.ones_like(y)
    finest = _local_square(y, missing, axes)
    fine = torch.stack([_local_square(y, missing, [a for a in axes if a != axis]) for axis in axes]).mean(0)
    white = _rise(finest / fine.clamp_min(1e-30), WHITE)
    times = finest / _local(told, missing).clamp_min(1e-30)
    factor = 1.0 + (times - 1.0) * white * _rise(times, SURE)
    for axis in range(2, y.ndim):
        if y.shape[axis] > 1:
            factor = factor.repeat_interleave(2, axis).narrow(axis, 0, y.shape[axis])
    return factor.clamp_min(1.0)


def _rise(x: Tensor, between: tuple[float, float]) -> Tensor:
    return ((x - between[0]) / (between[1] - between[0])).clamp(0.0, 1.0)


def _local_square(y: Tensor, missing: Tensor, axes: Sequence[int]) -> Tensor:
    detail, gaps = _detail(y, missing, axes)
    return _local(detail.square(), gaps)


def _local(x: Tensor, missing: Tensor) -> Tensor:
    """A mean over more values than `local_mean` takes, at every second place along each axis."""
    pool = functional.avg_pool2d if x.ndim == 4 else functional.avg_pool3d
    block = [min(2, n) for n in x.shape[2:]]
    seen = pool((~missing).to(x.dtype), block, ceil_mode=True)
    mean = pool(x.masked_fill(missing, 0.0), block, ceil_mode=True) / seen.clamp_min(1e-6)
    return local_mean(mean, seen == 0.0, 0.5 * WIDER)


def long_axes(y: Tensor | Array) -> list[int]:
    """Those of ``batch channel *space`` along which there are values with others on both sides."""
    return [axis for axis in range(2, y.ndim) if y.shape[axis] >= 3]


def _detail(y: Tensor, missing: Tensor, axes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Second differences along all of these axes, of noise as large as it is, and where there are none."""
    detail, gaps = y.masked_fill(missing, 0.0), missing
    for axis in axes:
        n = y.shape[axis] - 2
        before, here, after = (detail.narrow(axis, first, n) for first in range(3))
        detail = (before - 2.0 * here + after) / math.sqrt(6.0)
        gaps = gaps.narrow(axis, 0, n) | gaps.narrow(axis, 1, n) | gaps.narrow(axis, 2, n)
    around = [pad for axis in reversed(range(2, y.ndim)) for pad in ((1, 1) if axis in axes else (0, 0))]
    return functional.pad(detail, around), functional.pad(gaps, around, value=True)


def of_counts(y: Tensor, blind: Tensor, missing: Tensor, limits: Limits = (None, None)) -> NoiseLine | None:
    """The noise of values that are numbers of photons, single ones among them; None of others.

    They are whole multiples of something above the lowest. A camera's units are whole numbers, too, but not
    of photons: of these either most are none at all (and no noise is cut off there) and single ones the most
    frequent of the others, or blind predictions of few are off by what Poisson's law says.
    """
    measured, expected = (values[~missing].double().cpu().numpy() for values in (y, blind))
    counted = as_counts(measured)
    if counted is None:
        return None
    counts, photon = counted
    lowest = float(measured.min())
    found = NoiseLine(-lowest * photon, photon, exact=True)
    if limits[0] is None and mostly_none(counts):
        return found
    rate = (expected - lowest) / photon
    rare = (rate >= RARE[0]) & (rate < RARE[1])
    if int(rare.sum()) < TOGETHER:
        return None
    ratio = float(np.square(counts - rate)[rare].sum() / rate[rare].sum())
    return found if AS_POISSON[0] < ratio < AS_POISSON[1] else None


def is_even(noisy: Tensor, missing: Tensor, local: Tensor, wider: float = 1.0) -> Tensor:
    """Where values are as evenly spread as Gaussian noise; ``local``: the mean of their squares."""
    size = local_mean(noisy.abs(), missing, wider)
    evenness = 0.5 * math.pi * size.square() / local.clamp_min(1e-30)
    return (evenness > EVEN[0]) & (evenness < EVEN[1])


def standing_out(noisy: Tensor, missing: Tensor, wider: float = 1.0) -> Tensor:
    """Which values are so much larger than those around that they are no noise of theirs.

    Told by the mean of roots, to which a few are little.
    """
    typical = (local_mean(noisy.abs().sqrt(), missing, wider) / ROOT).square()
    return (noisy.abs() > OUT * typical) & ~missing


def local_mean(x: Tensor, missing: Tensor, wider: float = 1.0) -> Tensor:
    """Over some `TOGETHER` values around each place, those that are ``missing`` left out.

    ``wider``: a factor on the distances.
    """
    width = wider * smoothing_width(x.ndim - 2)
    weight = smooth((~missing).to(x.dtype), width)
    return smooth(x.masked_fill(missing, 0.0), width) / weight.clamp_min(1e-6)


def smoothing_width(ndim: int) -> float:
    """The Gaussian's deviation, in samples, with which `TOGETHER` values are averaged."""
    return float(TOGETHER ** (1.0 / ndim) / (2.0 * math.sqrt(math.pi)))


def smoothing_reach(ndim: int) -> int:
    """How many samples away a value still counts in a local mean."""
    return smoothing_radius(smoothing_width(ndim))


def surplus_reach(ndim: int) -> int:
    """The same for a `surplus`, which is taken in pairs, from second differences."""
    return 2 * smoothing_radius(0.5 * WIDER * smoothing_width(ndim)) + 3


def _line(
    noisy: Tensor,
    level: Tensor,
    y: Tensor,
    missing: Tensor,
    limits: Limits,
    wider: float = 1.0,
    *,
    sparse: bool = False,
) -> NoiseLine | None:
    """Through the lowest local mean squares of ``noisy``; None if it is nowhere as evenly spread as noise."""
    if sparse:
        missing = missing | standing_out(noisy, missing, wider)
    seen = ~missing
    if not seen.any():
        return None
    local, levels = local_mean(noisy.square(), missing, wider), local_mean(level, missing, wider)
    # Where photons are rare, or detail is missed here and there, local means say nothing of the noise; nor
    # where all differ by the same (1.57), as the network's background from one of exactly 0.
    even = seen & is_even(noisy, missing, local, wider)
    for limit in y[seen].aminmax():  # no noise where all is at its end
        even &= local_mean((y == limit).to(y.dtype), missing, wider) < 0.5
    if float(even.sum()) < ENOUGH_EVEN * float(seen.sum()):
        return None
    return _through_lowest(levels[even].double().cpu().numpy(), local[even].double().cpu().numpy(), limits)


def _through_lowest(level: Floats, local: Floats, limits: Limits) -> NoiseLine:
    """The line does not fall with the intensity, and is not negative at any that there is; below, where a
    camera's offset may be, it can be. In each bin of intensities the lowest local means, relative to the line
    so far, say where the line lies.
    """
    low = -math.inf if limits[0] is None else limits[0]
    high = math.inf if limits[1] is None else limits[1]
    count = int(np.clip(level.size // BIN, 1, 10))
    edges = np.quantile(level, np.linspace(0.0, 1.0, count + 1))
    members = np.clip(np.searchsorted(edges, level, side="right") - 1, 0, count - 1)
    chosen = [places for i in range(count) if (places := members == i).any()]
    plain = 1.0 + NORMAL_QUANTILE * math.sqrt(2.0 / TOGETHER)  # the quantile of a mean of so many squares
    lowest = float(level.min())
    above = level - lowest
    height, slope = float(local.mean()), 0.0
    for _ in range(ROUNDS):
        line = np.maximum(height + slope * above, 1e-12)
        reach = CLEAR * np.sqrt(line)
        clear = (level >= low + reach) & (level <= high - reach)
        ratio = local / line
        bins = [p & clear for p in chosen if (p & clear).any()] or chosen
        places = [p & (ratio <= np.quantile(ratio[p], 2 * LOWEST)) for p in bins]  # half of them below it
        floors = np.array([np.median(ratio[p]) / plain * line[p].mean() for p in places])
        design = np.stack([np.ones(len(places)), [above[p].mean() for p in places]], axis=1)
        weight = 1.0 / np.maximum(floors + LEAST_FLOOR * floors.mean(), 1e-12)
        (height, slope), _ = nnls(design * weight[:, None], floors * weight)
    return NoiseLine(float(height - slope * lowest), float(slope), max(1e-12, float(floors.min())))
