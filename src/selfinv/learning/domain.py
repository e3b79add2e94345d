"""Where a user's function is defined: a logarithm, say, has no values for less than nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from selfinv.learning.normalisation import Normalisation
from selfinv.solvers.base import Forward

AROUND = 4.0  # ranges of the object to each side: how far an object may stray in training
HALVINGS = 30
INSIDE = 1e-3  # of the object's range: so far within the domain's end slopes are finite


@dataclass(frozen=True)
class WithinDomain:
    """A function of an object that is kept where the function is defined; its gradient passes outside, too.

    Parameters
    ----------
    function
        From an object to what is measured of it, in the caller's units.
    low, high
        The object's limits.
    """

    function: Forward
    low: float
    high: float

    def __call__(self, x: Tensor) -> Tensor:
        return self.function(self.within(x.detach()) + (x - x.detach()))

    def within(self, x: Tensor) -> Tensor:
        """The object, cut off at the limits."""
        return x.clamp(self.low, self.high)


def within_domain(function: Forward, units: Normalisation, like: Tensor) -> Forward:
    """The function itself, unless constant objects below or above the object's range make it NaN or infinite.

    Parameters
    ----------
    units
        The object's range.
    like
        An object, ``batch channel *space``, of any values.
    """

    @torch.no_grad()
    def is_defined(level: float) -> bool:
        return bool(torch.isfinite(function(torch.full_like(like[:1], level, dtype=torch.float32))).all())

    def limit(outwards: float) -> float:
        """Infinite where nothing limits the object in this direction."""
        inside = units.offset + 0.5 * units.scale
        outside = inside + outwards * (0.5 + AROUND) * units.scale
        if is_defined(outside) or not is_defined(inside):
            return outwards * math.inf
        for _ in range(HALVINGS):
            middle = 0.5 * (inside + outside)
            inside, outside = (middle, outside) if is_defined(middle) else (inside, middle)
        return inside - outwards * INSIDE * units.scale

    low, high = limit(-1.0), limit(1.0)
    return function if math.isinf(low) and math.isinf(high) else WithinDomain(function, low, high)
