"""Gaussian smoothing by few shifted sums."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor


def smoothing_radius(sigma: float) -> int:
    """How many samples away `smooth` looks."""
    return max(1, math.ceil(2.5 * sigma))


def smoothing_taps(sigma: float) -> list[float]:
    """The weights along each axis, ``2 * radius + 1`` of sum 1."""
    radius = smoothing_radius(sigma)
    weights = [math.exp(-0.5 * (t / sigma) ** 2) for t in range(-radius, radius + 1)]
    total = sum(weights)
    return [weight / total for weight in weights]


def smooth(x: Tensor, sigma: float) -> Tensor:
    """Gaussian smoothing of the spatial axes, zeros outside."""
    radius, taps = smoothing_radius(sigma), smoothing_taps(sigma)
    for axis in range(2, x.ndim):
        n = x.shape[axis]
        pads = [0, 0] * (x.ndim - 1 - axis) + [radius, radius]
        wide = F.pad(x, pads)
        # Shifted sums: torch's convolution of a single channel takes ten times as long.
        x = wide.narrow(axis, 0, n) * taps[0]
        for shift, tap in enumerate(taps[1:], start=1):
            x.add_(wide.narrow(axis, shift, n), alpha=tap)
    return x
