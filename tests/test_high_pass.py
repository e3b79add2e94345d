"""What lies within a pass band is taken away, and nothing else."""

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from selfinv.high_pass import RADIUS, high_passed


def pass_band(shape):
    """Its autocorrelation: all frequencies up to a quarter of a cycle per value."""
    f = np.meshgrid(*(np.fft.fftfreq(n) for n in shape), indexing="ij")
    return np.fft.ifftn(sum(axis**2 for axis in f) <= 0.25**2).real


@pytest.mark.parametrize("shape", [(400,), (120, 150), (104, 98, 110)])
def test_slow_waves_vanish_and_fast_ones_stay(shape):
    place = np.indices(shape)[-1]
    slow, fast = 2 * np.cos(0.9 * place) + 5e4, np.cos(2.6 * place)
    left = high_passed((slow + fast)[None, None], pass_band((64,) * len(shape)))[0, 0]
    inside = np.isfinite(left)
    assert 0.3 < inside.mean() < 1.0
    np.testing.assert_allclose(left[inside], fast[inside], atol=0.01)


def test_only_what_is_far_enough_from_missing_values_and_edges_is_known():
    image = np.random.default_rng(0).normal(size=(1, 2, 80, 100))
    image[0, 1, 40, 50] = np.nan
    left = high_passed(image, pass_band((64, 64)))
    side = 80 // 8
    unknown = np.pad(
        np.isnan(image), ((0, 0), (0, 0), (RADIUS, RADIUS), (RADIUS, RADIUS)), constant_values=True
    )
    near = binary_dilation(unknown, np.ones((1, 1, 2 * side + 1, 2 * RADIUS + 1)))
    np.testing.assert_array_equal(np.isnan(left), near[..., RADIUS:-RADIUS, RADIUS:-RADIUS])
