r"""The spectrum of an answer's error, as predictions tell it that are blind to the noise.

Behind a blur, measured values show the errors that the blur passes, and an update by them supposes what those
are like that it suppresses. What is left over of blind predictions has the spectrum

.. math::
    |H(f)|^2 C(f) + \sigma^2, \qquad C(f) = \frac{1}{1 / v(f) + 1 / S_x(f)}, \qquad S_x(f) = c\,f^{-\gamma}:

an answer cannot be more wrong than the object has power :math:`S_x`, that of the object that makes the
measurement the likeliest (`selfinv.solvers.wiener`). An operator that is no filter, as of coarser pixels or a
blur that is not the same at all places, mixes frequencies (`selfinv.learning.transfer`). Of :math:`v` it is
known that it changes slowly: its logarithm is a random walk over that of the frequency. The likeliest one
(Whittle 1953, doi:10.1007/BF02590998) follows what is left over where the blur lets the error through, and
goes on evenly where it does not.

An update takes errors to be large in some places and small in others. Where they are in a few only, as of
stars, it could not change what is measured of them without long waves. Of these the values tell all the same,
so where :math:`C` rises with the frequency it is taken to be more: half way, by logarithms, to not rising.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from selfinv.learning.error_spectrum import ErrorSpectrum
from selfinv.learning.forward_model import ForwardModel
from selfinv.learning.normalisation import of_channels
from selfinv.learning.transfer import Transfer
from selfinv.operators import LinearOperator
from selfinv.solvers.wiener import fill_holes, likeliest_power_law
from selfinv.types import Floats

HIGHEST = 0.25  # cycles per sample: one of two values is hidden at a time, and in what differs between these
ALONE = 0.35  # cycles per sample: beyond, there is no less than the noise
CHANGE = 0.7  # a deviation: of log v, from ring to ring
LEAST = 4e-3  # of the highest power: equations must not differ too much in weight, nor tiles reach too far
FAINT = 0.1  # of the noise: of an object that is less, behind the blur, no error is seen
UNSURE = 0.03  # of the noise's variance
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
    long waves are raised. Nothing where a measurement has not as many axes as the object.

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
    if len(operator.in_shape) != len(operator.out_shape):
        return []
    y, blind, missing, noise = (values[there] for values in (y, blind, missing, noise))
    transfer = Transfer.of(forward, y.shape[1], y)
    frequency = transfer.frequency
    if min(len(frequency), len(transfer.measured_frequency)) < 2:
        return []
    leftovers = _leftovers(y, blind, missing, noise, transfer)
    objects = _powers_of_objects(y, ~missing, transfer)
    likeliest, white = [], []
    for left, (exponent, level), part in zip(leftovers, objects, excess, strict=True):
        limit = level * left.told * frequency**-exponent
        on_average = float(np.average(left.gains.sum(1), weights=left.count))
        even = max(part * left.told / max(on_average, 1e-30), 1e-30)
        found = left.likeliest(even, limit)
        likeliest += [] if found is None else [held(found, limit)]
        white.append(held(np.full(len(limit), even), limit))
    spectra = []
    for powers in (likeliest, white) if len(likeliest) == len(white) else (white,):
        told = _spectrum(transfer, powers)
        raised = [np.sqrt(p * np.maximum.accumulate(p[::-1])[::-1]) for p in powers]
        spectra.append((_spectrum(transfer, raised), forward.power(y.shape[1], told.root)))
    return spectra


def held(even: Floats, limit: Floats) -> Floats:
    r""":math:`C` of :math:`v` and :math:`S_x`."""
    return even * limit / (even + limit)


def _spectrum(transfer: Transfer, powers: list[Floats]) -> ErrorSpectrum:
    shares = [(power / power.max()).clip(LEAST) for power in powers]
    seen = [transfer.by_ring(gains @ share) for gains, share in zip(transfer.gains, shares, strict=True)]
    measured = None if transfer.is_filter else ErrorSpectrum.of(transfer.measured_frequency, seen)
    return ErrorSpectrum.of(transfer.frequency, shares, measured)


def _powers_of_objects(y: Tensor, seen: Tensor, transfer: Transfer) -> list[tuple[float, float]]:
    r""":math:`\gamma` and :math:`c` of each channel, :math:`c` in parts of the noise's variance.

    By the fullest frame.
    """
    fullest = int(seen.flatten(1).sum(1).argmax())
    measured = seen[fullest : fullest + 1].to(y)
    values = y[fullest : fullest + 1] * measured
    mean = values.flatten(2).sum(-1) / measured.flatten(2).sum(-1)
    values = fill_holes((values - of_channels(mean[0].tolist(), y)) * measured, measured)
    spectra = transfer.by_ring(transfer.power_of(values[0]))
    found = []
    for spectrum, share, gains in zip(spectra, measured[0].flatten(1).mean(1), transfer.gains, strict=True):

        def signal(exponent: float, gains: sparse.csr_array = gains) -> Tensor:
            return torch.from_numpy(transfer.by_ring(gains @ transfer.frequency**-exponent))

        power = torch.from_numpy(spectrum)
        noise = torch.full_like(power, float(share))
        exponent, ratio = likeliest_power_law(power, signal, noise, torch.from_numpy(transfer.modes))
        found.append((float(exponent), 1.0 / max(float(ratio), 1e-30)))
    return found


def _leftovers(
    y: Tensor, blind: Tensor, missing: Tensor, noise: Tensor, transfer: Transfer
) -> list[Leftover]:
    """What is left over of each channel; on the CPU, in double precision."""
    residual, variance, seen = (t.double().cpu() for t in (y - blind, noise, ~missing))
    power = np.mean([transfer.power_of(*frame) for frame in zip(residual, seen, strict=True)], axis=0)
    weight = transfer.window(seen).square() * seen
    told = (variance * weight).transpose(0, 1).flatten(1).sum(1) / weight.transpose(0, 1).flatten(1).sum(1)
    count = 0.5 * len(y) / ALIKE * transfer.count
    beyond = transfer.measured_frequency > ALONE
    found = []
    for of_channel, sigma, gains in zip(power, told.tolist(), transfer.gains, strict=True):
        rings = transfer.by_ring(of_channel)[beyond]
        alone = float(np.average(rings, weights=transfer.modes[beyond])) if len(rings) else math.inf
        found.append(Leftover(transfer, gains, count, of_channel, sigma, min(sigma, alone)))
    return found


@dataclass(frozen=True)
class Leftover:
    r"""What is left over of one channel's predictions.

    Parameters
    ----------
    transfer
        Its cells are those of the following.
    gains
        Of the channel.
    count
        Of each cell, how many independent complex modes it is.
    power
        What is left over in each.
    told
        :math:`\sigma^2`.
    noise
        The same, or what is left over at the highest frequencies if that is less.
    """

    transfer: Transfer
    gains: sparse.csr_array
    count: Floats
    power: Floats
    told: float
    noise: float

    def likeliest(self, start: float, limit: Floats) -> Floats | None:
        r""":math:`v` in each ring, by Fisher scoring from the same in all; ``limit`` is :math:`S_x` there.

        None where less is left over than there is noise: the network has learned some of it by heart.
        """
        gains, by_ring = self.gains, self.transfer.by_ring
        seen = by_ring(gains @ limit) > FAINT * self.noise
        seen &= self.transfer.measured_frequency < HIGHEST
        counts = self.transfer.modes * self.count.sum() / self.transfer.modes.sum()
        least = (1.0 - UNSURE - SURELY / np.sqrt(counts)) * self.noise
        if (by_ring(self.power) < least)[seen].any():
            return None
        count = np.where(seen[self.transfer.ring], self.count, 0.0)
        steps = np.diff(np.eye(len(limit)), axis=0) / CHANGE
        stiffness = steps.T @ steps
        log_even = np.full(len(limit), math.log(start))
        for _ in range(ROUNDS):
            error = held(np.exp(log_even), limit)
            expected = gains @ error + self.noise
            weight = count / expected**2
            slope = gains.T @ (weight * (self.power - expected))
            curve = (gains.T @ gains.multiply(weight[:, None])).toarray()
            doubt = (UNSURE * self.noise * (gains.T @ weight)) ** 2 / curve.diagonal().clip(1e-300)
            by_log = error * (1.0 - error / limit)
            surely = by_log / np.sqrt(1.0 + doubt)
            hessian = curve * np.outer(surely, surely) + stiffness + 1e-9 * np.eye(len(limit))
            change = slope * by_log / (1.0 + doubt) - stiffness @ log_even
            step = np.linalg.solve(hessian, change).clip(-1.0, 1.0)
            log_even += step
            if np.abs(step).max() < CLOSE:
                break
        return np.exp(log_even)
