"""Floor 0: the words every module shares, and the checks that raise errors a user can act on.

Axes are named by single letters, in the order in which an array stores them: ``t`` time, ``c`` channel,
``z``, ``y``, ``x`` space. Inside the package every tensor is ``batch channel *space`` (time is the batch);
`AxisLayout` goes there and back.
"""

from __future__ import annotations

import math
import numbers
import sys
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Shape = tuple[int, ...]
Pads = tuple[tuple[int, int], ...]  # before and after, per spatial axis

SPACE = "zyx"
AXES = "tc" + SPACE
HELD = (1e-36, 1e36)  # between which single precision, that of results, has all its digits
DECORATORS = ("contextlib", "torch.utils._contextlib")  # whose frames stand between a function and its caller


class InputError(ValueError):
    """A mistake in what the caller passed; the message says what was found, what was expected, what to do.

    The command line prints the message on one line and exits with status 2.
    """


class SelfinvWarning(UserWarning):
    """Something in the data deserves the user's attention but does not stop the work."""


def warn(words: str) -> None:
    """Warn in these words, if there are any, at the line of the caller's program that called this package."""
    if not words:
        return
    frame: FrameType | None = sys._getframe()
    depth, outside, inside = 1, 1, True
    while frame is not None:
        module = str(frame.f_globals.get("__name__"))
        inside = module.partition(".")[0] == "selfinv" or (inside and module in DECORATORS)
        if inside:
            outside = depth + 1
        frame, depth = frame.f_back, depth + 1
    warnings.warn(words, SelfinvWarning, stacklevel=outside)


@dataclass(frozen=True)
class AxisLayout:
    """How an array's axes map onto ``batch channel *space``.

    Parameters
    ----------
    axes
        One letter per axis of the array, for instance ``"zyx"`` or ``"tyxc"``. Made by `parse_axes`.
    """

    axes: str

    @property
    def spatial(self) -> str:
        """The spatial letters, in the order ``zyx``."""
        return "".join(a for a in SPACE if a in self.axes)

    def spatial_shape(self, shape: Sequence[int]) -> Shape:
        """The sizes of the spatial axes (in ``zyx`` order) of an array of this ``shape``."""
        return tuple(int(shape[self.axes.index(a)]) for a in self.spatial)

    def to_batch(self, array: Array) -> Array:
        """Rearrange an array with these axes to ``batch channel *space`` (a view where possible)."""
        inner = [a for a in "tc" if a in self.axes] + list(self.spatial)
        moved = np.transpose(array, [self.axes.index(a) for a in inner])
        shape = self.spatial_shape(array.shape)
        batch = array.shape[self.axes.index("t")] if "t" in self.axes else 1
        channels = array.shape[self.axes.index("c")] if "c" in self.axes else 1
        return moved.reshape(batch, channels, *shape)

    def from_batch(self, array: Array) -> Array:
        """Undo `to_batch`; the spatial sizes may differ from the original's."""
        inner = [a for a in "tc" if a in self.axes] + list(self.spatial)
        keep = [i for i, a in enumerate("tc") if a in self.axes] + list(range(2, array.ndim))
        squeezed = array.reshape([array.shape[i] for i in keep])
        return np.transpose(squeezed, [inner.index(a) for a in self.axes])


def spatial_index(slices: Iterable[slice]) -> tuple[Any, ...]:
    """An index that applies one slice to each trailing axis and leaves the others whole."""
    return (..., *slices)


def middle_of(shape: Sequence[int], most: Sequence[int]) -> tuple[slice, ...]:
    """The middle of an array, no longer than ``most`` along each axis.

    Examples
    --------
    >>> middle_of((10, 3), (4, 4))
    (slice(3, 7, None), slice(0, 4, None))
    """
    starts = [max(0, (n - m) // 2) for n, m in zip(shape, most, strict=True)]
    return tuple(slice(start, start + m) for start, m in zip(starts, most, strict=True))


def parse_axes(axes: str, ndim: int) -> AxisLayout:
    """Check an axis string against an array's number of axes.

    Raises
    ------
    InputError
        If a letter is unknown or repeated, if the count differs from ``ndim``, or if no ``x`` is there.
    """
    if not isinstance(axes, str):
        raise InputError(f"axes is a {type(axes).__name__}; give one letter per axis, e.g. 'zyx' or 'yxc'")
    letters = axes.strip().lower()
    unknown = [a for a in letters if a not in AXES]
    if unknown:
        raise InputError(
            f"axes={axes!r} has the unknown letter {unknown[0]!r}; "
            f"use t (time), c (channel), z, y, x, one letter per axis, e.g. 'zyx' or 'yxc'"
        )
    if len(set(letters)) != len(letters):
        raise InputError(f"axes={axes!r} names an axis twice; use each of t, c, z, y, x at most once")
    if len(letters) != ndim:
        raise InputError(
            f"axes={axes!r} names {len(letters)} axes but the image has {ndim}; give one letter per axis"
        )
    spatial = "".join(a for a in SPACE if a in letters)
    if spatial not in ("x", "yx", "zyx"):
        raise InputError(f"axes={axes!r} has the spatial axes {spatial!r}; expected 'x', 'yx' or 'zyx'")
    return AxisLayout(letters)


def guess_axes(shape: Sequence[int], spatial_ndim: int | None = None) -> str:
    """The axes of an array that came without names, where its shape leaves no doubt.

    Parameters
    ----------
    shape
        The array's shape.
    spatial_ndim
        The number of spatial axes if something else tells it (the PSF), else None.

    Raises
    ------
    InputError
        If the shape can be read in more than one way.

    Examples
    --------
    >>> guess_axes((512, 512)), guess_axes((512, 512, 3)), guess_axes((20, 64, 64), spatial_ndim=3)
    ('yx', 'yxc', 'zyx')
    """
    ndim = len(shape)
    if ndim == 0:
        raise InputError("the image is a single number; expected an array with the axes yx, zyx, ...")
    if ndim <= 2:  # whether the psf fits is another question
        return SPACE[-ndim:]
    if ndim == 3 and spatial_ndim == 3:
        return "zyx"
    if ndim == 3 and shape[-1] in (3, 4) and spatial_ndim in (None, 2) and min(shape[:2]) > 4:
        return "yxc"
    candidates = {3: "'zyx' (a volume), 'tyx' (a time series) or 'cyx' (channels)"}.get(ndim, "e.g. 'tzyx'")
    psf = f" and the psf has {spatial_ndim}" if spatial_ndim else ""
    raise InputError(
        f"the image has {ndim} axes {tuple(shape)}{psf}, which can be read in several ways; "
        f"say which with axes= (--axes), {candidates}"
    )


def check_image(image: Any, *, name: str = "image", allow_nan: bool = False) -> Array:
    """Return ``image`` as a real floating-point or integer array, or say what is wrong with it.

    Raises
    ------
    InputError
        If it is empty, complex, not numeric, or holds NaN or infinite values (unless ``allow_nan``).
    """
    array = as_array(image, name)
    if array.dtype == bool:
        array = array.astype(np.uint8)
    if array.dtype.kind == "c":
        raise InputError(f"{name} is complex ({array.dtype}); expected real intensities")
    if array.dtype.kind not in "uif":
        if array.ndim == 0:  # a path, None, or something that holds an array
            raise InputError(
                f"{name} is a {type(array.item()).__name__}; expected integers or floating point; a file is "
                f"read with selfinv.io.read(path).data"
            )
        raise InputError(f"{name} has the type {array.dtype}; expected integers or floating point")
    if array.size == 0:
        raise InputError(f"{name} is empty (shape {array.shape})")
    if array.dtype.kind == "f":
        infinite = int(np.isinf(array).sum())
        nan = int(np.isnan(array).sum())
        if infinite + nan and not allow_nan:
            raise InputError(
                f"{name} has {nan} NaN and {infinite} infinite values; "
                f"pass mask_nan=True (--mask-nan) to treat them as missing pixels"
            )
        if infinite + nan == array.size:
            raise InputError(f"{name} has no finite value at all; there is nothing to restore")
    return array


def as_array(values: Any, name: str = "image") -> Array:
    """NumPy's array of an array, or of a tensor on any device, differentiated or not.

    Raises
    ------
    InputError
        If NumPy masks values of it, if rows differ in length, or if NumPy lacks its type (bfloat16).
    """
    check_unmasked(values, name=name)
    detach = getattr(values, "detach", None)
    try:
        return np.asarray(values if detach is None else detach().resolve_conj().resolve_neg().cpu())
    except ValueError:
        raise InputError(
            f"{name}: a {type(values).__name__} with rows of different lengths is no array"
        ) from None
    except TypeError as error:
        raise InputError(f"{name}: a {type(values).__name__} that NumPy cannot hold ({error})") from None


def check_integer(value: Any, name: str, *, least: int, most: int | None = None) -> int:
    """An integer of Python's or NumPy's within these bounds, or `InputError`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise InputError(f"{name} must be an integer, got {shown(value)}")
    if int(value) < least:
        raise InputError(f"{name} must be at least {least}, got {value}")
    if most is not None and int(value) > most:
        raise InputError(f"{name} must be at most {most}, got {value}")
    return int(value)


def check_number(
    value: Any, name: str, *, least: float = -math.inf, above: float = -math.inf, most: float = math.inf
) -> float:
    """A finite number of Python's, NumPy's or torch's within these bounds, or `InputError`."""
    if getattr(value, "ndim", None) == 0:
        value = value.item()
    try:
        number = float(value) if isinstance(value, numbers.Real) and not isinstance(value, bool) else math.nan
    except OverflowError:
        number = math.inf
    if not (math.isfinite(number) and number > above and least <= number <= most):
        if above == 0:
            expected = "a positive number"
        elif above > -math.inf:
            expected = f"a number above {above:g}"
        elif most < math.inf:
            expected = f"a number from {least:g} to {most:g}"
        else:
            expected = f"{least:g} or more" if least > -math.inf else "a finite number"
        raise InputError(f"{name} must be {expected}, got {shown(value)}")
    return number


def check_shape(shape: Any, ndims: Sequence[int] | None = None) -> Shape:
    """The sizes of axes, positive integers, as a tuple of one of the ``ndims`` lengths, or `InputError`."""
    try:
        given = tuple(shape)
        sizes = tuple(int(n) for n in given)
        good = sizes == given and all(n >= 1 for n in sizes)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # the last one is torch's
        good = False
    if not good:
        raise InputError(
            f"shape={shown(shape)} is no shape; expected whole numbers, 1 or more, one for each axis"
        )
    if ndims is not None and len(sizes) not in ndims:
        expected = " or ".join(f"{n} ({SPACE[-n:]})" for n in ndims)
        raise InputError(f"shape={sizes} has {len(sizes)} axes; expected {expected}")
    return sizes


def check_flag(value: Any, name: str) -> bool:
    """True or False, of Python or NumPy, or `InputError`."""
    if not isinstance(value, bool | np.bool_):
        raise InputError(f"{name} must be True or False, got {shown(value)}")
    return bool(value)


def shown(value: Any) -> str:
    """A value as it reads in a message: on one line, and not too long."""
    words = " ".join(repr(value).split())
    return words if len(words) <= 80 else words[:79] + "…"


def check_unmasked(image: Any, *, name: str = "image") -> None:
    """Raise `InputError` if NumPy masks values of it, which arithmetic would take for measured ones."""
    count = int(np.ma.count_masked(image)) if isinstance(image, np.ma.MaskedArray) else 0
    if count:
        advice = "pass image.filled(numpy.nan) and mask_nan=True" if name == "image" else "fill them in"
        raise InputError(f"{name} is a masked array with {count} masked values; {advice}")


def check_contrast(array: Array) -> None:
    """Raise `InputError` if all finite values are the same."""
    finite = array[np.isfinite(array)]
    if finite.min() == finite.max():
        raise InputError(
            f"the image is constant (every value is {finite.min():g}); there is nothing to restore"
        )


def check_held(image: Any) -> None:
    """Raise `InputError` if single precision does not hold the largest of the finite values."""
    array = as_array(image)
    finite = array[np.isfinite(array)]
    largest = max(abs(float(finite.min())), abs(float(finite.max()))) if finite.size else 0.0
    if largest and not HELD[0] < largest < HELD[1]:
        raise InputError(
            f"the image's largest value is {largest:.3g}; use a unit in which it lies between {HELD[0]:g} "
            f"and {HELD[1]:g}, which single precision holds"
        )


def same_layout(axes: str, ndim: int) -> str:
    """The axes of another image like one with these ``axes``, with or without the time axis."""
    if len(axes) != ndim and len(axes.replace("t", "")) == ndim:
        return axes.replace("t", "")
    if len(axes) + 1 == ndim and "t" not in axes:
        return "t" + axes
    return axes
