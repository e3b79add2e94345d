"""Random mixtures against SciPy's Hadamard matrices and what chance must give."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from registry import dense

from selfinv.operators import Hadamard, RandomProjections
from selfinv.operators.random_projections import walsh_hadamard
from selfinv.types import InputError


@pytest.mark.parametrize("n", [1, 2, 8, 64])
def test_the_fast_transform_is_scipys_matrix(n):
    x = np.random.default_rng(0).normal(size=(3, n))
    np.testing.assert_allclose(walsh_hadamard(torch.from_numpy(x)), x @ scipy.linalg.hadamard(n), atol=1e-12)


@pytest.mark.parametrize(("shape", "count"), [((8, 8), 20), ((5, 7), 64)])
def test_rows_of_scipys_matrix_permuted_and_with_signs_flipped(shape, count):
    operator = Hadamard(shape, count, seed=2)
    n = operator.size
    signs, places = operator.signs.double().numpy(), operator.places.numpy()
    expected = scipy.linalg.hadamard(n)[operator.rows.numpy()][:, places] * signs / math.sqrt(n)
    np.testing.assert_allclose(dense(operator), expected, atol=1e-12)
    assert len(set(places)) == math.prod(shape)
    assert len(set(operator.rows.tolist())) == count
    assert {-1.0, 1.0} == set(signs)


def test_rows_are_orthonormal_without_padding():
    matrix = dense(Hadamard((4, 8), 12))
    assert torch.allclose(matrix @ matrix.T, torch.eye(12, dtype=torch.float64), atol=1e-12)


def test_signs_are_fair_and_the_seed_decides():
    matrix = dense(RandomProjections((10, 20), 400, seed=3)) * math.sqrt(400)
    assert torch.equal(matrix.abs(), torch.ones_like(matrix))
    assert abs(float(matrix.mean())) < 5 / math.sqrt(matrix.numel())
    gram = matrix.T @ matrix / 400
    assert float((gram - torch.eye(200)).std()) == pytest.approx(1 / math.sqrt(400), rel=0.05)
    for kind in (RandomProjections, Hadamard):
        assert torch.equal(dense(kind((4, 4), 7, seed=1)), dense(kind((4, 4), 7, seed=1)))
        assert not torch.equal(dense(kind((4, 4), 7, seed=1)), dense(kind((4, 4), 7, seed=2)))


def test_as_many_values_as_pixels_are_no_pixels():
    assert Hadamard((16,), 16).field_of_view is None
    assert RandomProjections((16,), 16).field_of_view is None


def test_mistakes_are_said_in_words():
    for kind in (RandomProjections, Hadamard):
        with pytest.raises(InputError, match="count must be at least 1, got 0"):
            kind((4, 4), 0)
        with pytest.raises(InputError, match=r"count must be an integer, got 10\.5"):
            kind((4, 4), 10.5)
        with pytest.raises(InputError, match="seed must be an integer, got None"):
            kind((4, 4), 5, None)
    with pytest.raises(InputError, match="count=17 is more than there are rows, 16"):
        Hadamard((4, 4), 17)
