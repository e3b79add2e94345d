"""What a detector does to a clean image: shot noise, read noise, dead pixels, quantisation.

Every function takes an array of any number of axes and a ``seed`` (an int, or a `numpy.random.Generator` that
several calls may share), leaves its input alone, and returns an array of the same shape in the same intensity
units: float32 for float32 and small integers, float64 otherwise. Nothing is clipped unless the name says so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from selfinv.types import Array, InputError, as_array, check_image, check_number

Seed = int | np.random.Generator


def gaussian(z: npt.ArrayLike, sigma: float, seed: Seed) -> Array:
    """Add independent Gaussian noise of standard deviation ``sigma`` to an array of any shape.

    Raises `InputError` if ``sigma`` is negative or ``z`` is not real and finite.

    Examples
    --------
    >>> bool(gaussian(np.zeros(10000), 0.1, seed=0).std().round(2) == 0.1)
    True
    """
    return poisson_gaussian(z, 0.0, sigma, seed)


def poisson_gaussian(z: npt.ArrayLike, alpha: float, sigma: float, seed: Seed) -> Array:
    r"""Add noise whose variance grows with the signal, :math:`z + \sqrt{\alpha z + \sigma^2}\,N(0, 1)`.

    The Gaussian approximation of photon and read noise; the variance is taken as 0 where ``z`` is so negative
    that it would be below 0. Any shape.

    Raises `InputError` if ``alpha`` or ``sigma`` is negative or ``z`` is not real and finite.
    Source: Foi et al. 2008, doi:10.1109/TIP.2008.2001399; Kobayashi et al. 2020, arXiv:2006.06156, Eq. 7.

    Examples
    --------
    >>> noisy = poisson_gaussian(np.full(100000, 0.5), alpha=0.02, sigma=0.1, seed=0)
    >>> float(noisy.var().round(3))
    0.02
    """
    image = _image(z)
    check_number(alpha, "alpha", least=0.0)
    check_number(sigma, "sigma", least=0.0)
    # In units near the noise's, lest squares overflow or vanish; of a power of two: nothing is rounded.
    largest = max(sigma, math.sqrt(alpha) * math.sqrt(image.max(initial=0.0)))
    unit = math.ldexp(1.0, math.frexp(largest)[1] - 1)
    deviation = np.sqrt(np.maximum((alpha / unit) * (image / unit) + (sigma / unit) ** 2, 0))
    normal = _generator(seed).standard_normal(image.shape)
    return (image + unit * (deviation * normal)).astype(image.dtype)


def poisson(z: npt.ArrayLike, peak: float, seed: Seed) -> Array:
    """Draw photon counts, on average ``peak`` of them where ``z`` is 1, and return them in units of ``z``.

    The result is ``counts / peak``, so its mean is ``z`` and its variance ``z / peak``. Any shape.

    Raises `InputError` if ``peak`` is not positive, or if ``z`` is not real and finite or has values below 0
    beyond the rounding that a blur by FFT leaves (which count as 0).

    Examples
    --------
    >>> counts = 50 * poisson(np.full(5, 0.5), peak=50, seed=0)
    >>> bool((counts == counts.round()).all())
    True
    """
    image = _image(z)
    check_number(peak, "photons at intensity 1 (peak, --photons)", above=0.0)
    low, high = float(image.min()), float(image.max())
    if low < -1e-6 * max(high, 0):
        raise InputError(f"the image goes down to {low:.4g}, but photon counts need intensities of 0 or more")
    if high * peak > 1e18:
        raise InputError(
            f"{peak:.4g} photons at intensity 1 (peak, --photons) times the image's maximum {high:.4g} are "
            f"more than 1e18"
        )
    rate = np.maximum(image.astype(np.float64) * peak, 0)
    return (_generator(seed).poisson(rate) / peak).astype(image.dtype)


def salt_and_pepper(
    z: npt.ArrayLike, fraction: float, seed: Seed, low: float = 0.0, high: float = 1.0
) -> Array:
    """Replace a random ``fraction`` of the values by values drawn uniformly from ``low`` to ``high``.

    Any shape. Each value is chosen independently, so the count itself is random.

    Raises `InputError` if ``fraction`` is outside 0…1, ``high <= low``, or ``z`` is not real and finite.
    Source: Kobayashi et al. 2020, arXiv:2006.06156, Eq. 7.

    Examples
    --------
    >>> float((salt_and_pepper(np.full(100000, 2.0), 0.1, seed=0) < 2).mean().round(2))
    0.1
    """
    image = _image(z)
    check_number(fraction, "the salt-and-pepper fraction", least=0.0, most=1.0)
    _ordered(low, high)
    generator = _generator(seed)
    chosen = generator.random(image.shape) < fraction
    values = generator.uniform(low, high, image.shape).astype(image.dtype)
    return np.where(chosen, values, image)


def quantise(z: npt.ArrayLike, bits: int, low: float = 0.0, high: float = 1.0) -> Array:
    """Round to the levels of a converter with ``bits`` bits: ``2**bits`` of them from ``low`` to ``high``.

    Any shape. Values outside ``low``…``high`` are rounded to the same grid continued, not clipped.

    Raises `InputError` if ``bits`` is not an integer from 1 to 32, ``high <= low``, or ``z`` is not real and
    finite.

    Examples
    --------
    >>> quantise(np.array([0.1, 0.4, 0.9]), bits=2)
    array([0.        , 0.33333333, 1.        ])
    """
    image = _image(z)
    if not isinstance(bits, int | np.integer) or not 1 <= bits <= 32:
        raise InputError(f"bits is {bits}; expected an integer from 1 to 32")
    _ordered(low, high)
    step = (high - low) / (2 ** int(bits) - 1)
    # Rounded in double precision: float32 has 24 bits, too few for the deeper converters' level numbers.
    return (low + np.round((image.astype(np.float64) - low) / step) * step).astype(image.dtype)


@dataclass(frozen=True)
class NoiseModel:
    """A detector: photons, signal-dependent noise, salt and pepper, quantisation, clipping, in this order.

    The defaults are the benchmark's noise, for images from 0 to 1; its exact pixels come from
    `benchmark_degradation`, whose quantisation step is 2⁻¹⁰ where this one's is 1/(2¹⁰ − 1).
    Source: Kobayashi et al. 2020, arXiv:2006.06156, Eq. 7.

    Parameters
    ----------
    alpha, sigma
        Of `poisson_gaussian`. Set ``alpha=0`` with ``photons``, or shot noise is counted twice.
    salt_pepper
        The fraction of replaced values, 0…1, of `salt_and_pepper`.
    bits
        Of `quantise`; None leaves values continuous.
    photons
        The mean count at intensity 1, of `poisson`; None for no photon counting.
    clip
        Whether the detector saturates at ``low`` and ``high``. This biases the noise in darks and brights.
    low, high
        The detector's range, in the image's units.

    Examples
    --------
    >>> noisy = NoiseModel(sigma=0.05).apply(np.full((8, 8), 0.5), seed=1)
    >>> noisy.shape, bool(noisy.min() >= 0), bool(noisy.max() <= 1)
    ((8, 8), True, True)
    """

    alpha: float = 0.001
    sigma: float = 0.1
    salt_pepper: float = 0.01
    bits: int | None = 10
    photons: float | None = None
    clip: bool = True
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        # Every parameter is checked here, so that a mistake shows before any image is read.
        nothing = np.zeros(1)
        _ordered(self.low, self.high)
        poisson_gaussian(nothing, self.alpha, self.sigma, 0)
        salt_and_pepper(nothing, self.salt_pepper, 0)
        if self.bits is not None:
            quantise(nothing, self.bits)
        if self.photons is not None:
            poisson(nothing, self.photons, 0)

    def apply(self, z: npt.ArrayLike, seed: Seed) -> Array:
        """The noisy image of a clean one of any shape; raises `InputError` as the functions it chains do."""
        generator = _generator(seed)
        image = _image(z)
        if self.photons is not None:
            image = poisson(image, self.photons, generator)
        image = poisson_gaussian(image, self.alpha, self.sigma, generator)
        image = salt_and_pepper(image, self.salt_pepper, generator, self.low, self.high)
        if self.bits is not None:
            image = quantise(image, self.bits, self.low, self.high)
        return np.clip(image, self.low, self.high) if self.clip else image


def normalise_minmax(image: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Rescale an image of any shape linearly so that its own minimum is 0 and its maximum 1, as float32.

    Raises `InputError` if it is constant, or not real and finite.

    Examples
    --------
    >>> normalise_minmax(np.array([10, 20, 50], dtype=np.uint8))
    array([0.  , 0.25, 1.  ], dtype=float32)
    """
    values = _image(image).astype(np.float64)
    low, high = values.min(), values.max()
    if low == high:
        raise InputError(f"the image is constant ({low:.6g} everywhere), so it has no range to rescale")
    return ((values - low) / (high - low)).astype(np.float32)


def benchmark_degradation(
    truth: npt.ArrayLike, psf: npt.ArrayLike, seed: int = 0
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """The paper's benchmark input, pixel for pixel: the blurry image and its noisy version, from a clean one.

    Blur with zeros outside the image, then α = 0.001, σ = 0.1, 1 % salt and pepper, rounding to multiples of
    2⁻¹⁰, clipping to 0…1. Both results are float32 of the truth's shape.

    Parameters
    ----------
    truth
        Shape ``(y, x)``, values 0…1; see `normalise_minmax`.
    psf
        Shape ``(py, px)``, sum 1, centred on ``n // 2``.
    seed
        An int for NumPy's legacy generator: its stream and the order of the draws are part of the benchmark.

    Raises
    ------
    InputError
        If either is not 2-D, real and finite, if ``truth`` leaves 0…1, or if ``psf`` does not sum to 1.

    Notes
    -----
    Source: Kobayashi et al. 2020, arXiv:2006.06156, Eqs. 6–7, with what the paper leaves to its public code.

    Examples
    --------
    >>> blurry, noisy = benchmark_degradation(np.eye(4), np.ones((1, 1)))
    >>> bool((blurry == np.eye(4)).all()), bool((noisy * 1024 % 1 == 0).all())
    (True, True)
    """
    from scipy.signal import convolve2d

    clean, kernel = _image(truth).astype(np.float32), _image(psf, "psf").astype(np.float64)
    if clean.ndim != 2 or kernel.ndim != 2:
        raise InputError(f"the benchmark is 2-D; the image has {clean.ndim} axes and the psf {kernel.ndim}")
    if clean.min() < 0 or clean.max() > 1:
        raise InputError(
            f"the image spans {clean.min():.4g} to {clean.max():.4g}; expected 0 to 1, see normalise_minmax"
        )
    if abs(kernel.sum() - 1) > 1e-3:
        raise InputError(f"the psf sums to {kernel.sum():.4g}; expected 1, divide it by its sum")

    # Cropped here, not by mode="same", whose centre for even sizes is not n // 2.
    full = convolve2d(clean.astype(np.float64), kernel)
    start = [n // 2 for n in kernel.shape]
    blurry = full[start[0] :, start[1] :][: clean.shape[0], : clean.shape[1]].astype(np.float32)

    legacy = np.random.RandomState(seed)
    normal = legacy.normal(size=blurry.shape)
    replaced = legacy.uniform(size=blurry.shape) < 0.01
    noisy = blurry + np.sqrt(0.001 * blurry + 0.1**2) * normal
    noisy = np.where(replaced, legacy.uniform(size=blurry.shape), noisy)
    noisy = np.clip(np.round(noisy * 1024) / 1024, 0, 1)
    return blurry, noisy.astype(np.float32)


def noise_level(y: npt.ArrayLike) -> float:
    r"""The typical deviation of independent noise, from second differences along the last axis.

    These cancel what is smooth; independent noise of deviation :math:`s` gives them :math:`\sqrt 6\, s`, and
    :math:`\sqrt{2/\pi}` of that is a Gaussian's mean absolute value (Immerkaer 1996,
    doi:10.1006/cviu.1996.0060). ``y`` has any shape, NaN marks missing values; 0 if nothing can be said.

    Examples
    --------
    >>> round(noise_level(gaussian(np.zeros((200, 200)), 0.1, seed=0)), 2)
    0.1
    """
    values = as_array(y, "y").astype(np.float64)
    bend = np.abs(np.diff(np.where(np.isfinite(values), values, np.nan), n=2, axis=-1))
    return float(np.nanmean(bend)) / math.sqrt(6 * 2 / math.pi) if np.isfinite(bend).any() else 0.0


def _image(z: Any, name: str = "image") -> Array:
    """The values as a floating-point array, checked to be real and finite."""
    array = check_image(z, name=name, allow_nan=True)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError(f"{name} has NaN or infinite values; replace them before adding noise")
    return array.astype(np.result_type(array.dtype, np.float32), copy=False)


def _generator(seed: Seed) -> np.random.Generator:
    if not isinstance(seed, np.random.Generator | int | np.integer) or (
        not isinstance(seed, np.random.Generator) and seed < 0
    ):
        raise InputError(f"seed is {seed!r}; expected an int of 0 or more, or a numpy.random.Generator")
    return np.random.default_rng(seed)


def _ordered(low: float, high: float) -> None:
    if not check_number(low, "low") < check_number(high, "high"):
        raise InputError(f"the range goes from {low} to {high}; expected low < high")
