"""Residuals without the levels and scales of their places."""

import numpy as np
import pytest

from selfinv.standardised import standardised


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_noise_of_any_level_and_scale_comes_out_alike(missing):
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:128, :160] / 128.0
    noise = rng.standard_normal((1, 128, 160))
    image = 50.0 * y + (1.0 + 4.0 * x) * noise
    image[rng.random(image.shape) < missing] = np.nan
    z, known, quiet = standardised(image, 1e-9)
    assert np.array_equal(known, np.isfinite(image))
    assert not z[~known].any()
    parts = [z[:, :, :80][known[:, :, :80]].std(), z[:, :, 80:][known[:, :, 80:]].std()]
    assert parts[0] == pytest.approx(parts[1], rel=0.05)
    assert np.corrcoef(z[known], noise[known])[0, 1] > 0.9
    assert quiet[:, :, :40].mean() > 2 * quiet[:, :, -40:].mean()  # where the scale is small


def test_a_dead_region_is_not_known_and_an_outlier_is_clipped():
    image = np.random.default_rng(0).standard_normal((1, 96, 96))
    image[0, 30:70, 30:70] = 0.0
    image[0, 5, 5] = 1e6
    z, known, _ = standardised(image, 1e-9)
    assert not known[0, 45:55, 45:55].any()
    assert known[0, 80:, 80:].all()
    assert np.abs(z).max() < 10.0
