"""Whether what was taken away from an image is noise alone."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from selfinv.learning.noise_line import local_mean, standing_out
from selfinv.learning.photons import as_counts

UNLIKE_NOISE = 3.5  # fourth power, over the local mean square, of what is left over; Gaussian noise has 2.8
MANY = 2e-3  # of the values
FEW_PHOTONS = 20  # whose noise has values that stand out, too


@torch.no_grad()
def lost_detail(y: Tensor, x: Tensor) -> int:
    """How many values of what was taken away stand out of the noise, as fine detail does; 0 if next to none.

    What noise is left over is spread alike all around a place; of thin lines and small spots a few values
    stand out. Nothing is said of few photons.

    Parameters
    ----------
    y, x
        An image, NaN where missing, and the same without noise, ``batch channel *space``.
    """
    missing = ~torch.isfinite(y)
    if bool(missing.all()):
        return 0
    counted = as_counts(y[~missing].double().cpu().numpy())
    if counted is not None and float(np.median(counted[0])) < FEW_PHOTONS:
        return 0
    left = (y - x.to(y)).masked_fill(missing, 0.0)
    left = left / (float(left.abs().max()) or 1.0)  # whose squares are within single precision
    relative = left / local_mean(left.square(), missing).clamp_min(1e-30).sqrt()
    found = int(standing_out(left, missing).sum())
    alike = float(relative[~missing].double().pow(4).mean()) < UNLIKE_NOISE
    return 0 if alike or found < MANY * left.numel() else found
