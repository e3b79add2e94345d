"""Which flips and turns an operator does not notice."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from selfinv.learning.symmetry import Rearrangement, grid_symmetries, operator_symmetries
from selfinv.operators import Convolution, Identity
from selfinv.psf import gaussian


@pytest.mark.parametrize(("ndim", "count"), [(1, 2), (2, 8), (3, 48)])
def test_all_symmetries_are_different_and_invertible(ndim, count):
    x = torch.randn(2, 3, *range(4, 4 + ndim))
    cube = torch.randn(*(4,) * ndim)
    symmetries = grid_symmetries(ndim)
    assert len({tuple(s(cube).flatten().tolist()) for s in symmetries}) == count
    for s in symmetries:
        assert torch.equal(s.inverse(s(x)), x)
    assert torch.equal(symmetries[0](x), x)


@pytest.mark.parametrize("shape", [(5,), (4, 6), (3, 4, 5)])
def test_tables_of_places_do_what_the_symmetry_does_to_values_and_gradients(shape):
    x = torch.randn(2, 3, *shape, requires_grad=True)
    for s in grid_symmetries(len(shape)):
        tables = Rearrangement.of(s, shape, x.device)
        turned = tables(x)
        assert torch.equal(turned, s(x))
        assert torch.equal(tables.inverse(turned), x)
        weights = torch.randn_like(turned)
        (gradient,) = torch.autograd.grad((turned * weights).sum(), x)
        assert torch.allclose(gradient, s.inverse(weights))


@pytest.mark.parametrize(
    ("psf", "count"),
    [
        (gaussian((1.5, 1.5)), 8),
        (gaussian((1.1, 1.1), (8, 8)), 8),  # even, centred at n // 2
        (gaussian((1.5, 2.5)), 4),
        (gaussian((2.0, 1.2, 1.2), (9, 7, 7)), 16),
        (np.triu(np.ones((5, 5))), 2),
        (np.arange(1.0, 26.0).reshape(5, 5), 1),
    ],
    ids=["round", "even", "anisotropic", "3-D", "triangle", "none"],
)
def test_a_convolution_has_the_symmetries_of_its_kernel(psf, count):
    shape = (32,) * psf.ndim
    operator = Convolution(psf / psf.sum(), shape, "periodic")
    symmetries = operator_symmetries(operator, psf.ndim)
    assert len(symmetries) == count
    x = torch.randn(shape, dtype=torch.float64)
    for s in symmetries:  # the definition: transforming and blurring commute
        assert torch.allclose(operator(s(x)), s(operator(x)), atol=0.02 if psf.shape == (8, 8) else 1e-9)


def test_the_identity_has_all_and_an_unknown_operator_none():
    assert len(operator_symmetries(Identity((8, 8)), 2)) == 8
    assert len(operator_symmetries(lambda x: x, 2)) == 1


def test_a_function_is_tried_on_an_object():
    x = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert len(operator_symmetries(torch.tanh, 2, like=x)) == 8
    sideways = operator_symmetries(lambda x: 0.5 * x + 0.5 * torch.roll(x, 1, -1), 2, like=x)
    assert [s.flipped for s in sideways] == [(False, False), (True, False)]
    both_ways = operator_symmetries(lambda x: x + torch.roll(x, 1, -1) + torch.roll(x, -1, -1), 2, like=x)
    assert len(both_ways) == 4  # flips along either axis, but no quarter turn
    assert len(operator_symmetries(torch.tanh, 2, like=x[..., :6])) == 4  # a turned one would not fit
