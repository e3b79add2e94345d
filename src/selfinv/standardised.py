"""Residuals less their local means and over their local scales, for a test of what they have in common."""

from __future__ import annotations

import math
from functools import reduce

import numpy as np
from scipy.ndimage import uniform_filter

from selfinv.types import Array

MEAN_COUNT, SCALE_COUNT = 400, 64  # about how many values make a local mean and a local scale
CLIP = 3.0  # local standard deviations


def standardised(images: Array, rounding: float) -> tuple[Array, Array, Array]:
    """Clipped residuals, less local means and over local scales, 0 where unknown; where known; where quiet.

    Quiet is the half with the smaller residuals around it.
    """
    z, known = np.zeros_like(images), np.isfinite(images)
    quiet = np.zeros_like(known)
    for image, measured, calm, out in zip(images, known, quiet, z, strict=True):
        density = float(measured.mean())
        if density == 0:
            continue
        centred = image - _local_mean(image, measured, MEAN_COUNT / density)
        scale = math.sqrt(math.pi / 2) * _local_mean(np.abs(centred), measured, SCALE_COUNT / density)
        measured &= scale > max(rounding, 1e-6 * float(scale.max()))  # saturated or dead regions say nothing
        if measured.any():
            ratio = np.divide(centred, scale, out=np.zeros_like(image), where=measured).clip(-CLIP, CLIP)
            out[measured] = (ratio - _local_mean(ratio, measured, MEAN_COUNT / density))[measured]
            # Over more values than the scale: chance selects quiet patches that are not like the others.
            loudness = _local_mean(np.abs(centred), measured, MEAN_COUNT / density)
            calm[:] = measured & (loudness <= np.median(loudness[measured]))
    return z, known, quiet


def _local_mean(image: Array, measured: Array, count: float) -> Array:
    """The mean of what was measured, with triangular weights that amount to ``count`` positions."""
    width = max(1, round(count ** (1 / image.ndim) / 1.5))
    total = _smoothed(np.where(measured, image, 0.0), width)
    if measured.all():  # a product of lines
        lines = [_smoothed(np.ones(n), width) for n in image.shape]
        weight = reduce(np.multiply.outer, lines)
    else:
        weight = _smoothed(measured.astype(np.float64), width)
    return np.divide(total, weight, out=np.zeros_like(total), where=weight > 1e-9)


def _smoothed(values: Array, width: int) -> Array:
    for _ in range(2):  # running sums: as fast for the wide windows of few values as for narrow ones
        values = uniform_filter(values, width, mode="constant")
    return values
