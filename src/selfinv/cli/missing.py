"""Pixels that are not to be used: marked by a mask, or saturated."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from selfinv.cli.console import say
from selfinv.types import Array, InputError

if TYPE_CHECKING:
    from selfinv.io import Image


MANY, MOST = 0.5, 0.9  # of the values: so many are hardly saturated, and surely not


def without(image: Image, mask: Path | None, saturation: float | None, mask_nan: bool) -> tuple[Array, bool]:
    """The image's values, NaN where they are not to be used; and whether NaN means that.

    Raises
    ------
    InputError
        If the mask is no good for this image, too little is left, or values that nothing marks are NaN or
        infinite and ``mask_nan`` is False.
    """
    if mask is None and saturation is None:
        return image.data, mask_nan
    bad = np.zeros(image.data.shape, bool)
    if mask is not None:
        bad |= _marked(mask, image.data)
    if saturation is not None:
        bad |= _saturated(image.data, saturation)
    data = np.where(bad, np.nan, image.data.astype(np.float64))
    unmarked = np.count_nonzero(~np.isfinite(data) & ~bad)
    if unmarked and not mask_nan:
        raise InputError(
            f"{unmarked} values that are not marked as bad are NaN or infinite; "
            f"pass --mask-nan to treat them as missing, too"
        )
    left = data[np.isfinite(data)]
    if not left.size or left.min() == left.max():
        told = f"{mask} marks" if saturation is None else f"--saturation {saturation:g} and any mask mark"
        raise InputError(
            f"{told} {np.count_nonzero(bad)} of {bad.size} pixels, and the others are all the same; "
            f"pixels to be filled in are those that are not 0 in a mask: is it the other way round?"
        )
    if mask is not None and np.isfinite(data).all():
        say(f"warning: {mask} marks no pixel (all are 0), so nothing is filled in; is it the right mask?")
    return data, True


def _saturated(data: Array, level: float) -> Array:
    """Where values are at or above a level, which some must be and some not."""
    if not math.isfinite(level):
        raise InputError(f"--saturation {level:g} is no level; give the value that saturated pixels have")
    reached: Array = data >= level
    share = np.count_nonzero(reached) / reached.size
    if share > MOST:
        raise InputError(
            f"--saturation {level:g} is reached by {share:.0%} of the image's values; give the value that "
            f"saturated pixels have (the highest value is {np.nanmax(data):g})"
        )
    if not reached.any():
        say(
            f"warning: no value reaches --saturation {level:g} (the highest is {np.nanmax(data):g}), "
            f"so none is taken as missing"
        )
    if share > MANY:
        say(
            f"warning: --saturation {level:g} is reached by {share:.0%} of the values (the highest is "
            f"{np.nanmax(data):g}), and all of these are taken as missing; is it where pixels saturate?"
        )
    return reached


def _marked(path: Path, data: Array) -> Array:
    """Where a mask of the image's shape, or of that of its last axes, says that a pixel is not to be used."""
    from selfinv import io

    values = io.read(path).data
    if unclear := int(np.isnan(values).sum()):
        raise InputError(
            f"{path} has {unclear} NaN; a mask must be 0 where pixels are good, and another number elsewhere"
        )
    bad = values != 0
    ending = data.shape[data.ndim - bad.ndim :] if bad.ndim <= data.ndim else ()
    if bad.shape != ending:
        raise InputError(
            f"{path} has the shape {bad.shape} but the image {data.shape}; they must be the same"
        )
    if bad.all():
        raise InputError(f"{path} marks every pixel as bad (not 0); it must be 0 where pixels are good")
    return np.broadcast_to(bad, data.shape)
