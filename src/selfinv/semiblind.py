r"""A PSF known up to a few parameters, fitted from the one noisy, blurred image that it made.

The spectrum of a blurred image with white noise is

.. math:: S(f) = |H_\theta(f)|^2 S_x(f) + \sigma^2, \qquad
          \log S_x(f) = a - \gamma \log f + \tfrac12 \kappa (\log f)^2 + \varepsilon(f),

and the defocus or width :math:`\theta` shows in where :math:`|H_\theta|^2` falls and has its rings, as long
as the object's spectrum :math:`S_x` is smooth. Real objects are no parabolas: the deviations
:math:`\varepsilon` of each ring of frequencies are part of the model; their size :math:`\tau` is fitted too.
The likelihood of the periodogram's rings (Whittle 1953, doi:10.1007/BF02590998, here of the logarithm) is
maximised over :math:`a, \gamma, \kappa, \sigma, \tau`, raised to the power ``1 / TEMPER`` since neighbouring
rings deviate together, and averaged over :math:`\theta` within the bounds of the family. Where that narrows
the bounds to less than half, the mean is the answer; where not, the start value is kept and said to be kept.

Rings do not see a direction. Where the PSF has one (astigmatism, coma), each ring is divided into sectors,
and the object has an amplitude :math:`a` of its own in each, since real objects prefer directions; the rest
of its spectrum is common to all.

A hidden value's score is nearly blind to a PSF too narrow (a blurred object then explains the data as well),
so held-out values do not fit here; they only guard: a fitted PSF that predicts them significantly worse than
the start's is not taken.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from selfinv import psf as psf_models
from selfinv.learning.measurement import object_pads
from selfinv.methods import Request, solver_for
from selfinv.operators import Convolution, choose_boundary
from selfinv.psf.zernike import check_terms, orders
from selfinv.selection import Difference, SelfTunedState, difference
from selfinv.solvers.base import run
from selfinv.solvers.wiener import fill_holes
from selfinv.types import Array, InputError, check_contrast, check_image, guess_axes, parse_axes

Floats = npt.NDArray[np.float64]

TEMPER = 3.0  # with it 70 to 90 % of the intervals hold the truth (docs/experiments.md)
NARROWED = 0.5  # of the range's deviation: what is known less well is not identifiable
SPREAD = 1.5  # bounds: the start value divided and multiplied by this
WIDTH_SPREAD = 2.0  # the same of a Gaussian's width, of which less is known
TERM_SPREAD = 0.15  # of a Zernike coefficient: plus and minus this, waves rms
POINTS = {1: 25, 2: 13, 3: 7}  # of the grid along each of so many parameters
UNLIKE = 3.0  # prior deviations: beyond, the object's spectrum is not of the kind assumed
SMALLEST = 48  # samples a side: fewer have too few rings
GUARDED = 384  # samples a side of what the guard restores

_SECTORS = 6  # of half a turn
_TAPER = 0.25  # of each side
_CORRELATED = 1.6  # waves that the taper makes into one
_LOWEST = 3  # periods per image
_EXPONENT, _EXPONENT_SD, _CURVATURE_SD = 2.5, 1.0, 0.2  # of power spectra of scenes, per log of frequency
_DEVIATION, _DEVIATION_SD = math.log(0.2), 0.7  # log τ


@dataclass(frozen=True)
class PSFFamily:
    """A PSF as a function of a few parameters.

    Parameters
    ----------
    kernel
        From the parameters' values, in the order of ``names``, to a 2-D PSF with its centre at ``n // 2``.
    names, start
        Of the parameters; what was told of each.
    lower, upper
        Between which bounds each is looked for.
    logarithmic
        Whether on a logarithmic scale, where both bounds have one sign.
    directional
        Whether the kernels have a direction, i.e. are not all rotationally symmetric; the spectrum is then
        divided into sectors.

    Raises
    ------
    InputError
        If there are no or more than three parameters, if the numbers do not match, or if a start value is not
        between its bounds.

    Examples
    --------
    >>> def kernel(sigma):
    ...     return psf_models.gaussian(sigma, (15, 15))
    >>> family = PSFFamily(kernel, ("sigma",), (2.0,), (1.3,), (3.0,))
    >>> family.at((2.0,)).shape
    (15, 15)
    """

    kernel: Callable[..., Array]
    names: tuple[str, ...]
    start: tuple[float, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    logarithmic: bool = True
    directional: bool = False

    def __post_init__(self) -> None:
        n = len(self.names)
        if not 1 <= n <= max(POINTS):
            raise InputError(f"the PSF family has {n} parameters; expected 1 to {max(POINTS)}")
        if not len(self.start) == len(self.lower) == len(self.upper) == n:
            raise InputError(f"the PSF family has {n} names; give as many start values and bounds")
        for name, low, told, high in zip(self.names, self.lower, self.start, self.upper, strict=True):
            if not (-math.inf < low <= told <= high < math.inf and low < high):
                raise InputError(
                    f"{name} starts at {told:g} with the bounds {low:g} to {high:g}; "
                    f"the start must lie between two finite, different bounds"
                )

    def at(self, values: Sequence[float]) -> Floats:
        """The PSF of these values, 2-D, sum 1; raises `InputError` if it is none (`check_psf`)."""
        kernel = np.asarray(self.kernel(*values))
        psf_models.check_psf(kernel, 2)
        return psf_models.normalise(kernel)

    def place(self, unit: float, axis: int) -> float:
        """The value of a parameter at the share ``unit`` of its range."""
        low, high = self.lower[axis], self.upper[axis]
        if self.logarithmic and low * high > 0:
            return low * (high / low) ** unit
        return low + (high - low) * unit

    def fix(self, values: dict[str, float]) -> PSFFamily:
        """The family of the other parameters, these held."""
        free = [i for i, name in enumerate(self.names) if name not in values]

        def kernel(*given: float) -> Array:
            told = dict(values) | dict(zip((self.names[i] for i in free), given, strict=True))
            return self.kernel(*(told[name] for name in self.names))

        def part(items: Sequence[Any]) -> tuple[Any, ...]:
            return tuple(items[i] for i in free)

        return replace(
            self,
            kernel=kernel,
            names=part(self.names),
            start=part(self.start),
            lower=part(self.lower),
            upper=part(self.upper),
        )


def gaussian_family(
    sigma: float, shape: Sequence[int] | None = None, *, pixel_size: float = 1.0, spread: float = WIDTH_SPREAD
) -> PSFFamily:
    """Gaussians (`selfinv.psf.gaussian`) of about the width ``sigma``, in units of ``pixel_size``.

    Parameters
    ----------
    shape
        ``(y, x)`` of the kernel; by default ±3 of the widest sigma.
    spread
        The width is looked for between ``sigma / spread`` and ``sigma * spread``.

    Raises
    ------
    InputError
        If a length is not positive, or ``spread`` not above 1.

    Examples
    --------
    >>> gaussian_family(2.0).upper
    (4.0,)
    """
    lower, upper = _around("sigma", psf_models.checks.positive("sigma", sigma), spread)
    reach = 2 * math.ceil(3 * upper / psf_models.checks.positive("pixel_size", pixel_size)) + 1
    sizes = (reach, reach) if shape is None else psf_models.checks.check_shape(shape, (2,))
    return PSFFamily(
        lambda width: psf_models.gaussian(width, sizes, pixel_size=pixel_size),
        ("sigma",),
        (float(sigma),),
        (lower,),
        (upper,),
    )


def gibson_lanni_family(
    shape: Sequence[int],
    optics: psf_models.Objective,
    *,
    pixel_size: float | Sequence[float],
    defocus: float,
    particle_depth: float = 0.0,
    integrate_pixels: bool = False,
    fit: Sequence[str] = ("defocus",),
    spread: float = SPREAD,
) -> PSFFamily:
    """Planes of a widefield microscope (`selfinv.psf.gibson_lanni`) with about this ``defocus``, µm.

    Parameters
    ----------
    shape
        ``(y, x)`` of the kernel.
    fit
        What is fitted: ``"defocus"``, ``"na"``, or both. The spectrum does not tell the sign of a defocus:
        it is the told one's.
    spread
        Each is looked for between its told value divided and multiplied by this.

    Raises
    ------
    InputError
        If a parameter is unknown, if the defocus to be fitted is 0, or as `selfinv.psf.gibson_lanni` does.
    """
    sizes = psf_models.checks.check_shape(shape, (2,))
    unknown = [name for name in fit if name not in ("defocus", "na")]
    if unknown or not fit or len(set(fit)) != len(fit):
        raise InputError(f"fit={tuple(fit)!r}; use 'defocus', 'na' or both, once each")
    told = {"defocus": float(defocus), "na": optics.na}
    if "defocus" in fit and defocus == 0:
        raise InputError(
            "defocus=0 has no range to be looked for in; tell about how far out of focus the plane is"
        )
    bounds = {name: _around(name, told[name], spread) for name in fit}
    if "na" in bounds:  # no light is steeper than the indices allow
        indices = (optics.ni, optics.ni0, optics.ng, optics.ng0)
        steepest = 0.99 * min(n for n in indices if n is not None)
        bounds["na"] = (bounds["na"][0], min(bounds["na"][1], steepest))

    def kernel(*values: float) -> Array:
        now = told | dict(zip(fit, values, strict=True))
        return psf_models.gibson_lanni(
            sizes,
            replace(optics, na=now["na"]),
            pixel_size=pixel_size,
            defocus=now["defocus"],
            particle_depth=particle_depth,
            integrate_pixels=integrate_pixels,
        )

    return PSFFamily(
        kernel,
        tuple(fit),
        tuple(told[name] for name in fit),
        tuple(bounds[name][0] for name in fit),
        tuple(bounds[name][1] for name in fit),
    )


def zernike_family(
    shape: Sequence[int],
    optics: psf_models.Objective,
    terms: Mapping[Any, float],
    *,
    pixel_size: float | Sequence[float],
    defocus: float = 0.0,
    particle_depth: float = 0.0,
    fit: Sequence[str | int] = ("defocus", "spherical"),
    spread: float = TERM_SPREAD,
) -> PSFFamily:
    """Planes of an aberrated microscope (`selfinv.psf.zernike`) with about these ``terms``, waves rms.

    The power spectrum is the same for a PSF and its mirror image. With all terms of even angular order
    (defocus, astigmatism, spherical) negated together the PSF itself stays the same; with all of odd order
    (coma, trefoil), it becomes its mirror image. The signs are therefore the told ones: where the bounds
    would hold both of two such solutions, the fitted term told largest is looked for on its own side of 0
    only (the first term, from 0 up, if all are told to be 0). Held terms, a ``defocus`` or mismatched
    ``optics`` can tell the sign; then the bounds are left as they are.

    Parameters
    ----------
    shape
        ``(y, x)`` of the kernel.
    terms
        What was told of each, by name or Noll's index; those not fitted are held.
    defocus, particle_depth
        As in `selfinv.psf.zernike`, µm; held.
    fit
        What is fitted, one to three terms; one not in ``terms`` is told to be 0. Any but a tilt, which the
        spectrum does not see.
    spread
        Each is looked for between its told value minus and plus this, in waves rms.

    Raises
    ------
    InputError
        If ``fit`` is empty, too long, doubled or a tilt, if ``spread`` is not positive, or as
        `selfinv.psf.zernike` does.

    Examples
    --------
    >>> optics = psf_models.Objective(na=0.8, wavelength=0.6)
    >>> family = zernike_family((21, 21), optics, {"defocus": 0.3}, pixel_size=0.3, spread=0.1)
    >>> family.names, [round(low, 3) for low in family.lower]
    (('defocus', 'spherical'), [0.2, -0.1])
    """
    sizes = psf_models.checks.check_shape(shape, (2,))
    given = check_terms(terms)
    asked = [*fit]
    names = tuple(check_terms(dict.fromkeys(asked, 0.0)))
    if not 1 <= len(names) <= max(POINTS) or len(names) < len(asked):
        raise InputError(f"fit={tuple(fit)!r}; name one to {max(POINTS)} Zernike terms, once each")
    tilts = [name for name in names if orders(name)[0] == 1]
    if tilts:
        raise InputError(f"{tilts[0]} displaces the image, which its spectrum does not show; fit other terms")
    width = psf_models.checks.positive("spread", spread)
    start = {name: given.get(name, 0.0) for name in names}
    lower = {name: waves - width for name, waves in start.items()}
    upper = {name: waves + width for name, waves in start.items()}

    def plane(values: Mapping[str, float], size: Sequence[int] = sizes) -> Floats:
        return psf_models.zernike(
            size,
            optics,
            given | dict(values),
            pixel_size=pixel_size,
            defocus=defocus,
            particle_depth=particle_depth,
        )

    def power(values: Mapping[str, float]) -> Floats:
        return np.abs(np.fft.fft2(plane(values, [n | 1 for n in sizes])))  # odd: a mirror image fits, too

    for parity in (0, 1):
        group = [name for name in names if orders(name)[1] % 2 == parity]
        if group and all(lower[name] < 0 < upper[name] for name in group):
            negated = upper | {name: -upper[name] for name in group}
            if np.allclose(power(upper), power(negated), atol=1e-5):
                largest = max(group, key=lambda name: abs(start[name]))
                (upper if start[largest] < 0 else lower)[largest] = 0.0

    return PSFFamily(
        lambda *values: plane(dict(zip(names, values, strict=True))),
        names,
        tuple(start.values()),
        tuple(lower.values()),
        tuple(upper.values()),
        logarithmic=False,
        directional=any(orders(name)[1] for name in {*names, *(name for name in given if given[name])}),
    )


@dataclass(frozen=True)
class FittedPSF:
    """A PSF, and how well the image told its parameters.

    Parameters
    ----------
    psf
        2-D, sum 1: of the fitted values, or the told ones where the image does not tell.
    names, values, told
        Of the parameters; what they are now and were before.
    errors, intervals
        Standard error of each, and the interval that holds it with 95 % if the object's spectrum is what the
        model takes it for; of the benchmark's images, with 70 to 90 %.
    identifiable
        Whether the image narrows each parameter's range to less than half, away from its bounds.
    reasons
        Why not, in words; empty where it does.
    profile
        Of each value of the last parameters looked at: the values, and the log-likelihood below the best.
    guard
        Held-out score with the fitted PSF less that with the told; None if it was not asked.
    kept
        Whether `psf` is the told one.
    """

    psf: Floats = field(repr=False)
    names: tuple[str, ...]
    values: tuple[float, ...]
    told: tuple[float, ...]
    errors: tuple[float, ...]
    intervals: tuple[tuple[float, float], ...]
    identifiable: tuple[bool, ...]
    reasons: tuple[str, ...]
    profile: tuple[tuple[tuple[float, ...], float], ...] = field(default=(), repr=False)
    guard: Difference | None = None
    kept: bool = False

    def warnings(self) -> tuple[str, ...]:
        """A sentence for each parameter that was kept as told."""
        return tuple(
            f"{name} of the PSF is not identifiable from this image: {why}; kept as told, {told:.4g}"
            for name, told, why in zip(self.names, self.told, self.reasons, strict=True)
            if why
        )

    def summary(self) -> dict[str, Any]:
        """What was found, in plain types, by the parameters' names."""
        rows = zip(self.values, self.told, self.errors, self.intervals, self.identifiable, strict=True)
        keys = ("value", "told", "error", "interval", "identifiable")
        return {name: dict(zip(keys, row, strict=True)) for name, row in zip(self.names, rows, strict=True)}

    def explain(self) -> str:
        """One sentence for each parameter and the guard, then each value's likelihood (one parameter)."""
        lines = []
        for i, name in enumerate(self.names):
            low, high = self.intervals[i]
            if self.identifiable[i]:
                lines.append(
                    f"{name}: fitted {self.values[i]:.4g} ± {self.errors[i]:.2g} "
                    f"(95 %: {low:.4g} to {high:.4g}), told {self.told[i]:.4g}"
                )
            else:
                lines.append(f"{name}: not identifiable, {self.reasons[i]}; kept as told, {self.told[i]:.4g}")
        if self.guard is not None:
            verdict = "significantly worse" if self.kept else "not significantly worse"
            lines.append(
                f"held-out score less the told PSF's: {self.guard.mean:+.2g} ± {self.guard.error:.1g}, "
                f"{verdict}"
            )
        if len(self.names) == 1 and self.profile:
            name = self.names[0]
            lines += [
                f"{name} {values[0]:.4g}: log-likelihood {score:+.2f}" for values, score in self.profile
            ]
        return "\n".join(lines)


def fit_psf(
    image: Any,
    family: PSFFamily,
    *,
    axes: str | None = None,
    mask_nan: bool = False,
    guard: bool = True,
    seed: int = 0,
) -> FittedPSF:
    """Fit a family's parameters from one noisy, blurred image.

    Parameters
    ----------
    image
        The measurement; two spatial axes, with channels and time if ``axes`` says so: all of its planes share
        the PSF.
    family
        The PSF as a function of its parameters.
    axes, mask_nan, seed
        As in `selfinv.restore`; the seed is of the guard's hidden values.
    guard
        Whether to restore (a part of) the image with the told and the fitted PSF by self-tuned total
        variation, and not to take the fitted one if it predicts held-out values significantly worse.

    Raises
    ------
    InputError
        If the image is constant, has NaN (without ``mask_nan``) or not two spatial axes, or if the family
        is none or makes kernels that are no PSFs.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> fitted = fit_psf(rng.normal(size=(64, 64)), gaussian_family(2.0))  # noise alone tells nothing
    >>> fitted.identifiable, fitted.values
    ((False,), (2.0,))
    """
    if not isinstance(family, PSFFamily):
        raise InputError(f"family is a {type(family).__name__}; pass a PSFFamily, e.g. gaussian_family(2.0)")
    array = check_image(image, allow_nan=mask_nan)
    layout = parse_axes(axes or guess_axes(array.shape, 2), array.ndim)
    if layout.spatial != "yx":
        raise InputError(
            f"the image has the spatial axes {layout.spatial!r}; a PSF is fitted to planes, 'yx', only"
        )
    check_contrast(array)
    y = np.ascontiguousarray(layout.to_batch(array), dtype=np.float64)
    y = np.where(np.isfinite(y), y, np.nan)
    told = family.at(family.start)
    least = max(SMALLEST, *(2 * n for n in told.shape))
    if min(y.shape[-2:]) < least:
        why = f"an image of {y.shape[-2]} × {y.shape[-1]} is too small (at least {least} a side)"
        return _not_told(family, why)
    fitted = _fit(_Spectrum(y, _SECTORS if family.directional else 1), family)
    if guard and any(fitted.identifiable):
        compared = _guard(y, told, fitted.psf, seed)
        if compared.mean > 0 and compared.significant:
            why = "held-out values are predicted significantly worse with the fitted PSF"
            kept = _not_told(family, why)
            return replace(
                kept, errors=fitted.errors, intervals=fitted.intervals, profile=fitted.profile, guard=compared
            )
        fitted = replace(fitted, guard=compared)
    return fitted


def _around(name: str, value: float, spread: float) -> tuple[float, float]:
    """The bounds of a parameter, which may be negative."""
    if not (math.isfinite(spread) and spread > 1):
        raise InputError(f"spread={spread} must be above 1: the range is the told value divided and times it")
    size = psf_models.checks.positive(name, abs(value))
    low, high = size / spread, size * spread
    return (low, high) if value > 0 else (-high, -low)


class _Spectrum:
    """The mean power of the planes of an image, ``batch channel y x``, in rings, or sectors of rings."""

    def __init__(self, y: Floats, sectors: int = 1) -> None:
        missing = np.isnan(y)
        if missing.any():
            measured = torch.from_numpy((~missing).astype(np.float64))
            y = fill_holes(torch.from_numpy(np.nan_to_num(y)), measured).numpy()
        self.shape = y.shape[-2:]
        planes = y.reshape(-1, *self.shape)
        planes = planes / (planes.std() or 1.0)
        window = np.ones(self.shape)
        for axis, n in enumerate(self.shape):
            place = np.arange(n) + 0.5
            rise = np.clip(np.minimum(place, n - place) / (_TAPER * n), 0, 1)
            window *= (np.sin(rise * np.pi / 2) ** 2).reshape([-1 if i == axis else 1 for i in range(2)])
        means = (planes * window).sum((1, 2), keepdims=True) / window.sum()
        power = (np.abs(np.fft.fft2((planes - means) * window)) ** 2).mean(0) / (window**2).sum()
        down, right = np.fft.fftfreq(self.shape[0])[:, None], np.fft.fftfreq(self.shape[1])
        frequency = np.hypot(down, right)
        side = min(self.shape)
        ring = np.rint(frequency * side).astype(np.int64)
        # The first sector has the x axis in its middle; opposite directions are one.
        sector = np.rint(np.arctan2(down, right) / np.pi * sectors).astype(np.int64) % sectors
        self._part = (ring * sectors + sector).ravel()
        self._count = np.bincount(self._part, minlength=(ring.max() + 1) * sectors)
        every = np.repeat(np.arange(ring.max() + 1) / side, sectors)
        # Of sectors, so wide a ring that each holds as many waves as the lowest whole ring.
        self._used = (self._count > 0) & (every * side >= _LOWEST * sectors) & (every <= 0.5)
        self.log_frequency = np.log(self.parts(frequency))
        self.log_frequency = self.log_frequency - self.log_frequency.mean()
        self.sector = np.tile(np.arange(sectors), ring.max() + 1)[self._used]
        self.count = self._count[self._used] / 2 * len(planes) / _CORRELATED  # a real image's waves are pairs
        self.power = self.parts(power)
        # Of the mean of n exponential variables the logarithm has the mean log(mean) - 1/2n, variance 1/n.
        self.log_power = np.log(np.maximum(self.power, 1e-12 * self.power.max())) + 0.5 / self.count

    def parts(self, values: Floats) -> Floats:
        """Means over the rings or sectors in use."""
        sums = np.bincount(self._part, values.ravel(), minlength=len(self._count))
        return np.asarray(sums / np.maximum(self._count, 1))[self._used]

    def transfer(self, kernel: Floats) -> Floats:
        """|H|² of a PSF, of each part."""
        return self.parts(np.abs(np.fft.fft2(kernel, self.shape)) ** 2)


def _misfit(spectrum: _Spectrum, transfer: Floats, start: Floats) -> tuple[float, Floats]:
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

    found = minimize(cost, start, jac=True, method="L-BFGS-B", options={"maxiter": 300})
    return float(found.fun), np.asarray(found.x)


def _unlike(nuisance: Floats) -> str:
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


def _first_guess(spectrum: _Spectrum) -> Floats:
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


def _fit(spectrum: _Spectrum, family: PSFFamily) -> FittedPSF:
    """The mean over the range, weighted by the tempered likelihood; on a grid, then on a finer one."""
    n = len(family.names)
    low, high = np.zeros(n), np.ones(n)
    guess = _first_guess(spectrum)
    first: tuple[tuple[tuple[float, ...], float], ...] = ()
    at_bound = [False] * n
    mean = deviation = np.zeros(n)
    marginals: list[tuple[Floats, Floats]] = []
    for level in range(2):
        sides = [np.linspace(a, b, POINTS[n]) for a, b in zip(low, high, strict=True)]
        misfits, values, spectra, previous = [], [], [], guess
        for unit in itertools.product(*sides):
            where = tuple(family.place(u, i) for i, u in enumerate(unit))
            transfer = spectrum.transfer(family.at(where))
            # From the neighbour's optimum and from a common guess: the misfit has more than one minimum.
            near, far = _misfit(spectrum, transfer, previous), _misfit(spectrum, transfer, guess)
            misfit, previous = min(near, far, key=lambda pair: pair[0])
            misfits.append(misfit)
            values.append(where)
            spectra.append(previous)
        cost = np.array(misfits).reshape([len(side) for side in sides]) / TEMPER
        weight = np.exp(cost.min() - cost)
        for axis in range(n):  # the trapezoid rule
            ends = np.ones(cost.shape[axis])
            ends[[0, -1]] = 0.5
            weight = weight * ends.reshape([-1 if i == axis else 1 for i in range(n)])
        weight /= weight.sum()
        marginals = [(sides[i], weight.sum(axis=tuple(j for j in range(n) if j != i))) for i in range(n)]
        mean = np.array([w @ u for u, w in marginals])
        deviation = np.sqrt([w @ (u - m) ** 2 for (u, w), m in zip(marginals, mean, strict=True)])
        if level == 0:
            first = tuple(zip(values, (-(cost - cost.min())).ravel().tolist(), strict=True))
            lowest = np.unravel_index(int(cost.argmin()), cost.shape)
            at_bound = [bool(i in (0, POINTS[n] - 1)) for i in lowest]
        step = (high - low) / (POINTS[n] - 1)
        reach = np.maximum(4 * deviation, 2 * step)
        if (2 * reach > 0.7 * (high - low)).all():
            break
        low, high = np.maximum(mean - reach, 0.0), np.minimum(mean + reach, 1.0)
    unlike = _unlike(spectra[int(np.argmin(misfits))])
    if unlike:
        kept = _not_told(family, unlike)
        return replace(kept, profile=first)
    known = deviation < NARROWED / math.sqrt(12)
    identifiable = tuple(bool(k) and not b for k, b in zip(known, at_bound, strict=True))
    told = family.start
    if any(identifiable) and not all(identifiable):
        # What the image does not tell is held, and the rest fitted to that.
        held = {name: t for name, t, good in zip(family.names, told, identifiable, strict=True) if not good}
        rest = _fit(spectrum, family.fix(held))
        return _merge(
            family, rest, _summary(family, first, mean, deviation, marginals, identifiable, at_bound)
        )
    return _summary(family, first, mean, deviation, marginals, identifiable, at_bound)


def _summary(
    family: PSFFamily,
    profile: tuple[tuple[tuple[float, ...], float], ...],
    mean: Floats,
    deviation: Floats,
    marginals: Sequence[tuple[Floats, Floats]],
    identifiable: tuple[bool, ...],
    at_bound: Sequence[bool],
) -> FittedPSF:
    values, errors, intervals, reasons = [], [], [], []
    for i, (m, d) in enumerate(zip(mean.tolist(), deviation.tolist(), strict=True)):
        side, weight = marginals[i]
        below = weight.cumsum() - weight / 2
        low, high = (family.place(float(np.interp(q, below, side)), i) for q in (0.025, 0.975))
        at, around = family.place(m, i), (family.place(m + d, i) - family.place(m - d, i)) / 2
        values.append(at if identifiable[i] else family.start[i])
        errors.append(abs(around))
        intervals.append((low, high))
        bounds = f"{family.lower[i]:.4g} to {family.upper[i]:.4g}"
        if identifiable[i]:
            reasons.append("")
        elif at_bound[i]:
            reasons.append(f"the likeliest value lies at or beyond the end of the range {bounds}")
        else:
            reasons.append(f"the data allow {low:.4g} to {high:.4g} of the range {bounds}")
    return FittedPSF(
        family.at(values),
        family.names,
        tuple(values),
        family.start,
        tuple(errors),
        tuple(intervals),
        identifiable,
        tuple(reasons),
        profile,
        kept=not any(identifiable),
    )


def _merge(family: PSFFamily, rest: FittedPSF, whole: FittedPSF) -> FittedPSF:
    """``whole`` with what ``rest`` says of the parameters that were fitted again."""
    places = {name: i for i, name in enumerate(rest.names)}

    def merged(name: str) -> tuple[Any, ...]:
        ours, theirs = getattr(whole, name), getattr(rest, name)
        pairs = zip(family.names, ours, strict=True)
        return tuple(theirs[places[n]] if n in places else mine for n, mine in pairs)

    fields = ("values", "errors", "intervals", "identifiable", "reasons")
    changed: dict[str, Any] = {name: merged(name) for name in fields}
    return replace(whole, psf=family.at(changed["values"]), kept=not any(changed["identifiable"]), **changed)


def _not_told(family: PSFFamily, why: str) -> FittedPSF:
    n = len(family.names)
    bounds = tuple(zip(family.lower, family.upper, strict=True))
    return FittedPSF(
        family.at(family.start),
        family.names,
        family.start,
        family.start,
        (math.inf,) * n,
        bounds,
        (False,) * n,
        (why,) * n,
        kept=True,
    )


def _guard(y: Floats, told: Floats, fitted: Floats, seed: int) -> Difference:
    """The held-out score of self-tuned total variation with the fitted PSF, less that with the told one."""
    middle = tuple(
        slice(max(0, (n - GUARDED) // 2), max(0, (n - GUARDED) // 2) + GUARDED) for n in y.shape[-2:]
    )
    part = torch.from_numpy(np.ascontiguousarray(y[(slice(0, 1), slice(0, 1), *middle)])).float()
    chosen = []
    for kernel in (told, fitted):
        tensor = torch.from_numpy(kernel).float()
        shape = tuple(part.shape[2:])
        boundary = choose_boundary(part, tensor)
        operator = Convolution(tensor, shape, boundary, margin=[max(8, n // 8) for n in shape])
        sizes = [n + sum(pads) for n, pads in zip(shape, object_pads(operator, shape), strict=True)]
        solver = solver_for("tv-chambolle-pock", Request(part, operator, sizes))
        state, _ = run(solver, part, operator, seed=seed)
        assert isinstance(state, SelfTunedState)
        assert state.chosen is not None
        chosen.append(state.chosen)
    return difference(chosen[1], chosen[0])


__all__ = ["FittedPSF", "PSFFamily", "fit_psf", "gaussian_family", "gibson_lanni_family", "zernike_family"]
