r"""Values that neither the blur nor the noise can have made: cosmic rays, hot pixels.

A few of them outweigh all else in least squares: what is fitted, what is chosen, and how. They are to be left
out before anything is done. A value :math:`y` stands out of the mean :math:`n` of the *others* around it by
more than a point source does behind this PSF (:math:`p`, `selfinv.learning.outliers`) and the noise together;
and noise grows with the light, so it is taken as it would be if the value were right,

.. math:: |y - n| > p + \max(4, \sqrt{2 \ln N})\,\sigma(\max(y, n)),

which chance hardly reaches among :math:`N` values: its own would outnumber the stray in a large image.
That is tried again without those found, for they hide what stands beside them, until nothing more is. They
are believed only if most are far beyond (30 deviations): a photon in the dark is not, however few there are,
nor is a star's peak behind a PSF that is told too wide. Where no noise can be told (single photons), nothing
is found.

Where no PSF is told, there still is one: what the finest optics show of a point falls on more than one pixel.
A value stands out alone that does so ten times as far as any beside it, as nothing does that is wider than
0.9 pixels (full width at half maximum, its light collected by square pixels). Where there are such, it is
enough for others to stand out five times as far as all but one beside them, for two of them may touch. Planes
of a volume are looked at one by one, for a camera's hot pixels are hot in all of them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from selfinv.learning.losses import BEYOND_NOISE
from selfinv.learning.masks import neighbour_fill
from selfinv.learning.noise_line import NoiseLine, of_finest_detail, of_residuals
from selfinv.learning.outliers import as_points_stand_out, is_cut_off, mean_around, sharpness_of
from selfinv.learning.random import generator_for

FAR, FOUND = 30.0, 15.0  # deviations of the noise
TWICE = 2.0  # as far as points go
ALONE = 5.0  # times as far as those beside it
MOST_FAR, FEWEST = 0.5, 3  # of those found, to believe them
MOST, MOST_ALONE = 0.05, 0.01  # of all values: more are not strays
IN_MOST = 0.5  # of a volume's planes: in all of them
ROUNDS = 10
# Of a value's neighbours and itself: beside a star's core, which is missing, it stands out of what the others
# say of that.
MOST_MISSING = 0.25


@torch.no_grad()
def find_stray(psf: Tensor | None, y: Tensor) -> Tensor:
    """Where values are stray, boolean, ``batch channel *space``; each channel of each frame by itself.

    Parameters
    ----------
    psf
        What blurs, ``(..., *kernel)``; None: nothing that is known.
    y
        The measurement, ``batch channel *space``, in any units, NaN where missing.
    """
    stray = torch.zeros(y.shape, dtype=torch.bool, device=y.device)
    if psf is None and (y.ndim < 4 or min(y.shape[-2:]) < 3):
        return stray  # a line of a spectrum may be as narrow
    if psf is None:
        test = StrayTest(_beside_others, of_finest_detail, FOUND, 1, MOST_ALONE, seen=True)
    else:
        points = partial(_beside_points, sharpness=sharpness_of(psf, y.ndim - 2))
        test = StrayTest(points, of_residuals, BEYOND_NOISE, FEWEST, MOST)
    for frame in range(y.shape[0]):
        for channel in range(y.shape[1]):
            one = y[frame : frame + 1, channel : channel + 1]
            planes = one[0].transpose(0, 1) if psf is None and y.ndim == 5 else one
            stray[frame, channel] = test.stray(planes).reshape(y.shape[2:])
    if psf is None and y.ndim == 5:
        stray |= stray.float().mean(2, keepdim=True) > IN_MOST
    return stray & torch.isfinite(y)


def without_stray(psf: Tensor | None, y: Tensor) -> tuple[Tensor, int, str]:
    """A measurement with its stray values missing (`find_stray`), how many, and the warning of them."""
    found = find_stray(psf, y)
    count = int(found.sum())
    return (
        y.masked_fill(found, torch.nan),
        count,
        _told_of(count, y.numel(), psf is not None) if count else "",
    )


def _told_of(count: int, of: int, blurred: bool) -> str:
    if blurred:
        how = "as neither the blur nor the noise can make them (cosmic rays, hot pixels; or the PSF is wider "
        how += "than the instrument's)"
    else:
        how = "far and each alone, as nothing does that optics show (cosmic rays, hot pixels)"
    return f"{count} values ({count / of:.2g} of all) stand out {how}: they are taken as missing"


@dataclass(frozen=True)
class StrayTest:
    """What makes a value stray.

    Parameters
    ----------
    points
        Of an image with those found so far filled in, and of the image itself, the mean of the others around
        each value, by how much a point may stand out of it, and by how much none does.
    noise
        Of an image, those means and where something is missing, what the noise is; None: it cannot be told.
    deviations
        Of the noise, by which found values stand out more than points; more where chance reaches further.
    fewest
        How many there must be, to believe them.
    most
        The largest part of all values that they can be.
    seen
        Whether the noise of others tells that of a value that is brighter than any of them. It would be
        larger, but in textured images grows by far too much.
    """

    points: Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
    noise: Callable[[Tensor, Tensor, Tensor], NoiseLine | None]
    deviations: float
    fewest: int
    most: float
    seen: bool = False

    def stray(self, y: Tensor) -> Tensor:
        """Where values are stray, of images with one noise, ``batch 1 *space``."""
        missing = ~torch.isfinite(y)
        nothing = torch.zeros_like(missing)
        judged = ~missing & (_share_around(missing) <= MOST_MISSING)
        if missing.all():
            return nothing
        low, high = y[~missing].aminmax()
        if not high > low:
            return nothing
        y = ((y - low) / (high - low)).masked_fill(missing, 0.0).float()
        y = neighbour_fill(y, missing, generator_for(0)) if missing.any() else y
        mean, of_points, _ = self.points(y, y)
        apart = (y - mean).abs()
        found = judged & (apart > of_points) & (apart > FAR * apart.median())
        if int(found.sum()) < self.fewest:  # most images have nothing like it, which is quick to see
            return nothing
        measured = int((~missing).sum())
        beyond = max(self.deviations, math.sqrt(2.0 * math.log(measured)))
        rounding, highest = _rounding(y[~missing]), float("inf")
        for _ in range(ROUNDS):
            without = found | missing
            shown = neighbour_fill(y, without, generator_for(0))
            mean, of_points, of_none = self.points(shown, y)
            line = self.noise(y, mean, without)
            if line is None:
                return nothing
            highest = float(shown[~without].max()) if self.seen else float("inf")
            level = torch.maximum(shown, mean).clamp_max(highest)
            of_both = of_points + beyond * _deviation(line, level, rounding)
            more = ((shown - mean).abs() > of_both) & ~without & judged
            if not more.any():
                break
            found = found | more
        assert line is not None
        apart = (y - mean).abs()
        deviations = apart / _deviation(line, torch.maximum(y, mean).clamp_max(highest), rounding)
        stray = found & (deviations > beyond)
        count = int(stray.sum())
        if not self.fewest <= count <= self.most * measured:
            return nothing
        far = stray & (deviations > FAR) & (apart > of_none)
        return stray if int(far.sum()) >= max(self.fewest, MOST_FAR * count) else nothing


def _share_around(missing: Tensor) -> Tensor:
    """Of the values at and beside each one, those that are missing."""
    mean = {3: F.avg_pool1d, 4: F.avg_pool2d, 5: F.avg_pool3d}[missing.ndim]
    return mean(missing.float(), 3, 1, 1)


def _deviation(line: NoiseLine, level: Tensor, rounding: float) -> Tensor:
    return (line.variance(level) + rounding).sqrt()


def _rounding(values: Tensor) -> float:
    """The variance of rounding to the finest step that there is between values."""
    return float(values.unique().diff().min()) ** 2 / 12.0


def _beside_points(shown: Tensor, y: Tensor, sharpness: float) -> tuple[Tensor, Tensor, Tensor]:
    """By what a point source shows; at the image's edge, where the others are to one side and light that
    falls off would stand out of them, by those beside each value, too.
    """
    mean, of_points = as_points_stand_out(shown, sharpness)
    beyond = _beside_others(shown, y)[1] if y.ndim == 4 else torch.full_like(y, torch.inf)
    of_points = torch.where(is_cut_off(y), torch.maximum(of_points, beyond), of_points)
    return mean, of_points, TWICE * of_points


def _beside_others(shown: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """By those beside each value in its plane: by all but the furthest of them, and by all.

    As they are, or the lines of a drawing would be found from their ends on.
    """
    mean = mean_around(shown)
    wide = F.pad(y, (1, 1, 1, 1), mode="reflect")
    rows, columns = y.shape[2:]
    first = second = torch.zeros_like(y)
    for row, column in itertools.product(range(3), range(3)):
        if (row, column) == (1, 1):
            continue
        apart = (wide[..., row : row + rows, column : column + columns] - mean).abs()
        second = torch.maximum(second, torch.minimum(first, apart))
        first = torch.maximum(first, apart)
    return mean, ALONE * second, TWICE * ALONE * first
