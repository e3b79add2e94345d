"""What can be wrong with a PSF: errors for what cannot work, words for what probably is not meant."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from selfinv.types import SPACE, Floats, InputError, as_array, check_number, spatial_index

_NEGATIVE = 0.01  # of the maximum: beyond this it is not rounding or interpolation
_CUT = 0.05  # of the maximum, at the array's edge
_OUTERMOST = 0.1  # of the sum, on all faces together
_PEDESTAL = 0.2  # of the energy, in a constant under the whole array
_FLAT_PEDESTAL, _FLAT = 0.05, 2.0  # the same where the edge is flat: its highest value over its lowest
_TOWERING = 4.0  # times the edge: the inner part of a defocused disc has no such peak
_FALLING = 1.2  # times as much an eighth of the way to the middle
_ALIKE = 0.01  # of the maximum
_FAR = 1.0  # pixels: an even-sized PSF is often centred at (n - 1) / 2, half a pixel off
_NYQUIST = 0.5  # of the OTF's value at 0
_EMPTY = 0.02  # of the array's pixels that hold anything


def check_psf(psf: Any, spatial_ndim: int, image_shape: Sequence[int] | None = None) -> tuple[str, ...]:
    """Refuse a PSF that cannot be used, and say in words what looks wrong with one that can.

    Parameters
    ----------
    psf
        Array with ``spatial_ndim`` axes in the order ``z y x``, centre at ``n // 2``.
    spatial_ndim
        The number of the image's spatial axes.
    image_shape
        The image's size along its spatial axes, if known.

    Returns
    -------
    Warnings, one sentence each; empty if nothing looks wrong.

    Raises
    ------
    InputError
        If the PSF is not numeric and finite, has the wrong number of axes, has notably negative values
        (below -1 % of its maximum) or does not have a positive sum.

    Examples
    --------
    >>> import numpy as np
    >>> check_psf(np.outer([1, 2, 1], [1, 2, 1]) / 16, spatial_ndim=2)
    ()
    """
    values = _numeric(psf)
    if values.ndim != spatial_ndim:
        raise InputError(_wrong_axes(values.ndim, spatial_ndim))
    peak = float(values.max())
    low = float(values.min())
    if low < -_NEGATIVE * peak:
        raise InputError(
            f"psf has negative values down to {low:.3g} (its maximum is {peak:.3g}), but light adds up; "
            f"subtract its background with 'selfinv psf measured', or clip it at 0 if the values are noise"
        )
    _positive_sum(values)
    warnings = []
    if low < 0:
        warnings.append(
            f"psf has slightly negative values (down to {low / peak:.1e} of its maximum), used as they are"
        )
    values = np.maximum(values, 0)
    checks = (_gain(values), _off_centre(values), _edge(values), _narrow(values), _size(values, image_shape))
    return (*warnings, *(warning for warning in checks if warning))


def normalise(psf: Any) -> Floats:
    """The PSF in float64, divided by its sum, so that restoration preserves flux.

    Raises
    ------
    InputError
        If it is not numeric and finite, or its sum is not positive.

    Examples
    --------
    >>> normalise([1, 2, 1]).tolist()
    [0.25, 0.5, 0.25]
    """
    values = _numeric(psf)
    return values / _positive_sum(values)


def per_axis(name: str, value: float | Sequence[float], ndim: int) -> tuple[float, ...]:
    """One positive number for each of ``ndim`` axes, or an `InputError`."""
    numbers = list(value) if isinstance(value, (Sequence, np.ndarray)) else [value] * ndim
    if len(numbers) != ndim:
        raise InputError(
            f"{name} has {len(numbers)} values but there are {ndim} axes ({SPACE[-ndim:]}); "
            f"pass one number, or one per axis in this order"
        )
    return tuple(check_number(number, name, above=0.0) for number in numbers)


def _numeric(psf: Any) -> Floats:
    array = as_array(psf, "psf")
    if array.dtype.kind not in "buif" or array.size == 0:
        raise InputError(f"psf is {array.dtype} of shape {array.shape}; expected an array of real numbers")
    values = array.astype(np.float64)
    if not np.isfinite(values).all():
        count = int((~np.isfinite(values)).sum())
        raise InputError(f"psf has {count} values that are NaN or infinite; crop them or fill them in")
    return values


def _positive_sum(values: Floats) -> float:
    if not values.any():
        raise InputError("psf is zero everywhere; was the right file or channel read?")
    with np.errstate(over="ignore"):
        total = float(values.sum())
    if not math.isfinite(total):
        raise InputError("psf sums to more than double precision holds; divide it by its maximum")
    if total <= 0:
        raise InputError(
            f"psf sums to {total:.3g}; expected a positive sum (is its background over-subtracted?)"
        )
    return total


def _wrong_axes(ndim: int, spatial_ndim: int) -> str:
    letters = SPACE[-spatial_ndim:]
    advice = f"pass a {spatial_ndim}-D psf"
    if (ndim, spatial_ndim) == (2, 3):
        advice += " or axes='cyx'"
    elif ndim > spatial_ndim:
        advice += f", for instance its plane in focus, or name the image's {ndim} spatial axes with axes="
    found = "1 axis" if ndim == 1 else f"{ndim} axes"
    spatial = "1 spatial axis" if spatial_ndim == 1 else f"{spatial_ndim} spatial axes"
    return f"psf has {found} but the image has {spatial} ({letters}); {advice}"


def _gain(values: Floats) -> str | None:
    # Counts and peaks scaled to 1 are how PSFs are stored; only a sum near 1 can have been meant as a gain.
    total = values.sum()
    if abs(total - 1) < 0.01 or not 0.5 < total < 2 or values.max() == 1:
        return None
    return (
        f"psf sums to {total:.3g}, not 1 (was it cropped, or is that a gain?); "
        f"it is normalised to 1, so that restoration keeps the flux"
    )


def _off_centre(values: Floats) -> str | None:
    """A PSF of any form is centred if its peak *or* its centroid is.

    A coma's centroid and a ring's peak are legitimately elsewhere.
    """
    middle = np.array([n // 2 for n in values.shape])
    if _corner_layout(values):
        return "psf has its centre in the corner (FFT order), not at n // 2; pass numpy.fft.fftshift(psf)"
    peak = np.array(np.unravel_index(values.argmax(), values.shape)) - middle
    # A background, or skirts that the array cuts unevenly, would drag the centroid of everything along.
    bright = np.where(values > 0.5 * values.max(), values, 0)
    centroid = np.array([_moment(bright, axis, 1) for axis in range(values.ndim)]) - middle
    if np.abs(peak).max() <= _FAR or np.abs(centroid).max() <= _FAR:
        return _half_a_sample(values)
    shift = ", ".join(f"{s:+.1f}" for s in centroid)
    return (
        f"psf is off-centre by ({shift}) pixels ({SPACE[-values.ndim :]}) from n // 2; unless the "
        f"blur itself is lopsided, the restored image will be displaced by as much the other way: "
        f"'selfinv psf measured' centres a PSF and reports its shift"
    )


def _half_a_sample(values: Floats) -> str | None:
    """Of even sizes, a symmetric PSF about the middle between two samples, not about ``n // 2``."""
    if np.ptp(values[values > 0]) < 1e-6 * values.max():
        return None  # a box means to be so wide
    even = [axis for axis, n in enumerate(values.shape) if n % 2 == 0]
    off = [axis for axis in even if np.allclose(values, np.flip(values, axis), atol=_ALIKE * values.max())]
    if not off:
        return None
    letters = ", ".join(SPACE[-values.ndim :][axis] for axis in off)
    return (
        f"psf {values.shape} is symmetric about the middle between two samples ({letters}), half a sample "
        f"before its centre, n // 2, so that the restored image will be displaced by as much: give it an odd "
        f"size"
    )


def _corner_layout(values: Floats) -> bool:
    """Whether the PSF is far more compact about index 0 of a periodic array than about ``n // 2``."""
    return min(values.shape) >= 4 and _spread(np.fft.fftshift(values)) < 0.15 * _spread(values)


def _spread(values: Floats) -> float:
    """The second moment about ``n // 2``."""
    return sum(
        _moment(values, axis, 2) - 2 * (n // 2) * _moment(values, axis, 1) + (n // 2) ** 2
        for axis, n in enumerate(values.shape)
    )


def _moment(values: Floats, axis: int, order: int) -> float:
    profile = values.sum(axis=tuple(i for i in range(values.ndim) if i != axis))
    return float(np.arange(len(profile)) ** order @ profile / profile.sum())


def _edge(values: Floats) -> str | None:
    """Background or energy at the edge, unless the kernel means to end there: one value, or 3 numbers."""
    wide = [axis for axis, n in enumerate(values.shape) if n > 3]
    filled = values[values > 0]
    if not wide or np.ptp(filled) < 1e-6 * values.max() or _corner_layout(values):
        return None
    faces = [np.take(values, (0, -1), axis=axis) for axis in wide]
    # The lowest values of the edge, not their median: the skirts of a defocused PSF reach its faces' middle.
    pedestal = np.quantile(np.concatenate([face.ravel() for face in faces]), 0.05)
    share = pedestal * values.size / values.sum()
    flat = len(wide) > 1 and max(face.max() for face in faces) < _FLAT * pedestal
    enough = _FLAT_PEDESTAL if flat else _PEDESTAL
    if min(values.shape) >= 8 and share > enough and not _falls_at_corners(values):
        if values.max() < _TOWERING * pedestal:
            return (
                f"psf is {pedestal / values.max():.0%} of its maximum or more all along its edge: if it is "
                f"cut off, compute or crop it larger; if it stands on a constant background, remove that "
                f"with 'selfinv psf measured'"
            )
        return (
            f"psf stands on a constant background that holds {share:.0%} of its sum; "
            f"remove it with 'selfinv psf measured', else the restored image loses its contrast"
        )
    worst = max(range(len(wide)), key=lambda i: faces[i].max())
    level = faces[worst].max() / values.max()
    inner = values[spatial_index(slice(1, -1) if n > 3 else slice(None) for n in values.shape)]
    outermost = 1.0 - inner.sum() / values.sum()
    if level > _CUT:
        letter = SPACE[-values.ndim :][wide[worst]]
        how = f"at the edge of its {letter} axis it is still {level:.0%} of its maximum"
    elif min(values.shape) >= 8 and outermost > _OUTERMOST:
        how = f"{outermost:.0%} of its sum lies on its outermost samples"
    else:
        return None
    return f"psf is cut off: {how}; compute or crop it larger, else the light beyond is not put back"


def _falls_at_corners(values: Floats) -> bool:
    """Whether light falls there, as that of a PSF which goes on does and a background does not.

    By the mean over blocks at the corners, an eighth of the array along each axis, and those inside of them.
    """
    steps = [n // 8 for n in values.shape]
    ends, inside = (
        np.mean([values[place].mean() for place in itertools.product(*sides)])
        for sides in (
            [(slice(0, step), slice(-step, None)) for step in steps],
            [(slice(step, 2 * step), slice(-2 * step, -step)) for step in steps],
        )
    )
    return bool(inside > _FALLING * ends)


def _narrow(values: Floats) -> str | None:
    otf = []
    for axis in range(values.ndim):
        profile = values.sum(axis=tuple(i for i in range(values.ndim) if i != axis))
        otf.append(abs(profile[0::2].sum() - profile[1::2].sum()) / profile.sum())
    # An axis that is not blurred at all (motion blur, planes restored one by one) is legitimate.
    if min(otf) <= _NYQUIST:
        return None
    return (
        f"psf is nearly a single pixel (its OTF is still {min(otf):.0%} at the Nyquist frequency), so there "
        f"is no blur to undo, only noise; check that its pixel size is the image's"
    )


def _size(values: Floats, image_shape: Sequence[int] | None) -> str | None:
    if image_shape is not None and any(n > m for n, m in zip(values.shape, image_shape, strict=True)):
        return (
            f"psf {values.shape} is larger than the image {tuple(image_shape)}; "
            f"crop it about its centre, or restore a larger field"
        )
    # The box about n // 2 that holds everything above 1e-4 of the maximum.
    box = []
    for axis, n in enumerate(values.shape):
        profile = values.max(axis=tuple(i for i in range(values.ndim) if i != axis))
        reach = np.abs(np.flatnonzero(profile > 1e-4 * values.max()) - n // 2).max()
        box.append(min(n, 2 * int(reach) + 1))
    if math.prod(box) >= _EMPTY * values.size:
        return None
    return (
        f"psf {values.shape} is almost all empty, which costs time and memory; "
        f"crop it to its inner {tuple(box)} pixels"
    )
