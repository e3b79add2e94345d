"""The derivative of a function at an object, as an operator."""

from __future__ import annotations

import pytest
import torch
from registry import asymmetric_kernel

from selfinv.operators import Convolution, dot_test
from selfinv.operators.tangent import Tangent

SHAPE = (9, 8)
BLUR = Convolution(torch.as_tensor(asymmetric_kernel((5, 4))).float(), SHAPE, "zero").double()


def saturating(x):
    return torch.tanh(BLUR(x))


def an_object(seed=0):
    return torch.rand(1, 1, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_it_is_how_a_small_change_of_the_object_changes_the_image():
    x, change = an_object(), an_object(1) - 0.5
    tangent = Tangent(saturating, x)
    step = 1e-6
    differences = (saturating(x + step * change) - saturating(x - step * change)) / (2 * step)
    with torch.no_grad():  # as solvers call it
        assert torch.allclose(tangent(change), differences, atol=1e-8)
    assert dot_test(tangent, dtype=torch.float64) < 1e-10


def test_of_a_linear_function_it_is_the_function_wherever_it_is_taken():
    change = an_object(2)
    for seed in (3, 4):
        assert torch.allclose(Tangent(BLUR, an_object(seed))(change), BLUR(change))
        assert torch.allclose(Tangent(BLUR, an_object(seed)).adjoint(change), BLUR.adjoint(change))


def test_a_function_that_can_be_differentiated_but_once_says_so():
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 2.0 * x

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, gradient):
            return 2.0 * gradient

    with pytest.raises(RuntimeError):
        Tangent(Once.apply, an_object())(an_object(1))
