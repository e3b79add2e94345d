"""An image as it is kept in a file, and what a file format has to offer."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from selfinv.types import Array, InputError, Shape, warn

Metadata = dict[str, Any]


@dataclass(frozen=True)
class Image:
    """An array with the names of its axes, its voxel sizes and what else its file said.

    Parameters
    ----------
    data
        The values, in storage order and native byte order.
    axes
        One letter of ``tczyx`` per axis of ``data``, in storage order; None where nothing names them.
    voxel_size
        Micrometres per spatial axis letter, only where known, e.g. ``{"z": 0.3, "y": 0.1, "x": 0.1}``.
    metadata
        Carried over to the output: ``"channel_names"`` (list), ``"time_interval"`` (seconds), ``"imagej"``
        (ImageJ's own tags), ``"ome"`` (OME-TIFF's name and date, and its channels' light), ``"fits_header"``
        (text) and ``"fits_source"`` (where what is beside it in a FITS file is), each only where known; and
        ``"history"``, what was done to it in a line, which FITS keeps.

    Examples
    --------
    >>> Image(np.zeros((5, 6)), "yx", {"y": 0.1, "x": 0.1}).axes
    'yx'
    """

    data: Array
    axes: str | None = None
    voxel_size: dict[str, float] = field(default_factory=dict)
    metadata: Metadata = field(default_factory=dict)


@dataclass(frozen=True)
class Format:
    """A file format: how to recognise, read and write it, and what it cannot hold.

    ``check(path, dtype, shape, axes)`` raises `InputError` for what ``write`` could not store; None stands
    for what is not known yet.
    """

    name: str
    suffixes: tuple[str, ...]
    magic: tuple[bytes, ...]
    read: Callable[[Path], Image]
    write: Callable[[Path, Image], None]
    check: Callable[[Path, np.dtype[Any] | None, Shape | None, str | None], None]


_MICROMETRES = {
    **dict.fromkeys(("µm", "um", "micron", "microns", "micrometer", "micrometre"), 1.0),
    **dict.fromkeys(("nm", "nanometer", "nanometre"), 1e-3),
    **dict.fromkeys(("mm", "millimeter", "millimetre"), 1e3),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), 1e4),
    **dict.fromkeys(("in", "inch", "inches"), 25400.0),
    **dict.fromkeys(("å", "angstrom"), 1e-4),
    **dict.fromkeys(("pm", "picometer", "picometre"), 1e-6),
    **dict.fromkeys(("m", "meter", "metre"), 1e6),
}
SECONDS = {
    **dict.fromkeys(("s", "second"), 1.0),
    **dict.fromkeys(("ms", "millisecond"), 1e-3),
    **dict.fromkeys(("µs", "microsecond"), 1e-6),
    **dict.fromkeys(("ns", "nanosecond"), 1e-9),
    **dict.fromkeys(("min", "minute"), 60.0),
    **dict.fromkeys(("h", "hour"), 3600.0),
    **dict.fromkeys(("d", "day"), 86400.0),
}


def micrometres(size: Any, unit: Any) -> float | None:
    """``size`` in µm; None where the unit is no length ("pixel") or the size no positive number."""
    # ImageJ escapes the micro sign, and some programs write the Greek letter in its place.
    name = str(unit).replace("\\u00B5", "µ").replace("\u03bc", "µ").strip().lower()
    try:
        value = abs(float(size)) * _MICROMETRES[name]
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return value if 0 < value < math.inf else None


def drop_alpha(data: Array, axis: int, path: Path) -> Array:
    """Remove the last entry of the channel ``axis``, an alpha channel, with a word."""
    alpha = np.take(data, -1, axis)
    opaque = np.iinfo(data.dtype).max if data.dtype.kind in "ui" else 1
    transparent = bool((alpha != opaque).any())
    found = (
        "transparent pixels; transparency is ignored" if transparent else "an opaque alpha channel; left out"
    )
    warn(f"{path} has {found}")
    colour = np.take(data, range(data.shape[axis] - 1), axis)
    return colour.squeeze(axis) if colour.shape[axis] == 1 else colour


def numeric(data: Array, name: str) -> Array:
    """``data`` in native byte order; raise `InputError` unless it is a non-empty array of real numbers."""
    return np.ascontiguousarray(data, dtype=numeric_type(data.dtype, data.shape, name))


def numeric_type(dtype: np.dtype[Any], shape: Shape, name: str) -> np.dtype[Any]:
    """The native type of an image stored as ``dtype``, truth values being 0 and 1; as strict as `numeric`."""
    if dtype.kind == "b":
        dtype = np.dtype(np.uint8)
    elif dtype.kind == "c":
        raise InputError(f"{name} is complex ({dtype}); expected real intensities, e.g. the magnitude")
    if dtype.kind not in "uif" or dtype.itemsize > 8:
        raise InputError(f"{name} has the type {dtype}; expected integers or floats of 8 to 64 bits")
    if 0 in shape or not shape:
        raise InputError(f"{name} is empty or a single number (shape {shape}); expected an image")
    return dtype.newbyteorder("=")
