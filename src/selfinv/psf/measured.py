"""A PSF from the image of a small bead, or from a file in another pixel size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.interpolate import make_interp_spline

from selfinv.psf.checks import per_axis
from selfinv.types import Array, Floats, InputError, Shape, as_array, check_image, check_number, check_shape

_SHIFT_FLOOR = 1e-3  # pixels: below this, interpolating costs more than it mends
_BRIGHT = 0.1  # of the peak: what belongs to the bead's core
_OUTSTANDING = 1.2  # times the brightest of as many independent values: 1 % of images of noise have it
_ROUNDING = 0.01  # of the image's range: background told that much too high is one of few digits
_PAD = 8  # pixels of nothing around the array, in which the spline settles


@dataclass(frozen=True)
class MeasuredPSF:
    """A PSF from an image, and what was done to get it.

    Parameters
    ----------
    psf
        Array with the axes ``z y x``, centre at ``n // 2``, sum 1 unless ``normalise=False``.
    shift
        By how many pixels of the given image the bead lay from ``n // 2`` along each axis; undone in ``psf``
        unless ``centre=False``.
    background
        The constant that was subtracted, in the given image's units.
    noise
        Standard deviation of the noise where the bead is dark, same units; 0 if the image has none.
    voxel_size
        Voxel size of ``psf`` per axis in µm, or None if none was given.
    warnings
        What a user should know, one sentence each.
    """

    psf: Floats
    shift: tuple[float, ...]
    background: float
    noise: float
    voxel_size: tuple[float, ...] | None
    warnings: tuple[str, ...]


def from_bead(
    image: Any,
    *,
    voxel_size: float | Sequence[float] | None = None,
    target_voxel_size: float | Sequence[float] | None = None,
    shape: Sequence[int] | None = None,
    background: float | Literal["auto"] = "auto",
    centre: bool = True,
    normalise: bool = True,
) -> MeasuredPSF:
    """Make a PSF from the image of one bead: background off, centred, resampled, cropped, normalised.

    Pixels are taken as averages over their area, before and after resampling, so coarsening does not alias
    and flux is kept. Where the image is noisy, pixels that do not stand out of the noise become 0,
    for their sum would be a false pedestal. An image that has no background, no noise and is
    centred is only normalised.

    Parameters
    ----------
    image
        Array with one to three axes in the order ``z y x``.
    voxel_size
        Its voxel size in µm: one number or one per axis.
    target_voxel_size
        The voxel size of the image to be restored; by default ``voxel_size``.
    shape
        Size of the result in its own voxels, cropped or padded with 0 about the centre; by default the given
        image's extent (made odd if it is resampled).
    background
        The constant to subtract, or ``"auto"`` to find the level to which the image's border falls.
    centre
        Move the bead's centroid to ``n // 2``. Set it to False for a PSF whose asymmetry is meant.
    normalise
        Divide by the sum.

    Raises
    ------
    InputError
        If the image is not numeric, finite and one- to three-dimensional, if nothing stands above the
        background or out of the noise, if a told background is above all surroundings, if none of the light
        falls inside ``shape``, if a size is not positive, or if ``target_voxel_size`` comes without
        ``voxel_size``.

    Examples
    --------
    >>> import numpy as np
    >>> spot = np.zeros((9, 9))
    >>> spot[3:6, 4:7] = 5
    >>> bead = from_bead(100 + spot)
    >>> bead.background, tuple(round(s, 3) for s in bead.shift)
    (100.0, (0.0, 1.0))
    """
    given = check_image(image, name="bead image", allow_nan=True)
    data = given.astype(np.float64)
    if bad := int((~np.isfinite(data)).sum()):
        raise InputError(
            f"bead image has {bad} values that are NaN or infinite; crop the image around the bead, or fill "
            f"them in"
        )
    if not 1 <= data.ndim <= 3:
        raise InputError(f"bead image has {data.ndim} axes; expected 1 to 3 (zyx)")
    voxel, target = _voxel_sizes(voxel_size, target_voxel_size, data.ndim)
    level = _background(data) if background == "auto" else check_number(background, "background")
    warnings = _saturation(given)
    data -= level
    noise = _noise(data)
    smooth = ndimage.gaussian_filter(data, 1.0, mode="nearest") if noise else data
    peak = smooth.max()
    if not peak > 0:
        raise InputError(
            f"nothing in the bead image is above its background of {level:.6g}; pass a lower one, "
            f"background= (--background)"
        )
    border = data[_border(data.shape)]
    if border.mean() + 3 * border.std() < -_ROUNDING * np.ptp(data):
        raise InputError(
            f"the background of {level:.6g} is above all that surrounds the bead, on "
            f"average {border.mean() + level:.6g}; pass a lower one, background= (--background), or 'auto'"
        )
    if noise and peak < 10 * noise:
        if not _stands_out(data):
            raise InputError(
                f"no bead can be told from the noise: the brightest spot is {peak / noise:.1f} times it, as "
                f"noise alone would be; average several images of a bead, or take a brighter one"
            )
        warnings.append(
            f"the bead's peak is only {peak / noise:.1f} times the noise; "
            "average several beads for a better PSF"
        )
    core, others = _core(smooth)
    if others:
        warnings.append("there is a second bright object in the bead image; crop the image around one bead")

    shift = _centroid(data, core) - np.array([n // 2 for n in data.shape])
    shift[np.abs(shift) < _SHIFT_FLOOR] = 0
    if np.abs(shift / data.shape).max() > 0.25:
        warnings.append("the bead lies near the image's edge, so one side of the PSF is missing")

    clean = _without_noise(data, smooth, core, noise)
    ratio = np.divide(target, voxel)
    if shape is None:
        sizes: Shape = tuple(
            n if r == 1 else max(1, 2 * round((n / r - 1) / 2) + 1)
            for n, r in zip(data.shape, ratio, strict=True)
        )
    else:
        sizes = check_shape(shape, (data.ndim,))
    psf = _resample(clean, shift if centre else np.zeros(data.ndim), ratio, sizes)
    kept = psf.sum() / clean.sum()
    if not kept > 0:
        raise InputError(
            f"none of the bead's light falls inside the result's {sizes} pixels about its centre; centre the "
            f"bead (centre=True, --centre), or make the result larger"
        )
    if kept < 0.98:
        warnings.append(f"only {kept:.0%} of the bead's light falls inside the result's {sizes} pixels")
    if normalise:
        psf = psf / psf.sum()
    moved = tuple(float(s) for s in shift)
    known = target if voxel_size is not None else None
    return MeasuredPSF(psf, moved, level, noise, known, tuple(warnings))


def _voxel_sizes(
    voxel_size: float | Sequence[float] | None, target: float | Sequence[float] | None, ndim: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if voxel_size is None:
        if target is not None:
            raise InputError(
                "target_voxel_size was given without voxel_size, the bead image's own; pass both, in µm"
            )
        return (1.0,) * ndim, (1.0,) * ndim
    voxel = per_axis("voxel_size", voxel_size, ndim)
    return voxel, voxel if target is None else per_axis("target_voxel_size", target, ndim)


def _border(shape: Shape) -> npt.NDArray[np.bool_]:
    inside = np.ones(shape, bool)
    for axis, n in enumerate(shape):
        thick = max(1, n // 8)
        index = np.arange(n).reshape([-1 if i == axis else 1 for i in range(len(shape))])
        inside &= (index >= thick) & (index < n - thick)
    return ~inside


def _background(data: Floats) -> float:
    """The level of the border's darkest blocks, or 0 where the border is still falling towards 0.

    A widefield bead's defocused light brightens most of the border, so its median is too high; its minimum is
    too low where there is noise.
    """
    border = _border(data.shape)
    if _noise_free(data, border):
        # Light adds to the background, so without noise the darkest pixel bounds it; a PSF's own skirts are
        # darker than any camera's offset.
        floor = float(data[border].min())
        return floor if floor > 1e-3 * data.max() and not _still_falling(data, border, floor) else 0.0
    block = [max(1, n // 8) for n in data.shape]
    number = np.zeros(data.shape, np.int64)
    for axis, (n, size) in enumerate(zip(data.shape, block, strict=True)):
        index = np.arange(n).reshape([-1 if i == axis else 1 for i in range(data.ndim)])
        number = number * (n // size + 1) + index // size
    order = np.argsort(number[border], kind="stable")
    values = data[border][order]
    starts = np.flatnonzero(np.diff(number[border][order], prepend=-1))
    blocks = [part for part in np.split(values, starts[1:]) if len(part) >= 2] or [values]
    medians = np.array([np.median(part) for part in blocks])
    spread = np.array([1.4826 * np.median(np.abs(part - np.median(part))) for part in blocks])
    error = 1.25 * spread / np.sqrt([len(part) for part in blocks])
    darkest = medians.argmin()
    floor = float(
        np.median(
            np.concatenate(
                [
                    part
                    for part, m in zip(blocks, medians, strict=True)
                    if m <= medians[darkest] + 4 * error.max()
                ]
            )
        )
    )
    if floor <= 0:
        return floor if (values < 0).any() else 0.0
    return 0.0 if _still_falling(data, border, floor) else floor


def _still_falling(data: Floats, border: npt.NDArray[np.bool_], floor: float) -> bool:
    """Whether the border looks like a PSF's own skirt: no constant is left of it far away."""
    peak = np.unravel_index(data.argmax(), data.shape)
    square = sum(
        ((x - float(p)) ** 2 for x, p in zip(np.nonzero(border), peak, strict=True)), start=np.zeros(1)
    )
    order = np.argsort(square)
    rings = [ring for ring in np.array_split(order, 10) if len(ring)]
    level = np.array([np.median(data[border][ring]) for ring in rings])
    # Light spreads over a surface, so skirts fall as 1/r² or faster: the intercept at 1/r² = 0 is what stays.
    closeness = np.array([np.mean(1 / np.maximum(square[ring], 1)) for ring in rings])
    constant = np.polynomial.Polynomial.fit(closeness, level, 1)(0.0)
    return bool(constant < floor / 2)


def _noise_free(data: Floats, border: npt.NDArray[np.bool_]) -> bool:
    """Whether the border is smooth along some axis; white noise changes as much over 1 pixel as over 2."""
    for axis in range(data.ndim):
        values, inside = np.moveaxis(data, axis, 0), np.moveaxis(border, axis, 0)
        over_one = np.median(np.abs(values[1:] - values[:-1])[inside[1:]])
        over_two = np.median(np.abs(values[2:] - values[:-2])[inside[2:]]) if len(values) > 2 else 0.0
        if over_one <= 0.75 * over_two or over_one == 0:
            return True
    return False


def _noise(data: Floats) -> float:
    """Standard deviation from the border's negative side: light is positive, so what is below 0 is noise."""
    values = data[_border(data.shape)]
    negative = values[values < 0]
    if len(negative) < 3:
        return 0.0
    return float(1.4826 * np.median(-negative))


def _stands_out(data: Floats) -> bool:
    """Whether anything is brighter than the brightest of as many values of noise alone would be.

    Of the smoothed image, whose noise is like a Gaussian's whatever that of a pixel. Outside there is
    nothing: repeating the edge would repeat its noise.
    """
    border = _border(data.shape)
    smooth = ndimage.gaussian_filter(data - np.median(data[border]), 1.0, mode="constant")
    deviation = 1.4826 * np.median(np.abs(smooth[border]))
    return bool(smooth.max() > _OUTSTANDING * np.sqrt(2 * np.log(data.size)) * deviation)


def _saturation(image: npt.NDArray[Any]) -> list[str]:
    if image.dtype.kind not in "ui":
        return []
    count = int((image == image.max()).sum())
    if count < 4:
        return []
    return [f"{count} pixels share the maximum {image.max()}; the bead is probably saturated"]


def _core(smooth: Floats) -> tuple[npt.NDArray[np.bool_], bool]:
    """The bright pixels around the peak, and whether there are others as bright elsewhere."""
    bright = smooth > _BRIGHT * smooth.max()
    # Bridging two pixels keeps a ring and its bright centre together.
    labels, _ = ndimage.label(ndimage.binary_dilation(bright, iterations=2))
    own = labels[np.unravel_index(smooth.argmax(), smooth.shape)]
    core = bright & (labels == own)
    return core, bool((smooth[labels != own] > 0.3 * smooth.max()).any())


def _centroid(data: Floats, core: npt.NDArray[np.bool_]) -> Floats:
    """The centroid under a Gaussian window that is centred on the centroid itself.

    A fixed window would pull the centroid towards its own centre; one that follows does not, and what the
    background leaves behind cancels in it.
    """
    points = np.array(np.nonzero(core), dtype=np.float64)
    weight = data[core] / data[core].sum()
    position = points @ weight
    # As wide as the bead: this is the matched filter, which noise disturbs least.
    width = np.sqrt(np.maximum((points - position[:, None]) ** 2 @ weight, 0.5))
    axes = [np.arange(n, dtype=np.float64) for n in data.shape]
    for _ in range(100):
        windowed = data
        for axis, grid in enumerate(axes):
            window = np.exp(-0.5 * ((grid - position[axis]) / width[axis]) ** 2)
            windowed = windowed * window.reshape([-1 if i == axis else 1 for i in range(data.ndim)])
        total = windowed.sum()
        if not total > 0:
            break
        others = [tuple(i for i in range(data.ndim) if i != axis) for axis in range(data.ndim)]
        new = np.array([grid @ windowed.sum(axis=o) for grid, o in zip(axes, others, strict=True)]) / total
        new = np.clip(new, 0, np.array(data.shape) - 1)
        step = np.abs(new - position).max()
        position = new
        if step < 1e-7:
            break
    return position


def _without_noise(data: Floats, smooth: Floats, core: npt.NDArray[np.bool_], noise: float) -> Floats:
    """The bead where it stands out of the noise, its skirts smoothed, and 0 elsewhere."""
    if not noise:
        return data
    # A Gaussian filter of one pixel divides white noise by (4π)^(1/4) for each axis.
    smooth_noise = noise / (4 * np.pi) ** (data.ndim / 4)
    labels, _ = ndimage.label((smooth > 4 * smooth_noise) | core)
    own = labels[core]
    support = ndimage.binary_dilation(np.isin(labels, own[own > 0]))
    # Clipping noise at 0 would brighten the skirts, so they are smoothed first, the fainter the more,
    # by a kernel without second moment (2G - G∗G), which leaves the width as it is.
    faint = 2 * smooth - ndimage.gaussian_filter(smooth, 1.0, mode="nearest")
    trust = faint**2 / (faint**2 + noise**2)
    return np.where(support, np.maximum(faint + trust * (data - faint), 0), 0)


def _resample(data: Floats, shift: Floats, ratio: Floats, sizes: Shape) -> Floats:
    """Pixel averages about ``n // 2 + shift``, in pixels ``ratio`` times as large.

    Along each axis the running sum over pixels is the integral of the light up to a pixel's edge, known
    without error; a spline through it, differenced at the new edges, keeps flux and averages over the new
    pixels.
    """
    out = data
    for axis, (n, size) in enumerate(zip(data.shape, sizes, strict=True)):
        out = np.moveaxis(out, axis, 0)
        if shift[axis] == 0 and ratio[axis] == 1:
            out = _crop(out, size)
        else:
            padded = np.pad(out, [(_PAD, _PAD)] + [(0, 0)] * (out.ndim - 1))
            running = np.concatenate([np.zeros_like(padded[:1]), np.cumsum(padded, axis=0)])
            edges = np.arange(len(running)) - 0.5 - _PAD
            spline = make_interp_spline(edges, running, k=5, axis=0)
            wanted = n // 2 + shift[axis] + (np.arange(size + 1) - 0.5 - size // 2) * ratio[axis]
            out = np.diff(spline(np.clip(wanted, edges[0], edges[-1])), axis=0)
        out = np.moveaxis(out, 0, axis)
    if data.min() >= 0 and out.min() < 0:
        # The spline undershoots beside sharp edges; clip that, and keep the flux.
        total = out.sum()
        out = np.maximum(out, 0)
        out *= total / out.sum()
    return out


def _crop(data: Floats, size: int) -> Floats:
    """Crop or pad axis 0 so that ``n // 2`` goes to ``size // 2``."""
    first = len(data) // 2 - size // 2
    before, after = max(0, -first), max(0, first + size - len(data))
    padded = np.pad(data, [(before, after)] + [(0, 0)] * (data.ndim - 1))
    return padded[first + before : first + before + size]


def values_of(psf: Any) -> Array | None:
    """The array of a PSF that is given as one or as a `MeasuredPSF`; None for none."""
    return None if psf is None else as_array(psf.psf if isinstance(psf, MeasuredPSF) else psf, "psf")
