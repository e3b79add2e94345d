"""Smoothing is SciPy's, with nothing beyond the edges."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from selfinv.learning.smoothing import smooth, smoothing_radius, smoothing_taps


@pytest.mark.parametrize("shape", [(40,), (13, 20), (5, 9, 11)])
@pytest.mark.parametrize("sigma", [0.5, 0.8, 3.0])
def test_it_is_scipys(shape, sigma):
    x = np.random.default_rng(0).normal(size=(2, 3, *shape))
    axes = tuple(range(2, x.ndim))
    expected = gaussian_filter(x, sigma, mode="constant", radius=smoothing_radius(sigma), axes=axes)
    np.testing.assert_allclose(smooth(torch.from_numpy(x), sigma), expected, atol=1e-12)
    assert sum(smoothing_taps(sigma)) == pytest.approx(1.0)
