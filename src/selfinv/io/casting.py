"""Changing the type of pixel values without changing what they say."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from selfinv.types import Array, InputError


def as_dtype(dtype: npt.DTypeLike) -> np.dtype[Any]:
    """The pixel type of this name; raise `InputError` if there is none."""
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = np.dtype(object)
    if found.kind not in "uif" or found.itemsize > 8:
        raise InputError(
            f"unknown pixel type {str(dtype)!r}; use uint8, uint16, uint32, uint64, "
            f"int8, int16, int32, int64, float16, float32 or float64"
        )
    return found.newbyteorder("=")


def _rounded(array: Array, dtype: np.dtype[Any]) -> Array:
    if array.dtype.kind not in "uifb":
        raise InputError(f"cannot write {array.dtype} values as {dtype}; expected real numbers")
    if array.dtype.kind != "f" or dtype.kind == "f":
        return array
    # float16 cannot hold the limits of the wider integers.
    return np.rint(array, dtype=np.promote_types(array.dtype, np.float32))


def _below_above(values: Array, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """Where ``values`` lie below and above the range of ``dtype``; infinities are inside a float's."""
    if dtype.kind != "f":
        info = np.iinfo(dtype)
        # max + 1 is a power of two, so exact as a float, while max itself is not (int64).
        upper: int | float = int(info.max) + 1
        if values.dtype.kind == "f":
            upper = float(upper)
        return values < int(info.min), values >= upper
    if values.dtype.kind == "f" and values.dtype.itemsize <= dtype.itemsize:
        nowhere = np.zeros(values.shape, bool)
        return nowhere, nowhere
    with np.errstate(over="ignore"):
        lost = np.isinf(values.astype(dtype)) & np.isfinite(values)
    return lost & (values < 0), lost & (values > 0)


def count_outside(array: Array, dtype: npt.DTypeLike) -> int:
    """How many values, NaN included, ``dtype`` cannot hold: those that `cast` with ``clip=True`` changes.

    Raises
    ------
    InputError
        If ``dtype`` is no pixel type or the array is not real.

    Examples
    --------
    >>> count_outside(np.array([-0.4, 3.6, 255.7, np.nan]), "uint8")
    2
    """
    target = as_dtype(dtype)
    values = _rounded(array, target)
    below, above = _below_above(values, target)
    nan = int(np.isnan(values).sum()) if target.kind != "f" and values.dtype.kind == "f" else 0
    return int(below.sum()) + int(above.sum()) + nan


def cast(array: Array, dtype: npt.DTypeLike, clip: bool = False) -> Array:
    """``array`` as ``dtype``, same shape: rounded to the nearest integer where the type asks for integers.

    With ``clip``, values outside the range become the nearest value inside it, and NaN becomes 0.

    Raises
    ------
    InputError
        If a value does not fit and ``clip`` is False, if ``dtype`` is no pixel type, or if the array is not
        real.

    Examples
    --------
    >>> cast(np.array([0.2, 3.6]), "uint8")
    array([0, 4], dtype=uint8)
    >>> cast(np.array([-7.0, 300.0]), "uint8", clip=True)
    array([  0, 255], dtype=uint8)
    """
    target = as_dtype(dtype)
    if array.dtype == target:
        return array
    values = _rounded(array, target)
    below, above = _below_above(values, target)
    nan = np.isnan(values) if target.kind != "f" and values.dtype.kind == "f" else np.zeros((), bool)
    if not (below.any() or above.any() or nan.any()):
        return values.astype(target)
    info = np.finfo(target) if target.kind == "f" else np.iinfo(target)
    if not clip:
        raise InputError(_misfit(array, target, info.min, info.max, int(nan.sum())))
    result = np.where(below | above | nan, 0, values).astype(target)
    result[below] = info.min
    result[above] = info.max
    return result


def _misfit(array: Array, dtype: np.dtype[Any], low: Any, high: Any, nan: int) -> str:
    number = "d" if array.dtype.kind in "ui" else ".6g"
    found = "all values are NaN"
    if nan < array.size:
        found = f"values from {np.nanmin(array):{number}} to {np.nanmax(array):{number}}"
        found += f" and {nan} NaN" if nan else ""
    limits = f"{low:.6g} to {high:.6g}" if dtype.kind == "f" else f"{low} to {high}"
    wide = "float64" if dtype.name == "float32" else "float32"
    return f"{found} do not fit {dtype} ({limits}); write {wide} (--dtype {wide}) or pass --clip to clip them"
