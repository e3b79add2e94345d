"""The logarithm of the density that a sample has: how steep it is, and how bent.

What Tweedie's formula asks of residuals (Efron 2011, doi:10.1198/jasa.2011.tm11181).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

REACH, STEP, SMOOTHING = 8.0, 0.1, 0.35  # in the sample's unit
LEAST = 1e-7  # a density, so that beyond all of the sample nothing pulls


@dataclass(frozen=True)
class LogDensity:
    """Of a sample whose unit is about its deviation.

    Parameters
    ----------
    slopes
        Its derivative at every ``STEP`` from ``-REACH`` to ``REACH``.
    """

    slopes: tuple[float, ...]

    @classmethod
    def of(cls, sample: Tensor) -> LogDensity:
        """Told from a smoothed histogram; what lies beyond ``REACH`` is counted there."""
        half = STEP / 2.0
        edges = np.arange(-REACH - half, REACH + STEP, STEP)
        counts, _ = np.histogram(sample.clamp(-REACH, REACH).cpu().numpy(), edges)
        density = gaussian_filter1d(counts / (counts.sum() * STEP), SMOOTHING / STEP, mode="constant")
        return cls(tuple(np.gradient(np.log(density + LEAST), STEP).tolist()))

    def slope(self, z: Tensor) -> Tensor:
        """The first derivative at these places; beyond ``REACH`` that at its end."""
        return _between(z, self.slopes)

    def bend(self, z: Tensor) -> Tensor:
        """The second derivative, likewise."""
        return _between(z, np.gradient(self.slopes, STEP).tolist())


def _between(z: Tensor, values: Sequence[float]) -> Tensor:
    table = torch.tensor(values, dtype=z.dtype, device=z.device)
    place = (z.clamp(-REACH, REACH) + REACH) / STEP
    below = place.floor().clamp_max(len(values) - 2).long()
    return torch.lerp(table[below], table[below + 1], place - below)
