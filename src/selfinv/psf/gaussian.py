"""Gaussian point-spread functions, in one to three dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import erf

from selfinv.psf.checks import per_axis
from selfinv.types import InputError, check_shape

# ±4 standard deviations hold all but 6e-5 of the energy along an axis.
_REACH = 4.0


def gaussian(
    sigma: float | Sequence[float],
    shape: Sequence[int] | None = None,
    *,
    pixel_size: float | Sequence[float] = 1.0,
    integrate: bool = True,
) -> npt.NDArray[np.float64]:
    r"""A Gaussian PSF, :math:`h(r) \propto \prod_i \exp(-r_i^2 / 2\sigma_i^2)`.

    Parameters
    ----------
    sigma
        Standard deviation in the unit of ``pixel_size``: one number, or one per axis in the order ``z y x``.
    shape
        Size in pixels along each axis; by default odd sizes that reach ``±4 sigma``, one axis per ``sigma``.
    pixel_size
        Distance between pixels, one number or one per axis. With the default, 1, ``sigma`` is in pixels.
    integrate
        Average over each pixel's area, as a camera does, instead of sampling at its centre. This widens the
        variance by ``pixel_size**2 / 12``.

    Returns
    -------
    Array of ``shape``, centre at ``n // 2``, sum 1.

    Raises
    ------
    InputError
        If a length is not positive, or if the number of axes is missing, contradictory or not 1 to 3.

    Examples
    --------
    >>> gaussian((2.0, 1.0, 1.0)).shape
    (17, 9, 9)
    >>> gaussian(0.25, (15, 15), pixel_size=0.1).argmax() == 7 * 15 + 7
    np.True_
    """
    ndim = _count_axes(sigma, shape, pixel_size)
    widths = [
        s / p
        for s, p in zip(per_axis("sigma", sigma, ndim), per_axis("pixel_size", pixel_size, ndim), strict=True)
    ]
    if shape is None:
        shape = [2 * math.ceil(_REACH * width) + 1 for width in widths]
    sizes = check_shape(shape, (1, 2, 3))
    psf = np.ones((1,) * ndim)
    for axis, (n, width) in enumerate(zip(sizes, widths, strict=True)):
        profile = _profile(n, width, integrate)
        psf = psf * profile.reshape([-1 if i == axis else 1 for i in range(ndim)])
    return psf


def _profile(n: int, width: float, integrate: bool) -> npt.NDArray[np.float64]:
    offset = np.arange(n) - n // 2
    if integrate:
        edges = (np.append(offset, offset[-1] + 1) - 0.5) / (math.sqrt(2) * width)
        profile = np.diff(erf(edges))
    else:
        profile = np.exp(-0.5 * (offset / width) ** 2)
    return profile / profile.sum()


def _count_axes(
    sigma: float | Sequence[float], shape: Sequence[int] | None, pixel_size: float | Sequence[float]
) -> int:
    if shape is not None:
        if np.ndim(shape) != 1:
            raise InputError(f"shape is {shape!r}; expected sizes like (17, 17), after sigma")
        return len(shape)
    counts = {np.size(value) for value in (sigma, pixel_size) if np.ndim(value)}
    if len(counts) != 1:
        raise InputError(
            "the number of axes of the psf is unknown: "
            "pass shape=(ny, nx) or (nz, ny, nx), or one sigma per axis"
        )
    return int(counts.pop())
