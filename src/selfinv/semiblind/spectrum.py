r"""What the spectrum of one noisy, blurred image says of a PSF.

The spectrum of a blurred image with white noise is

.. math:: S(f) = |H_\theta(f)|^2 S_x(f) + \sigma^2, \qquad
          \log S_x(f) = a - \gamma \log f + \tfrac12 \kappa (\log f)^2 + \varepsilon(f),

and the defocus or width :math:`\theta` shows in where :math:`|H_\theta|^2` falls and has its rings, as long
as the object's spectrum :math:`S_x` is smooth. Real objects are no parabolas: the deviations
:math:`\varepsilon` of each ring of frequencies are part of the model; their size :math:`\tau` is fitted too.
The likelihood of the periodogram's rings (Whittle 1953, doi:10.1007/BF02590998, here of the logarithm) is
maximised over :math:`a, \gamma, \kappa, \sigma, \tau`.

Rings do not see a direction. Where the PSF has one (astigmatism, coma), each ring is divided into sectors,
and the object has an amplitude :math:`a` of its own in each, since real objects prefer directions; the rest
of its spectrum is common to all.

In a volume the rings are shells, and the sectors are of the angle to the optical axis. Along one direction
the spectrum is the same power of the frequency whatever the planes' distance, which the amplitudes take up.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy import fft  # of real arrays, in a third of NumPy's time

from selfinv.solvers.wiener import fill_holes
from selfinv.spectrum import taper
from selfinv.types import Floats

UNLIKE = 3.0  # prior deviations: beyond, the object's spectrum is not of the kind assumed

_TAPER = 0.5  # of an image, both ends of an axis together
_CORRELATED = {2: 1.6, 3: 2.0}  # waves that the taper makes into one
_LOWEST = 3  # periods per image
_BLOCK = (64, 160, 160)  # samples, at most: of a larger volume a mean over blocks (Welch 1967)
_EXPONENT, _EXPONENT_SD, _CURVATURE_SD = 2.5, 1.0, 0.2  # of power spectra of scenes, per log of frequency
_DEVIATION, _DEVIATION_SD = math.log(0.2), 0.7  # log τ
_ROUGHEST = 10.0


class Spectrum:
    """The mean power of the planes of an image, ``batch channel y x``, in rings, or sectors of rings; or of
    volumes, ``batch channel z y x``, in sectors of shells.
    """

    def __init__(self, y: Floats, sectors: int = 1) -> None:
        missing = np.isnan(y)
        if missing.any():
            measured = torch.from_numpy((~missing).astype(np.float64))
            y = fill_holes(torch.from_numpy(np.nan_to_num(y)), measured).numpy()
        ndim = y.ndim - 2
        parts = y.reshape(-1, *y.shape[2:]) / (y.std() or 1.0)
        if ndim == 3:
            parts = _blocks(parts)
        self.shape = parts.shape[1:]
        axes = tuple(range(1, ndim + 1))
        window = taper(self.shape, _TAPER)
        means = (parts * window).sum(axes, keepdims=True) / window.sum()
        powers = np.abs(np.fft.fftn((parts - means) * window, axes=axes)) ** 2 / (window**2).sum()
        along = np.meshgrid(*(np.fft.fftfreq(n) for n in self.shape), indexing="ij", sparse=True)
        down, right = along[-2:]
        frequency = np.sqrt(sum(f**2 for f in along))
        side = min(self.shape[-2:])
        ring = np.rint(frequency * side).astype(np.int64)
        if ndim == 2:  # The first sector has the x axis in its middle; opposite directions are one.
            sector = np.rint(np.arctan2(down, right) / np.pi * sectors).astype(np.int64) % sectors
        else:
            to_axis = np.arctan2(np.abs(along[0]), np.hypot(down, right))
            sector = np.minimum((to_axis / (np.pi / 2) * sectors).astype(np.int64), sectors - 1)
        self._part = (ring * sectors + sector).ravel()
        self._count = np.bincount(self._part, minlength=(ring.max() + 1) * sectors)
        every = np.repeat(np.arange(ring.max() + 1) / side, sectors)
        # Of sectors, so wide a ring that each holds as many waves as the lowest whole ring; shells are wider.
        lowest = _LOWEST * (sectors if ndim == 2 else 1)
        self._used = (self._count > 0) & (every * side >= lowest) & (every <= 0.5)
        self.log_frequency = np.log(self.parts(frequency))
        self.log_frequency = self.log_frequency - self.log_frequency.mean()
        self.sector = np.tile(np.arange(sectors), ring.max() + 1)[self._used]
        each = np.stack([self.parts(power) for power in powers])
        self.power = each.mean(0)
        count = self._count[self._used] / 2 / _CORRELATED[ndim]  # a real image's waves are pairs
        # The mean varies as of so many planes of equal power, fewer where some are blank; by chance the means
        # of n waves have a mean square of 1 + 1/n.
        equal = np.maximum(each.sum(0) ** 2 / np.maximum((each**2).sum(0), 1e-300), 1.0)
        self.count = (count + 1) * equal - 1
        # Of the mean of n exponential variables the logarithm has the mean log(mean) - 1/2n, variance 1/n.
        self.log_power = np.log(np.maximum(self.power, 1e-12 * self.power.max())) + 0.5 / self.count

    def parts(self, values: Floats) -> Floats:
        """Means over the rings or sectors in use."""
        sums = np.bincount(self._part, values.ravel(), minlength=len(self._count))
        return np.asarray(sums / np.maximum(self._count, 1))[self._used]

    def transfer(self, kernel: Floats) -> Floats:
        """|H|² of a PSF, of each part."""
        return self.parts(np.abs(fft.fftn(_wrapped(kernel, self.shape))) ** 2)


def _blocks(volumes: Floats) -> Floats:
    """Equal parts of volumes, ``count z y x``, none larger than `_BLOCK`; a few samples may be left out."""
    for axis, most in enumerate(_BLOCK, start=1):
        n = volumes.shape[axis]
        count = -(-n // most)
        kept = np.moveaxis(volumes, axis, 0)[: n // count * count]
        split = kept.reshape(count, n // count, *kept.shape[1:])
        volumes = np.moveaxis(split, 1, axis + 1).reshape(-1, *np.moveaxis(split[0], 0, axis).shape[1:])
    return volumes


def _wrapped(kernel: Floats, shape: tuple[int, ...]) -> Floats:
    """A PSF on a periodic grid of this shape, which may be smaller."""
    for axis, n in enumerate(shape):
        pads = [(0, -size % n if a == axis else 0) for a, size in enumerate(kernel.shape)]
        moved = np.moveaxis(np.pad(kernel, pads), axis, 0)
        kernel = np.moveaxis(moved.reshape(-1, n, *moved.shape[1:]).sum(0), 0, axis)
    return kernel


def misfit(spectrum: Spectrum, transfer: Floats, start: Floats) -> tuple[float, Floats]:
    """The least minus log-likelihood for this |H|², and the nuisance parameters it has there.

    These are the logarithm of the object's spectrum at the middle of the (logarithmic) frequencies, in each
    sector, its exponent's deviation, its curvature, log σ², log τ.
    """
    from scipy.optimize import minimize

    u = spectrum.log_frequency
    sectors = spectrum.sector.max() + 1
    basis = np.column_stack([spectrum.sector[:, None] == np.arange(sectors), u, u**2 / 2])
    response = np.log(np.maximum(transfer, 1e-30)) - _EXPONENT * u
    centre = np.array([0.0] * sectors + [0.0, 0.0, 0.0, _DEVIATION])
    width = np.array([np.inf] * sectors + [_EXPONENT_SD, _CURVATURE_SD, np.inf, _DEVIATION_SD])
    chance = 1 / spectrum.count

    def cost(x: Floats) -> tuple[float, Floats]:
        signal = response + basis @ x[:-2]
        log_model = np.logaddexp(signal, x[-2])
        share = np.exp(signal - log_model)
        deviation = np.exp(2 * x[-1])
        variance = chance + deviation * share**2
        residual = spectrum.log_power - log_model
        prior = (x - centre) / width
        value = 0.5 * float((residual**2 / variance + np.log(variance)).sum() + prior @ prior)
        by_mean = -residual / variance
        by_variance = 0.5 * (1 / variance - (residual / variance) ** 2)
        turn = 2 * deviation * share**2 * (1 - share) * by_variance
        slope = np.empty(len(x))
        slope[:-2] = basis.T @ (by_mean * share + turn)
        slope[-2] = (by_mean * (1 - share) - turn).sum()
        slope[-1] = (2 * deviation * share**2 * by_variance).sum()
        return value, slope + prior / width

    bounds = [(None, None)] * (len(start) - 1) + [(None, _ROUGHEST)]  # a search's first steps go astray
    found = minimize(cost, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 300})
    return float(found.fun), np.asarray(found.x)


def unlike(nuisance: Floats) -> str:
    """What is wrong with the likeliest spectrum of the object; empty if nothing is."""
    off = {
        "exponent": abs(float(nuisance[-4])) / _EXPONENT_SD,
        "curvature": abs(float(nuisance[-3])) / _CURVATURE_SD,
        "roughness": (float(nuisance[-1]) - _DEVIATION) / _DEVIATION_SD,
    }
    what = max(off, key=off.__getitem__)
    if off[what] <= UNLIKE:
        return ""
    return (
        f"the object's spectrum is not of the kind that the fit assumes (its {what} is {off[what]:.1f} "
        f"deviations off): the object itself is soft, or has a scale of its own"
    )


def first_guess(spectrum: Spectrum) -> Floats:
    sectors = spectrum.sector.max() + 1
    tail = max(5, len(spectrum.power) // 10)
    return np.array(
        [
            *[math.log(spectrum.power.mean()) - 2.0] * sectors,
            0.0,
            0.0,
            math.log(float(np.median(spectrum.power[-tail:])) + 1e-300),
            math.log(0.3),
        ]
    )
