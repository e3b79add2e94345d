"""What is no noise among what was taken away."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from selfinv.learning.lost_detail import lost_detail


def test_detail_is_told_from_noise_that_is_larger_in_places_and_from_few_photons():
    rng = np.random.default_rng(0)
    smooth = gaussian_filter(rng.standard_normal((128, 128)), 6.0)
    lines = np.zeros_like(smooth)
    for place in rng.integers(4, 124, 12):
        lines[place, rng.integers(0, 100) :][: rng.integers(20, 90)] = 0.8

    def told(values, result):
        return lost_detail(*(torch.from_numpy(v)[None, None] for v in (values, result)))

    noise = 0.05 * rng.standard_normal(smooth.shape)
    assert told(smooth + noise, smooth) == 0
    assert (
        told(smooth + (1.0 + gaussian_filter(rng.standard_normal(smooth.shape), 9.0) * 9) * noise, smooth)
        == 0
    )
    found = told(smooth + lines + noise, smooth)
    assert found > 300
    assert told(1e-16 * (smooth + lines + noise), 1e-16 * smooth) == found
    holes = np.where(lines > 0, np.nan, smooth + noise)
    assert told(holes, smooth) == 0
    counts = rng.poisson(2.0, smooth.shape).astype(float)
    assert told(counts, np.full_like(counts, 2.0)) == 0
