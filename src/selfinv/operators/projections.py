"""What projections of an object tell of the scanner that took them: its axis, and its detector's offsets."""

from __future__ import annotations

import math

import torch
from torch import Tensor

FEWEST_VIEWS = 8
UNLIKE, EMPTY = 0.05, 0.1  # of the mean of all light, and of the brightest: what may differ, and be outside
RINGS, CLEARLY = 3.0, 4.0  # times what chance makes angles share; standard errors
SPREAD = 3.3  # of a median of squares, by the root of how many: those of second differences count half


def axis_of(profiles: Tensor, angles: Tensor) -> tuple[float, float] | None:
    r"""The detector pixel that sees the axis of rotation, and its standard error.

    An object's centre of mass is projected to :math:`c + a\cos\theta + b\sin\theta`: of such a line through
    the projections' centres of mass :math:`c` is the axis (S. G. Azevedo et al. 1990, doi:10.1109/23.55866).

    Parameters
    ----------
    profiles
        ``(angle, detector)``, float64; those with NaN are left out.
    angles
        In radians, float64.

    Returns
    -------
    tuple of float, or None
        None where it cannot be told, as `Radon.find_centre` has it.
    """
    whole = profiles.isfinite().all(dim=-1)
    profiles, angles = profiles[whole], angles[whole]
    if len(angles) < FEWEST_VIEWS:
        return None
    mass, typical = profiles.sum(1), profiles.mean(0)
    detector = profiles.shape[1]
    ends = max(1, detector // 32)
    outside = torch.cat([typical[:ends], typical[-ends:]]).abs().mean()
    if not float(mass.std()) < UNLIKE * float(mass.mean()) or outside > EMPTY * typical.max():
        return None
    line = torch.stack([torch.ones_like(angles), angles.cos(), angles.sin()], dim=1)
    if int(torch.linalg.matrix_rank(line, rtol=1e-6)) < 3:
        return None
    inverse = torch.linalg.pinv(line)
    centres = profiles @ torch.arange(detector, dtype=profiles.dtype) / mass
    off = centres - line @ (inverse @ centres)
    variance = float(off.square().sum()) / (len(angles) - 3)
    return float(inverse[0] @ centres), math.sqrt(variance * float(inverse[0].square().sum()))


def shared_by_angles(residual: Tensor) -> float | None:
    """How much detector pixels share over all angles, as a multiple of what chance makes them share.

    Of the finest differences from one detector pixel to the next, as offsets of single ones have them, and
    what a reconstruction misses has at few of them at most; so the median of their squares is told. 1 for
    independent noise, about 1 or less for what is left over of it; None where there are fewer than 8 angles,
    or nothing is left over.

    Parameters
    ----------
    residual
        ``(..., angle, detector)``; what is NaN counts for nothing.
    """
    fine = residual.detach().double().reshape(-1, *residual.shape[-2:]).diff(n=2, dim=-1)
    counts = fine.isfinite().sum(-2)
    each = fine.square().nanmedian()  # a few hot values hide nothing
    enough = counts >= FEWEST_VIEWS
    if not bool(enough.any()) or not float(each) > 0.0:
        return None
    return float((fine.nanmean(-2).square() * counts)[enough].median() / each)


def surely_shared(detector: int) -> float:
    """What `shared_by_angles` has to be for offsets of so many pixels to be sure."""
    return max(RINGS, 1.0 + CLEARLY * SPREAD / math.sqrt(detector))
