"""The slope and the bend of the logarithm of a sample's density."""

import numpy as np
import pytest
import torch

from selfinv.learning.log_density import LogDensity


def test_of_a_normal_sample_they_are_as_the_textbook_says():
    sample = torch.randn(400_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = LogDensity.of(sample)
    z = torch.linspace(-2.0, 2.0, 21, dtype=torch.float64)
    smoothed = 1.0 + 0.35**2 + 0.1**2 / 12.0  # the variance, by the smoothing and by bins
    assert found.slope(z).numpy() == pytest.approx(-z.numpy() / smoothed, abs=0.06)
    assert found.bend(z).mean() == pytest.approx(-1.0 / smoothed, abs=0.06)


def test_of_a_sample_with_tails_the_middle_is_steep_and_the_tails_are_flat():
    generator = np.random.default_rng(0)
    sample = np.where(generator.random(200_000) < 0.05, 3.0, 0.5) * generator.standard_normal(200_000)
    found = LogDensity.of(torch.from_numpy(sample))
    near, far = found.slope(torch.tensor([0.7, 4.0], dtype=torch.float64)).abs()
    assert near > 2.0 * far


def test_beyond_its_reach_it_goes_on_as_at_its_end_in_any_precision():
    found = LogDensity.of(torch.tensor([-1e6, -1.0, 0.0, 1.0, 1e6]))
    for dtype in (torch.float32, torch.float64):
        ends = found.slope(torch.tensor([-1e9, -8.0, 8.0, 1e9], dtype=dtype))
        assert ends.dtype == dtype
        assert ends[0] == ends[1]
        assert ends[2] == ends[3]
