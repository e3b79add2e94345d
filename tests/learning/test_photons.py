"""Numbers of photons are known in any unit; a camera's numbers with an offset, and other values, are none."""

import numpy as np
import pytest

from selfinv.learning.photons import as_counts, mostly_none


@pytest.mark.parametrize("gain", [1.0, 12.0, 1 / 3222])
@pytest.mark.parametrize("precision", ["f4", "f8"])
def test_counts_are_found_in_any_unit(gain, precision):
    photons = np.random.default_rng(0).poisson(np.repeat([0.02, 5.0, 900.0], [800, 100, 100]))
    counts, step = as_counts((gain * (7.0 + photons)).astype(precision).astype(float))
    assert step == pytest.approx(gain, rel=1e-2)
    np.testing.assert_array_equal(counts.round(), photons)
    assert mostly_none(counts)


def test_other_values_are_no_counts_and_others_are_not_mostly_none():
    rng = np.random.default_rng(0)
    assert as_counts(rng.normal(size=1000)) is None
    assert as_counts(np.full(9, 3.0)) is None
    assert not mostly_none(rng.poisson(5.0, 1000).astype(float))
    thresholded = np.where(rng.random(1000) < 0.8, 0.0, rng.poisson(9.0, 1000) + 3.0)
    assert not mostly_none(thresholded)
