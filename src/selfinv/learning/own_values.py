r"""What measured values themselves say of an object, beyond a network's answer.

A network that learns from hidden values makes little use of a value itself, of which no neighbour tells all.
Given its answer :math:`x` with an error of the covariance :math:`C`, and noise of the covariance
:math:`\Sigma`, the best linear estimate is (Kalman 1960, doi:10.1115/1.3662552)

.. math:: x + C A^\top (A C A^\top + \Sigma)^{-1} (y - Ax).

Where nothing is blurred that is :math:`x + k\,(y - x)` with :math:`k = v / (v + \sigma^2)`, for a prediction
:math:`p` blind to :math:`y`, off by :math:`v` in the mean square (as Laine et al. 2019, arXiv:1901.10277,
combine them). The mean square of :math:`y - p` is :math:`v + \sigma^2`, of which the noise is told by itself
(`selfinv.learning.noise_line`): where an image has fine texture everywhere it is told too large, and less use
is made of the values, which is the safe side.

The answer is better than a blind prediction, and not blind: it responds to a value itself. If it takes the
part :math:`h` of that on the mean, the best is :math:`k = 1 - (1 - h)\,\sigma^2 / \langle (y - x)^2\rangle`,
by Stein's identity (Stein 1981, doi:10.1214/aos/1176345632), with :math:`h` from what a small random change
of all values does (Ramani et al. 2008, doi:10.1109/TIP.2008.2001404). That needs the noise as it is; where it
is told too large, blind predictions, which are off by more, are the better guide.

Spots on a background are not alike: those values that stand out of noise and neighbours so far that it is no
chance are left out of local means, and :math:`v` is for them their own :math:`(y - p)^2 - \sigma^2`.
Where residuals in parts of their deviation, :math:`z = (y - p) / s`, :math:`s^2 = v + \sigma^2`, still have
tails as normal ones have not (a sky with stars in it), the best estimate is no longer linear but

.. math:: y + \frac{\sigma^2}{s}\,\frac{d}{dz} \log f(z)

with the density :math:`f` that they have (Tweedie's formula: Efron 2011, doi:10.1198/jasa.2011.tm11181): what
is small goes, and what is large stays.

Behind an operator that only adds up light, errors have at each place of the object a variance :math:`d` in
proportion to the mean of :math:`v` over the values that see it, and a spectrum
(`selfinv.learning.blind_errors`; white where that is not known): :math:`C = d^{1/2} S d^{1/2}`, on a scale
that gives :math:`A C A^\top` the mean of :math:`v`. The brighter a place is among its neighbours in the
network's answer, the more of the error is its own: a star that came out too faint is wrong in itself, and not
in the dark beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from selfinv.learning.capacity import spectra
from selfinv.learning.error_spectrum import ErrorSpectrum
from selfinv.learning.forward_model import DARK, ForwardModel
from selfinv.learning.log_density import LogDensity
from selfinv.learning.noise_line import (
    CLEAR,
    ENOUGH_PLACES,
    OUT,
    TOGETHER,
    Limits,
    NoiseLine,
    is_even,
    local_mean,
    of_finest_detail,
    of_residuals,
    standing_out,
    surplus,
    variance_of,
)
from selfinv.learning.normalisation import of_channels
from selfinv.solvers.channelwise import linear_conjugate_gradients, unchanged

WILD, PLAIN, FEW = 4.0, 0.25, 2e-4  # deviations, in this part of an image, and how many are chance
# Of conjugate gradients: at most; and what of the residual, squared, is enough, by itself and where its modes
# are weighed by how much each matters.
STEPS, ENOUGH, ENOUGH_WEIGHED = 200, 1e-9, 1e-7
LESS = 2.0 * math.sqrt(2.0 / TOGETHER)  # than the noise, of local means of squares by chance
CLEARLY = 2.0  # standard errors
GAPS = 0.15  # of the values: with 30 % missing, 4 % of the places of an image have all their neighbours
DIM = 0.1  # of the mean number of photons
CLEARLY_OFF = 1.0  # times the noise of counted photons, beyond it: no chance
FURTHER = 3.0  # times as far, where the others are not spread as noise is
SKEWED = 4.0  # photons, or what else makes noise as skewed
EVEN, DARKEST = 0.25, 0.01  # of the brightness around, of the range: what errors are shared out by besides
SOFT = 0.02  # of the range: what is so far below the darkest there is, is held at that
HEAVY = 4.5  # fourth power of residuals over their variance, squared; normal ones have 3
LEAST_NOISE = 0.01  # of the mean variance: equations must not differ too much in weight


@dataclass(frozen=True)
class OwnValues:
    """The noise, and how far what was predicted is off, in the network's units; of each channel.

    Parameters
    ----------
    noise
        Its variance over the intensity.
    excess
        The mean squared error of what was predicted, in parts of the noise's variance.
    share
        How much of a local mean's difference from that is no chance.
    power
        The mean square of what is measured of an object with errors of the local variance 1.
    errors
        How these fall with the frequency; None: they are white.
    low, high
        Where noise is cut off, of all channels, if it is: within three deviations nothing can be told.
    response
        By how much the network's answer changes where a value does, on the mean: it is the answer whose error
        is told. None: that of blind predictions is.
    darkest
        Behind an operator no update goes below this, or where the answer is lower, below that: it would be
        ringing beside what is bright.
    uneven
        Whether the noise may be larger in some places than the line says (`surplus`).
    sparse
        Whether values that stand out of the noise, and of all around, are weighed by themselves.
    tails
        The density of residuals in parts of their deviation; None: that of normal ones.
    """

    noise: tuple[NoiseLine, ...]
    excess: tuple[float, ...] = (0.0,)
    share: tuple[float, ...] = (0.0,)
    power: tuple[float, ...] = (1.0,)
    errors: ErrorSpectrum | None = None
    low: float | None = None
    high: float | None = None
    response: tuple[float, ...] | None = None
    darkest: float | None = None
    uneven: bool = False
    sparse: bool = False
    tails: LogDensity | None = None

    @classmethod
    @torch.no_grad()
    def of(
        cls,
        y: Tensor,
        predicted: Tensor,
        missing: Tensor,
        noise: tuple[NoiseLine, ...],
        *,
        limits: Limits = (None, None),
        response: tuple[float, ...] | None = None,
        uneven: bool = False,
        sparse: bool = False,
    ) -> OwnValues:
        """From measured values and what was predicted of them, ``batch channel *space``.

        Parameters
        ----------
        predicted
            Blind, or with a ``response`` the network's answer.
        limits
            Where noise is cut off.
        uneven, sparse
            See there.
        """
        low, high = limits
        level = local_mean(predicted, missing)
        lines = tuple(
            line.floored(LEAST_NOISE, here[seen]) if seen.any() else line
            for line, here, seen in zip(noise, level.unbind(1), (~missing).unbind(1), strict=True)
        )
        found = cls(lines, low=low, high=high, response=response, uneven=uneven, sparse=sparse)
        off, local, variance, others = found._parts(y, predicted, missing, level)
        told = others & ~found._cut(level) & ~found._dark(variance)
        squares = off.square()
        # Darkness may have less noise than the line has at least: how much less says nothing of errors.
        beyond = (local / variance - 1.0).double().clamp_min(-LESS)
        scatter = (local_mean(squares.square(), ~others) - local.square()) / variance.square()
        each = [
            _excess_and_share(b[there], s[there])
            for b, s, there in zip(beyond.unbind(1), scatter.unbind(1), told.unbind(1), strict=True)
        ]
        excess, share = zip(*each, strict=True)
        return replace(found, excess=excess, share=share)

    def in_units(self, level: float, span: float) -> OwnValues:
        """The same noise where ``level`` is taken off, and the rest divided by ``span``.

        A network makes as large errors in the one units as in the other.
        """
        low, high = (None if limit is None else (limit - level) / span for limit in (self.low, self.high))
        noise = tuple(line.in_units(level, span) for line in self.noise)
        excess = tuple(part * span**2 for part in self.excess)
        return replace(self, noise=noise, excess=excess, low=low, high=high)

    def _parts(
        self, y: Tensor, predicted: Tensor, missing: Tensor, level: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """How far values are off; of those that do not stand out local mean squares, what noise leaves of it,
        and which they are.
        """
        off, others = y - predicted, ~missing
        if self.sparse:
            others = others & ~self._sure(off, level, missing)
        # Where next to nothing was counted there is next to no noise, whatever was predicted.
        level = torch.where(self._exact(y), local_mean(y, missing), level)
        noise = self._left_by_noise(y, level, ~others)
        return off, local_mean(off.square(), ~others), noise, others

    def _sure(self, off: Tensor, level: Tensor, missing: Tensor) -> Tensor:
        """Which values stand out of those around so far that it is no chance."""
        out = standing_out(off, missing)
        square, cube = (local_mean(off**power, missing | out) for power in (2, 3))
        deviation = torch.maximum(square, variance_of(self.noise, level)).sqrt()
        photon = of_channels([line.slope for line in self.noise], off)
        skewed = torch.maximum(cube.abs() / square.clamp_min(1e-30), photon)
        limit = OUT * deviation + SKEWED * skewed
        told = self._exact(off) | is_even(off, missing | out, square)
        return out & (off.abs() > torch.where(told, limit, FURTHER * limit))

    def _exact(self, like: Tensor) -> Tensor:
        return of_channels([float(line.exact) for line in self.noise], like) > 0.0

    def _left_by_noise(self, y: Tensor, level: Tensor, missing: Tensor) -> Tensor:
        """The mean square by which a prediction without error differs from what is measured."""
        variance = variance_of(self.noise, level)
        if self.uneven:
            variance = variance * surplus(y, missing, variance)
        return variance if self.response is None else variance * (1.0 - of_channels(self.response, level))

    def _dark(self, variance: Tensor) -> Tensor:
        """Where next to no photons are, so that any error is large beside their noise."""
        mean = variance.mean(tuple(range(2, variance.ndim)), keepdim=True)
        return self._exact(variance) & (variance < DIM * mean)

    def _cut(self, level: Tensor) -> Tensor:
        """Where the noise about these intensities is cut off."""
        reach = CLEAR * variance_of(self.noise, level).sqrt()
        cut = torch.zeros_like(level, dtype=torch.bool)
        if self.low is not None:
            cut |= level < self.low + reach
        if self.high is not None:
            cut |= level > self.high - reach
        return cut

    @torch.no_grad()
    def excesses(self, y: Tensor, predicted: Tensor, missing: Tensor) -> tuple[float, ...]:
        """The mean of :math:`v` over that of the noise, of each channel; shapes as in `of`."""
        error, noise = (
            (values * ~missing).transpose(0, 1).flatten(1).double().sum(1)
            for values in self._error_and_noise(y, predicted, missing)
        )
        return tuple((error / noise.clamp_min(1e-300)).tolist())

    @torch.no_grad()
    def weights(self, y: Tensor, predicted: Tensor, missing: Tensor) -> Tensor:
        """:math:`k` of each value, 0 where it is missing; shapes as in `of`."""
        error, noise = self._error_and_noise(y, predicted, missing)
        return error / (error + noise)

    def _error_and_noise(self, y: Tensor, predicted: Tensor, missing: Tensor) -> tuple[Tensor, Tensor]:
        r""":math:`v`, 0 where a value is missing, and :math:`\sigma^2`, or what of it an answer leaves."""
        level = local_mean(predicted, missing)
        off, local, noise, others = self._parts(y, predicted, missing, level)
        excess, share = (of_channels(numbers, y) for numbers in (self.excess, self.share))
        beyond = local / noise - 1.0
        error = noise * (excess + share * (beyond - excess))
        error = torch.where(self._exact(y) & (beyond > CLEARLY_OFF), noise * beyond, error)
        own = variance_of(self.noise, torch.maximum(y, predicted))
        error = torch.where(others, error, off.square() - own)
        noise = torch.where(others, noise, own)
        return error.clamp_min(0.0).masked_fill(missing | self._cut(level), 0.0), noise

    @torch.no_grad()
    def with_tails(self, y: Tensor, predicted: Tensor, missing: Tensor) -> OwnValues:
        """With the density of residuals, if it is far from a normal one; shapes as in `of`.

        And only if Stein's unbiased estimate of what is then left of the error makes sense, and is lower.
        """
        error, noise = self._error_and_noise(y, predicted, missing)
        there = ~missing & (noise > 0.0)
        off, error, noise = (v[there].double() for v in (y - predicted, error, noise))
        variance = error + noise
        z = off / variance.sqrt()
        if not self.sparse or not float(z.pow(4).mean()) > HEAVY * float(z.square().mean()) ** 2:
            return self
        tails = LogDensity.of(z)
        linear = (noise / variance).square() * (off.square() - 2.0 * variance) + noise
        tailed = noise.square() / variance * (tails.slope(z).square() + 2.0 * tails.bend(z)) + noise
        return replace(self, tails=tails) if abs(float(tailed.mean())) < float(linear.mean()) else self

    @torch.no_grad()
    def update(
        self, x: Tensor, y: Tensor, blind: Tensor, missing: Tensor, forward: ForwardModel | None
    ) -> Tensor:
        """Kalman's update of the network's answer ``x``, an object, by the measured values ``y``.

        ``forward`` is what measured them; None: nothing is blurred.
        """
        if forward is None:
            predicted = blind if self.response is None else x
            if self.tails is not None:
                return self._by_tails(self.tails, x, y, predicted, missing)
            return torch.lerp(x, y, self.weights(y, predicted, missing))
        frames = (slice(k, k + 1) for k in range(len(y)))  # one by one: less memory
        return torch.cat([self._update(x[f], y[f], blind[f], missing[f], forward) for f in frames])

    def _by_tails(
        self, tails: LogDensity, x: Tensor, y: Tensor, predicted: Tensor, missing: Tensor
    ) -> Tensor:
        error, noise = self._error_and_noise(y, predicted, missing)
        off, deviation = y - predicted, (error + noise).sqrt().clamp_min(1e-30)
        kept = off + noise / deviation * tails.slope(off / deviation)
        # No less than nothing, nor more than all, of what it is off.
        kept = torch.maximum(torch.minimum(kept, off.clamp_min(0.0)), off.clamp_max(0.0))
        return torch.where(missing | self._cut(local_mean(predicted, missing)), x, predicted + kept)

    def _update(self, x: Tensor, y: Tensor, blind: Tensor, missing: Tensor, forward: ForwardModel) -> Tensor:
        error, noise = self._error_and_noise(y, blind, missing)
        near = forward.near(x)
        seen, space = (~missing).to(y.dtype), tuple(range(2, x.ndim))
        least = DARK * near.adjoint(torch.ones_like(y)).amax(space, keepdim=True)
        error = error / near.sensitivity(x).square()
        local = near.adjoint(error) / torch.maximum(near.adjoint(seen), least)
        deviation = (_by_brightness(local.clamp_min(0.0), x) / of_channels(self.power, x)).sqrt()
        whiten = seen / noise.sqrt()

        correlate: Callable[[Tensor], Tensor] = unchanged
        weigh: Callable[[Tensor], Tensor] = unchanged
        enough = ENOUGH
        if self.errors is not None:
            error, precision = (v.square().mean(space, keepdim=True) for v in (deviation, whiten))
            correlate, weigh = self.errors.covariance(x), self.errors.likely_inverse(near, error * precision)
            enough = ENOUGH_WEIGHED

        def updated(x: Tensor, deviation: Tensor) -> Tensor:
            def correct(z: Tensor) -> Tensor:
                return deviation * correlate(deviation * near.adjoint(whiten * z))

            def system(z: Tensor) -> Tensor:
                return z + whiten * near.respond(correct(z))

            z = linear_conjugate_gradients(system, whiten * (y - forward(x)), STEPS, enough, weigh)
            return x + correct(z)

        best = updated(x, deviation)
        if self.darkest is None:
            return best
        darkest = x.clamp_max(self.darkest)
        free = (1.0 + (best - darkest) / SOFT).clamp(0.0, 1.0)  # no step, at which tiles could disagree
        if bool((best < darkest).any()):  # others take up what is left: light is neither made nor lost
            best = updated(torch.lerp(darkest, x, free), deviation * free.sqrt())
        return torch.maximum(best, darkest)


def _excess_and_share(beyond: Tensor, scatter: Tensor) -> tuple[float, float]:
    """Of local means of squares, over the noise and less 1, that scatter by chance."""
    if not beyond.numel():
        return 0.0, 0.0
    chance = float(scatter.double().mean()) / TOGETHER
    spread = max(0.0, float(beyond.var(correction=0)) - chance)
    excess, error = float(beyond.mean()), math.sqrt(max(0.0, TOGETHER * chance) / beyond.numel())
    return excess if excess > CLEARLY * error else 0.0, spread / max(spread + chance, 1e-30)


def _by_brightness(variance: Tensor, x: Tensor) -> Tensor:
    """Variances of an object's errors, shared out anew among neighbours by how bright they are."""
    bright = x.clamp_min(0.0)
    around = local_mean(bright, torch.zeros_like(bright, dtype=torch.bool))
    return variance * (bright + EVEN * around + DARKEST) / ((1.0 + EVEN) * around + DARKEST)


@torch.no_grad()
def has_wild_values(y: Tensor, blind: Tensor, missing: Tensor) -> bool:
    """Whether some values are wild even where the others are predicted best; shapes as in `OwnValues.of`.

    Fine detail is not: it comes in places where many values are predicted badly.
    """
    error = (y - blind).abs()
    typical = math.sqrt(math.pi / 2.0) * local_mean(error, missing)
    usual = float(np.quantile(typical[~missing].double().cpu().numpy(), PLAIN))
    plain = ~missing & (typical <= usual)
    return float((error > WILD * usual)[plain].double().mean()) > FEW


@torch.no_grad()
def find_noise(
    y: Tensor,
    blind: Tensor,
    missing: Tensor,
    untrained: Tensor | None = None,
    limits: Limits = (None, None),
    *,
    sparse: bool = False,
) -> tuple[NoiseLine, ...] | None:
    """Each channel's noise, from measured values and their blind predictions, ``batch channel *space``.

    None where these say nothing of that of a channel. ``untrained``: True where a value was never trained on.
    ``sparse`` as in `of_residuals`.
    """
    lines = []
    for c in range(y.shape[1]):
        one = slice(c, c + 1)
        if missing[:, one].all():
            lines.append(NoiseLine(0.0, 0.0))
            continue
        new = None if untrained is None else untrained[:, one]
        line = _of_channel(y[:, one], blind[:, one], missing[:, one], new, limits, sparse)
        if line is None:
            return None
        lines.append(line)
    return tuple(lines)


def _of_channel(
    y: Tensor, blind: Tensor, missing: Tensor, untrained: Tensor | None, limits: Limits, sparse: bool
) -> NoiseLine | None:
    line = of_residuals(y, blind, missing, limits, sparse=sparse)
    if line is None:
        return None
    seen = ~missing
    if untrained is not None:
        line = line.times(_share_of_noise_learned((y - blind).square(), seen, untrained))
    if has_many_gaps(missing):
        return line
    other, level = (
        of_finest_detail(y, blind, missing, limits, sparse=sparse),
        local_mean(blind, missing)[seen],
    )
    if other is not None and other.variance(level).mean() < line.variance(level).mean():
        return other
    return line


def at_most_what_is_there(
    noise: Sequence[NoiseLine], y: Tensor, level: Tensor, missing: Tensor
) -> tuple[NoiseLine, ...]:
    """Each channel's noise, or less: white noise has its mean variance at all frequencies.

    So it is not larger than what there is at the finest, however it differs from place to place. Not asked
    where much is missing, nor of images so small that this is chance, or so large that it is of a part.

    Parameters
    ----------
    y, level, missing
        Measured values, about what they would be without noise, and where there are none, ``batch channel
        *space``.
    """
    if has_many_gaps(missing):
        return tuple(noise)
    lines = []
    for line, here, around, gaps in zip(noise, y.unbind(1), level.unbind(1), missing.unbind(1), strict=True):
        seen = (~gaps).flatten(1).any(1)
        frames = spectra(here[seen][:, None], gaps[seen][:, None])
        if frames and here[0].numel() >= ENOUGH_PLACES and frames[0].part == 1.0:
            there = sum(spectrum.most_noise() for spectrum in frames) / len(frames)
            weight = frames[0].weight(here.shape[1:])  # what is filled in has hardly any noise
            told = line.variance(around[seen]).masked_fill(gaps[seen], 0.0).double().cpu().numpy() * weight
            line = line.times(min(1.0, there / float(told.mean())))
        lines.append(line)
    return tuple(lines)


def has_many_gaps(missing: Tensor) -> bool:
    """Whether so much is missing that there is next to no finest detail, nor a spectrum of it, to go by."""
    return float(missing.double().mean()) > GAPS


def _share_of_noise_learned(squares: Tensor, seen: Tensor, untrained: Tensor) -> float:
    """By what factor noise is larger than residuals of values that were trained on; 1 unless that is sure."""
    known, new = squares[seen & ~untrained], squares[seen & untrained]
    if not known.numel() or new.numel() < 2:
        return 1.0
    least = float(new.mean() - 2.0 * new.std() / math.sqrt(new.numel()))
    return max(1.0, least / max(float(known.mean()), 1e-30))
