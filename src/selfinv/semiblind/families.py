"""Families of PSFs: a PSF as a function of the few parameters that are not known."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from selfinv import psf as psf_models
from selfinv.psf.zernike import check_terms, orders
from selfinv.types import Array, Floats, InputError, as_array, check_number, check_shape

SPREAD = 1.5  # bounds: the start value divided and multiplied by this
WIDTH_SPREAD = 2.0  # the same of a Gaussian's width, of which less is known
TERM_SPREAD = 0.15  # of a Zernike coefficient: plus and minus this, waves rms
ALIKE = 0.01  # of the peak: a kernel that a quarter turn changes by less has no direction
POINTS = {1: 25, 2: 13, 3: 7}  # of the fit's grid along each of so many parameters


@dataclass(frozen=True)
class PSFFamily:
    """A PSF as a function of a few parameters.

    Parameters
    ----------
    kernel
        From the parameters' values, in the order of ``names``, to a PSF with its centre at ``n // 2``, 2-D or
        for volumes 3-D.
    names, start
        Of the parameters; what was told of each.
    lower, upper
        Between which bounds each is looked for.
    logarithmic
        Whether on a logarithmic scale, where both bounds have one sign.
    directional
        Whether 2-D kernels have a direction, i.e. are not all rotationally symmetric; the spectrum is then
        divided into sectors. That of a volume always is, by the angle to the z axis.

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
        """The PSF of these values, sum 1; raises `InputError` if it is none (`check_psf`)."""
        kernel = as_array(self.kernel(*values), "psf")
        psf_models.check_psf(kernel, 3 if kernel.ndim == 3 else 2)
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
    sigma: float | Sequence[float],
    shape: Sequence[int] | None = None,
    *,
    pixel_size: float | Sequence[float] = 1.0,
    spread: float = WIDTH_SPREAD,
) -> PSFFamily:
    """Gaussians (`selfinv.psf.gaussian`) of about the width ``sigma``, in units of ``pixel_size``.

    Parameters
    ----------
    sigma
        One width, of an image; or two, of a volume: along z and within its planes.
    shape
        ``(y, x)`` or ``(z, y, x)`` of the kernel; by default ±3 of the widest sigma.
    pixel_size
        One number, or one per axis.
    spread
        Each width is looked for between ``sigma / spread`` and ``sigma * spread``.

    Raises
    ------
    InputError
        If there are more than two widths, if a length is not positive, or ``spread`` not above 1.

    Examples
    --------
    >>> gaussian_family(2.0).upper
    (4.0,)
    >>> gaussian_family((3.0, 1.5)).names
    ('sigma_z', 'sigma')
    """
    try:
        told = [float(s) for s in np.atleast_1d(np.asarray(sigma, dtype=float))]
    except (TypeError, ValueError):
        raise InputError(
            f"sigma={sigma!r} is no width; pass one, or for a volume two, (z, lateral)"
        ) from None
    if not 1 <= len(told) <= 2:
        raise InputError(f"sigma has {len(told)} values; pass one, or for a volume two, (z, lateral)")
    names = ("sigma_z", "sigma")[-len(told) :]
    ndim = len(told) + 1
    bounds = [
        _around(name, check_number(s, name, above=0.0), spread) for name, s in zip(names, told, strict=True)
    ]
    pixels = psf_models.checks.per_axis("pixel_size", pixel_size, ndim)
    along = [upper for _, upper in bounds] + [bounds[-1][1]]
    reach = [2 * math.ceil(3 * upper / p) + 1 for upper, p in zip(along, pixels, strict=True)]
    sizes = tuple(reach) if shape is None else check_shape(shape, (ndim,))
    return PSFFamily(
        lambda *widths: psf_models.gaussian((*widths, widths[-1]), sizes, pixel_size=pixels),
        names,
        tuple(told),
        tuple(lower for lower, _ in bounds),
        tuple(upper for _, upper in bounds),
    )


def scaled_family(kernel: Any, *, spread: float = WIDTH_SPREAD) -> PSFFamily:
    """A PSF of a known shape whose size is not sure: another magnification, pixel size or numerical aperture.

    Parameters
    ----------
    kernel
        The PSF as told, 2-D or 3-D, with its centre at ``n // 2``.
    spread
        Its ``scale``, along all axes, is looked for between ``1 / spread`` and ``spread``.

    Raises
    ------
    InputError
        If the kernel is no PSF, or ``spread`` not above 1.

    Examples
    --------
    >>> scaled_family(psf_models.gaussian(2.0, (17, 17))).names
    ('scale',)
    """
    given = np.asarray(psf_models.values_of(kernel))
    psf_models.check_psf(given, 3 if given.ndim == 3 else 2)
    told = given.astype(np.float64)
    lower, upper = _around("scale", 1.0, spread)
    quarter = np.rot90(told, axes=(-2, -1))
    turned = told.shape == quarter.shape and np.allclose(told, quarter, atol=ALIKE * told.max())
    return PSFFamily(
        lambda scale: _scaled(told, scale), ("scale",), (1.0,), (lower,), (upper,), directional=not turned
    )


def _scaled(kernel: Floats, scale: float) -> Floats:
    """Wider by this factor, about its centre: of its spectrum, what the pixels can show."""
    band = min(1.0, 1.0 / scale)
    for axis, n in enumerate(kernel.shape):
        size = math.ceil(n * max(scale, 1.0)) | 1
        apart = (np.arange(size) - size // 2)[:, None] - scale * (np.arange(n) - n // 2)
        kernel = np.moveaxis(np.tensordot(np.sinc(band * apart), kernel, (1, axis)), 0, axis)
    return kernel.clip(min=0.0)  # a sharp edge rings


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
    sizes = check_shape(shape, (2,))
    unknown = [name for name in fit if name not in ("defocus", "na")]
    if unknown or not fit or len(set(fit)) != len(fit):
        raise InputError(f"fit={tuple(fit)!r}; use 'defocus', 'na' or both, once each")
    told = {"defocus": check_number(defocus, "defocus"), "na": optics.na}
    if "defocus" in fit and defocus == 0:
        raise InputError(
            "defocus=0 has no range to be looked for in; tell about how far out of focus the plane is"
        )
    psf_models.best_focus(optics, particle_depth)  # refuses what the told na cannot see
    bounds = {name: _around(name, told[name], spread) for name in fit}
    if "na" in bounds:  # no light is steeper than the indices allow
        indices = [optics.ni, optics.ni0, optics.ng, optics.ng0]
        if particle_depth > 0:
            indices.append(optics.index_of_sample)
        lowest = min(n for n in indices if n is not None)
        steepest = max(0.99 * lowest, (optics.na + lowest) / 2)
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
    sizes = check_shape(shape, (2,))
    given = check_terms(terms)
    asked = [*fit]
    names = tuple(check_terms(dict.fromkeys(asked, 0.0)))
    if not 1 <= len(names) <= max(POINTS) or len(names) < len(asked):
        raise InputError(f"fit={tuple(fit)!r}; name one to {max(POINTS)} Zernike terms, once each")
    tilts = [name for name in names if orders(name)[0] == 1]
    if tilts:
        raise InputError(f"{tilts[0]} displaces the image, which its spectrum does not show; fit other terms")
    width = check_number(spread, "spread", above=0.0)
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


def _around(name: str, value: float, spread: float) -> tuple[float, float]:
    """The bounds of a parameter, which may be negative."""
    check_number(spread, "spread", above=1.0)  # the range is the told value divided and times it
    size = check_number(abs(check_number(value, name)), name, above=0.0)
    low, high = size / spread, size * spread
    return (low, high) if value > 0 else (-high, -low)
