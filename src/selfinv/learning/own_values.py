r"""What measured values themselves say of an object, beyond a network's answer.

A network that learns from hidden values makes little use of a value itself, of which no neighbour tells all.
Given its answer :math:`x` with an error of the covariance :math:`C`, and noise of the covariance
:math:`\Sigma`, the best linear estimate is (Kalman 1960, doi:10.1115/1.3662552)

.. math:: x + C A^\top (A C A^\top + \Sigma)^{-1} (y - Ax).

Where nothing is blurred that is :math:`x + k\,(y - x)` with :math:`k = v / (v + \sigma^2)`, for a prediction
:math:`p` blind to :math:`y`, off by :math:`v` in the mean square (as Laine et al. 2019, arXiv:1901.10277,
combine them). Both :math:`v` and :math:`\sigma^2` are told from the blind residuals :math:`y - p` alone,
whose mean square is :math:`v + \sigma^2`: their local means never fall below the noise's variance, and reach
it where the image is plain. It is a straight line over the intensity (Foi et al. 2008,
doi:10.1109/TIP.2008.2001399), through the lowest of those means. Where an image has fine texture everywhere,
the line comes out too high and less use is made of the values, which is the safe side; so it is raised if
residuals of values that the network was never trained on are larger than those of others.

Behind an operator that only adds up light, :math:`C` is diagonal: at each place of the object the mean of
:math:`v` over the values that see it, on a scale that gives :math:`A C A^\top` the mean of :math:`v`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import nnls
from torch import Tensor

from selfinv.learning.forward_model import DARK, ForwardModel
from selfinv.learning.masks import smooth, smoothing_radius
from selfinv.solvers.conjugate_gradient import linear_conjugate_gradients

Floats = npt.NDArray[np.float64]

TOGETHER = 200  # independent values in a local mean
BIN = 6000  # values in each of at most ten bins of intensity
LOWEST = 0.05  # the quantile of local means that is taken for plain
NORMAL_QUANTILE = -1.645  # of LOWEST
ROUNDS = 3
LEAST_FLOOR = 0.1  # of the mean one: in a dark background without noise no floor is to outweigh all others
WILD, PLAIN, FEW = 4.0, 0.25, 2e-4  # deviations, in this part of an image, and how many are chance
EVEN, ENOUGH_EVEN = (0.7, 1.3), 0.01  # 1 for Gaussian noise; of the places, to tell the noise by
CLEAR = 3.0  # deviations from where noise is cut off
STEPS, ENOUGH = 100, 1e-9  # of conjugate gradients; of the residual, squared
LEAST_NOISE = 0.01  # of the mean variance: equations must not differ too much in weight


@dataclass(frozen=True)
class OwnValues:
    """The noise, and how far blind predictions are off, in the network's units.

    Parameters
    ----------
    offset, slope
        The noise's variance is a line over the intensity: at 0 (where there may be no light, and no noise
        either, so that it can be negative), and its growth.
    excess
        The mean squared error of blind predictions, in parts of the noise's variance.
    share
        How much of a local mean's difference from that is no chance.
    power
        Of each channel, the mean square of what is measured of a white object of variance 1.
    low, high
        Where noise is cut off, if it is: within three deviations of that nothing can be told.
    least
        The noise's variance where the line is below it.
    """

    offset: float
    slope: float
    excess: float
    share: float
    power: tuple[float, ...] = (1.0,)
    low: float | None = None
    high: float | None = None
    least: float = 1e-12

    @classmethod
    @torch.no_grad()
    def of(
        cls,
        y: Tensor,
        blind: Tensor,
        missing: Tensor,
        untrained: Tensor | None = None,
        limits: tuple[float | None, float | None] = (None, None),
    ) -> OwnValues:
        """From measured values and their blind predictions, ``batch channel *space``.

        Parameters
        ----------
        untrained
            True where a value was never trained on.
        limits
            Where noise is cut off.
        """
        seen = ~missing
        local = _local_mean((y - blind).square(), missing)
        level = _local_mean(blind, missing)
        evenness = _evenness(y - blind, missing)
        even = seen & (evenness > EVEN[0]) & (evenness < EVEN[1])
        for limit in y[seen].aminmax():
            even &= _local_mean((y == limit).to(y.dtype), missing) < 0.5  # no noise where all is at its end
        if float(even.sum()) < ENOUGH_EVEN * float(seen.sum()):
            return cls(float(local[seen].mean()), 0.0, 0.0, 0.0, low=limits[0], high=limits[1])
        offset, slope, least = _noise_line(
            level[even].double().cpu().numpy(), local[even].double().cpu().numpy(), limits
        )
        if untrained is not None:
            learned = _share_of_noise_learned((y - blind).square(), seen, untrained)
            offset, slope, least = learned * offset, learned * slope, learned * least
        least = max(1e-12, least, LEAST_NOISE * (offset + slope * float(level[seen].mean())))
        found = cls(offset, slope, 0.0, 0.0, low=limits[0], high=limits[1], least=least)
        told = seen & ~found._cut(level)
        if not told.any():
            return found
        noise = found.variance(level)
        beyond = (local / noise - 1.0)[told].double()
        squares = (_local_mean((y - blind).square().square(), missing) - local.square()) / noise.square()
        chance = float(squares[told].double().mean()) / TOGETHER
        spread = max(0.0, float(beyond.var(correction=0)) - chance)
        share = spread / max(spread + chance, 1e-30)
        return replace(found, excess=max(0.0, float(beyond.mean())), share=share)

    def variance(self, level: Tensor) -> Tensor:
        """The noise's variance where the image has these intensities."""
        return (self.offset + self.slope * level).clamp_min(self.least)

    def _cut(self, level: Tensor) -> Tensor:
        """Where the noise about these intensities is cut off."""
        reach, cut = CLEAR * self.variance(level).sqrt(), torch.zeros_like(level, dtype=torch.bool)
        if self.low is not None:
            cut |= level < self.low + reach
        if self.high is not None:
            cut |= level > self.high - reach
        return cut

    @torch.no_grad()
    def weights(self, y: Tensor, blind: Tensor, missing: Tensor) -> Tensor:
        """:math:`k` of each value, 0 where it is missing; shapes as in `of`."""
        error, noise = self._error_and_noise(y, blind, missing)
        return error / (error + noise)

    def _error_and_noise(self, y: Tensor, blind: Tensor, missing: Tensor) -> tuple[Tensor, Tensor]:
        r""":math:`v`, 0 where a value is missing, and :math:`\sigma^2`."""
        level = _local_mean(blind, missing)
        noise = self.variance(level)
        beyond = _local_mean((y - blind).square(), missing) / noise - 1.0
        error = noise * (self.excess + self.share * (beyond - self.excess))
        return error.clamp_min(0.0).masked_fill(missing | self._cut(level), 0.0), noise

    @torch.no_grad()
    def update(
        self, x: Tensor, y: Tensor, blind: Tensor, missing: Tensor, forward: ForwardModel | None
    ) -> Tensor:
        """Kalman's update of the network's answer ``x``, an object, by the measured values ``y``.

        ``forward`` is what measured them; None: nothing is blurred.
        """
        if forward is None:
            return torch.lerp(x, y, self.weights(y, blind, missing))
        frames = (slice(k, k + 1) for k in range(len(y)))  # one by one: less memory
        return torch.cat([self._update(x[f], y[f], blind[f], missing[f], forward) for f in frames])

    def _update(self, x: Tensor, y: Tensor, blind: Tensor, missing: Tensor, forward: ForwardModel) -> Tensor:
        error, noise = self._error_and_noise(y, blind, missing)
        seen, space = (~missing).to(y.dtype), tuple(range(2, x.ndim))
        least = DARK * forward.adjoint(torch.ones_like(y)).amax(space, keepdim=True)
        power = y.new_tensor(self.power).reshape(1, -1, *(1,) * (x.ndim - 2))
        covariance = forward.adjoint(error) / torch.maximum(forward.adjoint(seen), least)
        covariance = covariance.clamp_min(0.0) / power
        whiten = seen / noise.sqrt()

        def system(z: Tensor) -> Tensor:
            return z + whiten * forward.respond(covariance * forward.adjoint(whiten * z))

        z = linear_conjugate_gradients(system, whiten * (y - forward(x)), STEPS, ENOUGH)
        return x + covariance * forward.adjoint(whiten * z)


@torch.no_grad()
def has_wild_values(y: Tensor, blind: Tensor, missing: Tensor) -> bool:
    """Whether some values are wild even where the others are predicted best; shapes as in `OwnValues.of`.

    Fine detail is not: it comes in places where many values are predicted badly.
    """
    error = (y - blind).abs()
    typical = math.sqrt(math.pi / 2.0) * _local_mean(error, missing)
    usual = float(np.quantile(typical[~missing].double().cpu().numpy(), PLAIN))
    plain = ~missing & (typical <= usual)
    return float((error > WILD * usual)[plain].double().mean()) > FEW


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


def _evenness(residual: Tensor, missing: Tensor) -> Tensor:
    """Local mean size, squared, over the local mean square: 1 for Gaussian noise, less if few stand out.

    Where photons are rare, or detail is missed here and there, local means say nothing of the noise; nor
    where all differ by the same (1.57), as the network's background from one of exactly 0.
    """
    size = _local_mean(residual.abs(), missing)
    return 0.5 * math.pi * size.square() / _local_mean(residual.square(), missing).clamp_min(1e-30)


def _noise_line(
    level: Floats, local: Floats, limits: tuple[float | None, float | None]
) -> tuple[float, float, float]:
    """The noise's variance over the intensity: offset and slope of a line, and the least that was found.

    It does not fall with the intensity, and is not negative at any that there is; below, where a camera's
    offset may be, it can be. In each bin of intensities the lowest local means, relative to the line so far,
    say where the line lies.
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
    return float(height - slope * lowest), float(slope), float(floors.min())


def _share_of_noise_learned(squares: Tensor, seen: Tensor, untrained: Tensor) -> float:
    """By what factor noise is larger than residuals of values that were trained on; 1 unless that is sure."""
    known, new = squares[seen & ~untrained], squares[seen & untrained]
    if not known.numel() or new.numel() < 2:
        return 1.0
    least = float(new.mean() - 2.0 * new.std() / math.sqrt(new.numel()))
    return max(1.0, least / max(float(known.mean()), 1e-30))
