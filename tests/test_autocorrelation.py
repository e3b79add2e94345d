"""Autocorrelations against SciPy's correlation, and fits against noise whose correlation is known."""

import numpy as np
import pytest
from scipy.signal import correlate

import selfinv.autocorrelation
from selfinv.autocorrelation import Autocorrelation, Model, half_box


def gaps(shape, share, seed=1):
    return np.random.default_rng(seed).random(shape) >= share


@pytest.mark.parametrize("shape", [(40,), (12, 15), (6, 7, 8)])
def test_the_autocorrelation_is_scipys_where_values_are_missing(shape):
    known = gaps((2, *shape), 0.2)
    z = np.where(known, np.random.default_rng(0).standard_normal((2, *shape)), 0.0)
    far = (2,) * len(shape)
    seen = Autocorrelation.of(z, known, far)
    middle = tuple(slice(n - 1 - 2, n - 1 + 3) for n in shape)
    pairs = sum(correlate(k.astype(float), k.astype(float))[middle] for k in known)
    products = sum(correlate(image, image)[middle] for image in z)
    assert seen.values == known.sum()
    np.testing.assert_allclose(seen.pairs, pairs.round())
    np.testing.assert_allclose(seen.products, products * known.sum() / (z**2).sum(), atol=1e-9)
    lags = half_box(far)
    correlation, variance = seen.at(lags)
    assert correlation[0] == pytest.approx(1.0)
    places = tuple(np.array(lags).T + 2)
    np.testing.assert_allclose(variance, 1 / pairs.round()[places])


def test_a_large_image_is_looked_at_in_parts_without_the_pairs_across_their_cuts(monkeypatch):
    z = np.random.default_rng(0).standard_normal((1, 64, 32))
    whole = Autocorrelation.of(z, np.ones_like(z, dtype=bool), (1, 1))
    monkeypatch.setattr(selfinv.autocorrelation, "TILE", 1024)
    parts = Autocorrelation.of(z, np.ones_like(z, dtype=bool), (1, 1))
    assert parts.values == whole.values
    assert whole.pairs[2, 1] - parts.pairs[2, 1] == 32  # one line of neighbours
    assert abs(parts.products - whole.products).max() < 64


def test_every_pair_of_lags_is_there_once_the_nearest_first():
    lags = half_box((1, 2))
    assert lags[0] == (0, 0)
    assert len(lags) == len(set(lags)) == (3 * 5 + 1) // 2
    assert not any(tuple(-h for h in lag) in lags for lag in lags[1:])
    assert [sum(h * h for h in lag) for lag in lags] == sorted(sum(h * h for h in lag) for lag in lags)


@pytest.mark.parametrize("share", [0.0, 0.4])
def test_a_fit_finds_the_correlation_of_neighbours_and_that_nothing_else_is_correlated(share):
    white = np.random.default_rng(0).standard_normal((1, 300, 301))
    z = white[..., 1:] + share * white[..., :-1]
    seen = Autocorrelation.of(z, np.ones_like(z, dtype=bool), (2, 2))
    window = half_box((2, 2))
    c, variance = seen.at(window)
    lags = window[1:]
    fit = Model.of(window, c, np.diag(variance)).fit((0, 1), lags, threshold=4.0)
    place = lags.index((0, 1))
    assert fit.correlation[place] == pytest.approx(share / (1 + share**2), abs=4 * fit.error[place])
    assert fit.positive == (share > 0)
    assert fit.unexplained <= 1
    alone = Model.of(window, c, np.diag(variance)).fit((0, 0), lags, threshold=4.0)
    assert (alone.unexplained > 1) == (share > 0)
