"""Autocorrelations of residuals, and what of them is noise: linear models fitted to the lags in a box."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from scipy.fft import irfftn, next_fast_len, rfftn
from scipy.linalg import cholesky, solve_triangular

from selfinv.types import Array

Lag = tuple[int, ...]

LIMIT = 0.05  # weaker correlations change a held-out score by less than it scatters
LEAST_ROUGH = 0.1  # with a smaller share of rough variance a residual is too smooth to be judged
BUMPS = (0.6, 0.42, 0.3, 0.2, 0.14, 0.07, 0.0)  # spectra of structure: widths relative to the pass band
OTHER_SHAPES = 0.03  # correlation from structure of other spectra within the pass band
TILE = 2**21  # values per Fourier transform


@dataclass(frozen=True)
class Autocorrelation:
    """Mean products of standardised values for all lags in a box, and the pairs they come from.

    Arrays over the lags, with lag 0 in the middle.
    """

    products: Array
    pairs: Array
    values: int

    @classmethod
    def of(cls, z: Array, measured: Array, far: Lag) -> Autocorrelation:
        """Of images that are 0 where nothing was measured, by Fourier transforms of tiles."""
        products = np.zeros([2 * f + 1 for f in far])
        pairs = np.zeros_like(products)
        lags = np.ix_(*(np.arange(-f, f + 1) for f in far))
        for image, known in zip(z, measured, strict=True):
            for tile, part in zip(_tiles(image), _tiles(known.astype(np.float64)), strict=True):
                size = [next_fast_len(n + f, real=True) for n, f in zip(tile.shape, far, strict=True)]
                products += irfftn(np.abs(rfftn(tile, size)) ** 2, size)[lags]
                pairs += irfftn(np.abs(rfftn(part, size)) ** 2, size)[lags].round()
        values = int(pairs[far])
        power = float(products[far])
        return cls(products * (values / power if power else 0.0), pairs, values)

    def at(self, lags: list[Lag]) -> tuple[Array, Array]:
        """The correlations at these lags and, for independent values, their variances."""
        index = tuple(np.array(lags).T + np.array(self.pairs.shape)[:, None] // 2)
        pairs = np.maximum(self.pairs[index], 1e-6)  # without pairs anything goes
        return self.products[index] / pairs, 1 / pairs

    def along(self, axis: int, start: int) -> Autocorrelation:
        """The mean over the lags of ``start`` or more along an axis: what lines along it have in common."""
        far = slice(self.pairs.shape[axis] // 2 + start, None)
        products, pairs = (np.moveaxis(a, axis, 0)[far].sum(0) for a in (self.products, self.pairs))
        return replace(self, products=products, pairs=pairs)


@dataclass(frozen=True)
class Fit:
    """Correlations at the tested lags if the noise is correlated within a box."""

    box: Lag
    noise: float
    noise_error: float
    correlation: Array
    error: Array
    bound: Array
    joint: Array
    unexplained: float  # how far the box fails to explain the rest; 1 or less is good

    @property
    def positive(self) -> bool:
        """Whether any positive correlation counts."""
        return bool((self.correlation > self.bound)[self.joint].any())


@dataclass(frozen=True)
class Model:
    """An autocorrelation, whitened for all that is not noise; a column of ``design`` per lag."""

    window: list[Lag]
    design: Array
    data: Array

    @classmethod
    def of(cls, window: list[Lag], c: Array, covariance: Array) -> Model:
        lower = cholesky(covariance, lower=True)
        whitened = solve_triangular(lower, np.column_stack([np.eye(len(window)), c]), lower=True)
        return cls(window, whitened[:, :-1], whitened[:, -1])

    def fit(self, box: Lag, lags: list[Lag], threshold: float) -> Fit:
        """Estimate the noise and the lags in the box together, and each other lag as if added alone."""
        joint = np.array([inside(lag, box) for lag in lags], dtype=bool)
        columns = self.design[:, [self.window.index(lag) for lag in lags]]
        q, r = np.linalg.qr(np.column_stack([self.design[:, 0], columns[:, joint]]))
        inverse = np.linalg.inv(r)
        together, together_error = inverse @ (q.T @ self.data), np.linalg.norm(inverse, axis=1)

        def alone(added: Array) -> tuple[Array, Array]:
            new = added - q @ (q.T @ added)
            power = (new**2).sum(0)
            return new.T @ self.data / power, power**-0.5

        correlation, error = np.empty(len(lags)), np.empty(len(lags))
        correlation[joint], error[joint] = together[1:], together_error[1:]
        correlation[~joint], error[~joint] = alone(columns[:, ~joint])
        noise = max(float(together[0]), LEAST_ROUGH)
        bound = np.maximum(threshold * error / noise, LIMIT)
        excess = float((np.abs(correlation) / noise / bound).max(initial=0.0, where=~joint))

        # All nearest neighbours as one: few pairs tell more about a mean than about each.
        nearest = np.array([distance(lag) == 1 for lag in lags], dtype=bool)
        if not joint[nearest].all():
            mean, its_error = alone(columns[:, nearest].sum(1, keepdims=True))
            excess = max(excess, abs(float(mean[0])) / max(threshold * float(its_error[0]), LIMIT * noise))
        least = (float(together[0]), float(together_error[0]))
        return Fit(box, *least, correlation / noise, error / noise, bound, joint, excess)


def smooth_covariance(window: list[Lag], kernel: Array) -> Array:
    """Of the autocorrelations of structure: strong bumps of unknown width, and anything in the pass band."""
    h, kernel = np.array(window), kernel / (kernel.flat[0] or 1.0)
    differences, sums = (
        kernel[tuple(np.moveaxis((h[:, None] + s * h[None]) % kernel.shape, -1, 0))] for s in (-1, 1)
    )
    covariance = OTHER_SHAPES**2 * (differences + sums) / 2
    band = np.abs(np.fft.fftn(kernel))
    frequencies = np.meshgrid(*map(np.fft.fftfreq, kernel.shape), indexing="ij", sparse=True)
    squares = np.array([np.average(np.broadcast_to(f**2, band.shape), weights=band) for f in frequencies])
    for width in BUMPS:
        bump = np.exp(-2 * np.pi**2 * width**2 * (h**2 @ squares))
        covariance += np.outer(bump, bump)
    return covariance


def line_covariance(window: list[Lag], axis: int) -> Array:
    """Of the autocorrelations of lines along an axis: one number, whatever the distance along them."""
    across = np.delete(np.array(window), axis, axis=1)
    same, opposite = ((across[:, None] == s * across[None]).all(-1) for s in (1, -1))
    return (same | opposite).astype(np.float64)


def _tiles(image: Array) -> Iterator[Array]:
    """Halve an image until the parts fit a Fourier transform; the pairs across a cut are few."""
    if image.size <= TILE:
        yield image
        return
    axis = int(np.argmax(image.shape))
    for half in np.array_split(image, 2, axis):
        yield from _tiles(half)


def half_box(extent: Lag) -> list[Lag]:
    """Lag 0 and one of each ± pair within the extent, the nearest first."""
    lags = itertools.product(*(range(-e, e + 1) for e in extent))
    return sorted((lag for lag in lags if lag >= (0,) * len(extent)), key=lambda lag: (distance(lag), lag))


def inside(lag: Lag, box: Lag) -> bool:
    """Whether a lag lies in the box of these half-widths."""
    return all(abs(h) <= b for h, b in zip(lag, box, strict=True))


def longer(box: Lag, axis: int, by: int = 1) -> Lag:
    """A box with another half-width along one axis."""
    return (*box[:axis], box[axis] + by, *box[axis + 1 :])


def size_of(box: Lag) -> int:
    """How many lags a box holds."""
    return math.prod(2 * b + 1 for b in box)


def distance(lag: Lag) -> int:
    """The square of it."""
    return sum(h * h for h in lag)
