r"""Values that neither the blur nor the noise can have made: cosmic rays, hot pixels.

A few of them outweigh all else in least squares: what is fitted, what is chosen, and how. They are to be left
out before anything is done. A value stands out of the *others* around it both by more than a point source
does behind this PSF (`selfinv.learning.outliers`) and by more than the noise; and noise grows with the light,
so it is taken as it would be if the value were right,

.. math:: |y - n| > 4\,\sigma(\max(y, n)).

That is tried again without those found, for they hide what stands beside them, until nothing more is. They
are believed only if most are far beyond (30 deviations): a photon in the dark is not, however few there are,
nor is a star's peak behind a PSF that is told too wide. Where no noise can be told (single photons), nothing
is found.
"""

from __future__ import annotations

import torch
from torch import Tensor

from selfinv.learning.losses import BEYOND_NOISE
from selfinv.learning.masks import neighbour_fill
from selfinv.learning.noise_line import of_residuals
from selfinv.learning.outliers import as_points_stand_out, sharpness_of
from selfinv.learning.random import generator_for

FAR = 30.0  # deviations of the noise
TWICE = 2.0  # as far as points go
MOST_FAR, FEWEST = 0.5, 3  # of those found, to believe them
MOST = 0.05  # of all values: more are not strays
ROUNDS = 10


@torch.no_grad()
def find_stray(psf: Tensor, y: Tensor) -> Tensor:
    """Where values are stray, boolean, ``batch channel *space``; each channel of each frame by itself.

    Parameters
    ----------
    psf
        What blurs, ``(..., *kernel)``.
    y
        The measurement, ``batch channel *space``, in any units, NaN where missing.
    """
    stray = torch.zeros(y.shape, dtype=torch.bool, device=y.device)
    sharpness = sharpness_of(psf, y.ndim - 2)
    for frame in range(y.shape[0]):
        for channel in range(y.shape[1]):
            one = (slice(frame, frame + 1), slice(channel, channel + 1))
            stray[one] = _of_one(sharpness, y[one])
    return stray


def _of_one(sharpness: float, y: Tensor) -> Tensor:
    missing = ~torch.isfinite(y)
    nothing = torch.zeros_like(missing)
    if missing.all():
        return nothing
    low, high = y[~missing].aminmax()
    if not high > low:
        return nothing
    y = ((y - low) / (high - low)).masked_fill(missing, 0.0).float()
    found, line = missing.clone(), None
    for _ in range(ROUNDS):
        shown = neighbour_fill(y, found, generator_for(0)) if found.any() else y
        mean, of_points = as_points_stand_out(shown, sharpness)
        apart = (shown - mean).abs()
        beyond = (apart > of_points) & ~found
        if line is None:  # most images have nothing like it, which is quick to see
            more = beyond & (apart > FAR * apart.median())
            if int(more.sum()) < FEWEST:
                return nothing
            found |= more
            line = of_residuals(y, mean, found)
            continue
        line = of_residuals(y, mean, found)
        if line is None:
            return nothing
        more = beyond & (apart > BEYOND_NOISE * line.variance(torch.maximum(shown, mean)).sqrt())
        if not more.any():
            break
        found |= more
    assert line is not None
    deviations = (y - mean).abs() / line.variance(torch.maximum(y, mean)).sqrt()
    stray = found & ~missing & (deviations > BEYOND_NOISE)
    count = int(stray.sum())
    if not FEWEST <= count <= MOST * int((~missing).sum()):
        return nothing
    far = stray & (deviations > FAR) & ((y - mean).abs() > TWICE * of_points)
    return stray if int(far.sum()) >= max(FEWEST, MOST_FAR * count) else nothing
