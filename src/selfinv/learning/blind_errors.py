r"""The spectrum of an answer's error, as predictions tell it that are blind to the noise.

Behind a blur, measured values show the errors that the blur passes, and an update by them supposes what those
are like that it suppresses. What is left over of blind predictions has the spectrum

.. math::
    |H(f)|^2 C(f) + \sigma^2, \qquad C(f) = \frac{1}{1 / v(f) + 1 / S_x(f)}, \qquad S_x(f) = c\,f^{-\gamma}:

an answer cannot be more wrong than the object has power :math:`S_x`, that of the object that makes the
measurement the likeliest (`selfinv.solvers.wiener`). Of :math:`v` it is known that it changes slowly: its
logarithm is a random walk over that of the frequency. The likeliest one (Whittle 1953,
doi:10.1007/BF02590998) follows what is left over where the blur lets the error through, and goes on evenly
where it does not.

An update takes errors to be large in some places and small in others. Where they are in a few only, as of
stars, it could not change what is measured of them without long waves. Of these the values tell all the same,
so where :math:`C` rises with the frequency it is taken to be more: half way, by logarithms, to not rising.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from selfinv.learning.error_spectrum import ErrorSpectrum
from selfinv.learning.forward_model import ForwardModel
from selfinv.learning.normalisation import of_channels
from selfinv.operators import LinearOperator
from selfinv.solvers.modes import Modes, power_transfer, wraps
from selfinv.solvers.wiener import fill_holes, likeliest_spectrum
from selfinv.spectrum import taper

Floats = npt.NDArray[np.float64]

LONGEST, PER_OCTAVE = 32.0, 4  # samples, of the longest waves that are told apart; and rings
FEWEST = 4  # modes in a ring
HIGHEST = 0.25  # cycles per sample: one of two values is hidden at a time, and in what differs between these
ALONE = 0.35  # cycles per sample: beyond, there is no less than the noise
CHANGE = 0.7  # a deviation: of log v, from ring to ring
LEAST = 4e-3  # of the highest power: equations must not differ too much in weight, nor tiles reach too far
FAINT = 0.1  # of the noise: of an object that is less, behind the blur, no error is seen
UNSURE = 0.03  # of the noise's variance
TAPER = 0.5  # of the measurement, both ends of an axis together
ALIKE = 1.6  # modes that the taper makes one
SURELY = 4.0  # deviations
ROUNDS, CLOSE = 30, 1e-3


@torch.no_grad()
def spectra_of_errors(
    y: Tensor,
    blind: Tensor,
    missing: Tensor,
    forward: ForwardModel,
    noise: Tensor,
    excess: tuple[float, ...],
) -> list[tuple[ErrorSpectrum, tuple[float, ...]]]:
    """The likeliest, where it can be told, and the one with the same :math:`v` at all frequencies.

    And with each the mean square, by channel, of what is measured of errors whose highest power is 1, before
    long waves are raised. Nothing if the operator does not treat all places alike.

    Parameters
    ----------
    y, blind, missing
        The measurement, what was predicted of it, and where nothing was measured, ``batch channel *space``.
    noise
        Its variance, of that shape.
    excess
        Of each channel, the mean squared error of what is predicted, in parts of the noise's variance.
    """
    operator = forward.operator
    there = (~missing).flatten(2).any(-1).all(1)  # of frames
    if not isinstance(operator, LinearOperator) or not bool(there.any()):
        return []
    y, blind, missing, noise = (values[there] for values in (y, blind, missing, noise))
    passed = power_transfer(operator, Modes(tuple(y.shape[2:]), True, y))
    if passed is None:
        return []
    frequency, leftovers = _leftovers(y, blind, missing, noise, forward.scale**2 * passed)
    if len(frequency) < 2:
        return []
    objects = _power_of_object(y, (~missing).to(y), operator)
    likeliest, white = [], []
    for left, (exponent, level), part in zip(leftovers, objects, excess, strict=True):
        even = max(part * left.told / max(float(np.average(left.passed, weights=left.count)), 1e-30), 1e-30)
        limit = level * left.told / forward.scale**2 * frequency**-exponent
        found = left.likeliest(even, limit, frequency < HIGHEST)
        likeliest += [] if found is None else [held(found, limit)]
        white.append(held(np.full(len(limit), even), limit))
    spectra = []
    for powers in (likeliest, white) if len(likeliest) == len(white) else (white,):
        told = _spectrum(frequency, powers)
        raised = [np.sqrt(p * np.maximum.accumulate(p[::-1])[::-1]) for p in powers]
        spectra.append((_spectrum(frequency, raised), forward.power(y.shape[1], told.root)))
    return spectra


def held(even: Floats, limit: Floats) -> Floats:
    r""":math:`C` of :math:`v` and :math:`S_x`."""
    return even * limit / (even + limit)


def _spectrum(frequency: Floats, powers: list[Floats]) -> ErrorSpectrum:
    parts = (np.log((power / power.max()).clip(LEAST)) for power in powers)
    return ErrorSpectrum(tuple(frequency.tolist()), tuple(tuple(part.tolist()) for part in parts))


def _power_of_object(y: Tensor, seen: Tensor, operator: LinearOperator) -> list[tuple[float, float]]:
    r""":math:`\gamma` and :math:`c` of each channel, :math:`c` in parts of the noise's variance.

    By the fullest frame.
    """
    fullest = int(seen.flatten(1).sum(1).argmax())
    seen = seen[fullest : fullest + 1]
    values = y[fullest : fullest + 1] * seen
    mean = values.flatten(2).sum(-1) / seen.flatten(2).sum(-1)
    values = fill_holes((values - of_channels(mean[0].tolist(), y)) * seen, seen)
    modes = Modes(operator.in_shape, wraps(operator), y)
    exponent, ratio = likeliest_spectrum(operator, modes, values, seen.flatten(2).mean(-1))
    return [(g, 1.0 / max(r, 1e-30)) for g, r in zip(exponent[0].tolist(), ratio[0].tolist(), strict=True)]


def _leftovers(
    y: Tensor, blind: Tensor, missing: Tensor, noise: Tensor, passed: Tensor
) -> tuple[Floats, list[Leftover]]:
    """The rings' frequencies, and what is left over of each channel; on the CPU, in double precision."""
    residual, variance = (t.double().cpu() for t in (y - blind, noise))
    seen, space = (~missing).double().cpu(), tuple(range(2, y.ndim))
    waves = Modes(tuple(y.shape[2:]), True, seen)
    window = torch.from_numpy(taper(waves.shape, TAPER))
    kept = window.square() * seen
    power = waves.analyse(residual * window * seen).abs().square() / kept.mean(space, keepdim=True)
    told = (variance * kept).sum((0, *space)) / kept.sum((0, *space))
    twice = waves.twice.expand(waves.frequency.shape)
    beyond = waves.frequency > ALONE
    ring, frequency = _rings(waves)
    inside = ring >= 0

    def modes(values: Tensor) -> Floats:
        return np.asarray(values.flatten().double().cpu().numpy()[inside])

    return frequency, [
        Leftover(
            ring[inside],
            len(frequency),
            0.5 * len(y) / ALIKE * modes(twice),
            modes(passes),
            modes(of_channel),
            float(sigma),
            min(float(sigma), float((of_channel * twice)[beyond].sum() / twice[beyond].sum())),
        )
        for of_channel, passes, sigma in zip(
            power.mean(0), passed.expand(y.shape[1], *twice.shape), told, strict=True
        )
    ]


def _rings(waves: Modes) -> tuple[npt.NDArray[np.int64], Floats]:
    """Of each mode its ring, none of which is empty, and the rings' frequencies; the mean is in none (-1)."""
    frequency = waves.frequency.flatten().double().cpu().numpy()
    with np.errstate(divide="ignore"):
        place = np.floor(PER_OCTAVE * np.log2(frequency * LONGEST)).clip(-1.0)
    counted = waves.twice.expand(waves.frequency.shape).flatten().double().cpu().numpy() * (frequency > 0.0)
    rings = (place + 1.0).astype(np.int64)
    enough = np.bincount(rings, counted) >= FEWEST
    index = np.where((frequency > 0.0) & enough[rings], (np.cumsum(enough) - 1)[rings], -1)
    there = index >= 0
    sums, logs = (
        np.bincount(index[there], values[there])
        for values in (counted, counted * np.log(frequency.clip(1e-9)))
    )
    return index, np.exp(logs / sums)


@dataclass(frozen=True)
class Leftover:
    r"""What is left over of one channel's predictions, in rings (shells) of frequencies.

    Parameters
    ----------
    ring, rings
        Of each mode, and how many there are.
    count
        Of each mode, how many independent complex ones it is.
    passed, power
        Of each mode, :math:`|H|^2`, and what is left over.
    told
        :math:`\sigma^2`.
    noise
        The same, or what is left over at the highest frequencies if that is less.
    """

    ring: npt.NDArray[np.int64]
    rings: int
    count: Floats
    passed: Floats
    power: Floats
    told: float
    noise: float

    def likeliest(self, start: float, limit: Floats, asked: npt.NDArray[np.bool_]) -> Floats | None:
        r""":math:`v` in each ring, by Fisher scoring from the same in all; ``limit`` is :math:`S_x` there.

        By the rings ``asked`` at most. None where less is left over than there is noise: the network has
        learned some of it by heart.
        """

        def total(values: Floats) -> Floats:
            return np.asarray(np.bincount(self.ring, values, self.rings), dtype=np.float64)

        counts = total(self.count)
        seen = asked & (total(self.count * self.passed) / counts * limit > FAINT * self.noise)
        least = (1.0 - UNSURE - SURELY / np.sqrt(counts)) * self.noise
        if (total(self.count * self.power) / counts < least)[seen].any():
            return None
        steps = np.diff(np.eye(self.rings), axis=0) / CHANGE
        stiffness = steps.T @ steps
        log_even = np.full(self.rings, math.log(start))
        for _ in range(ROUNDS):
            error = held(np.exp(log_even), limit)
            expected = self.passed * error[self.ring] + self.noise
            weight = self.count * self.passed / expected**2
            slope, curve = total(weight * (self.power - expected)), total(weight * self.passed)
            unsure = 1.0 + (UNSURE * self.noise * total(weight)) ** 2 / curve.clip(1e-300)
            by_log = np.where(seen, error * (1.0 - error / limit), 0.0)
            hessian = np.diag(curve / unsure * by_log**2) + stiffness + 1e-9 * np.eye(self.rings)
            step = np.linalg.solve(hessian, slope / unsure * by_log - stiffness @ log_even).clip(-1.0, 1.0)
            log_even += step
            if np.abs(step).max() < CLOSE:
                break
        return np.exp(log_even)
