"""The gradient: against NumPy's differences, and its adjoint."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from selfinv.operators import Gradient, LinearOperator, dot_test, norm
from selfinv.types import InputError

# It does not fit the registry, whose every entry also serves the solvers as a measurement of an image.
CASES = [
    ((11,), None),
    ((9, 7), None),
    ((4, 5, 6), None),
    ((11,), (0.3,)),
    ((9, 7), (2.0, 0.5)),
    ((4, 5, 6), (3.0, 1.0, 0.7)),
    ((1, 7), None),
    ((2, 1, 3), (1.0, 2.0, 3.0)),
]


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize(("shape", "spacing"), CASES)
def test_agrees_with_numpys_differences(shape, spacing):
    x = random(2, 3, *shape)
    gradient = Gradient(shape, spacing)(x)
    assert gradient.shape == (2, 3, len(shape), *shape)
    for axis, step in enumerate(spacing or (1.0,) * len(shape)):
        last = x.numpy().take([-1], axis=axis + 2)
        expected = np.diff(x.numpy(), axis=axis + 2, append=last) / step
        np.testing.assert_allclose(gradient.numpy()[:, :, axis], expected, rtol=1e-12)


@pytest.mark.parametrize(("shape", "spacing"), CASES)
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_adjoint_is_the_adjoint_of_forward(shape, spacing, dtype, limit):
    operator = Gradient(shape, spacing)
    assert dot_test(operator, dtype=dtype) < limit
    assert dot_test(operator.H, dtype=dtype) < limit


@pytest.mark.parametrize(("shape", "spacing"), CASES)
def test_adjoint_equals_the_vector_jacobian_product(shape, spacing):
    operator = Gradient(shape, spacing)
    y = random(2, 3, len(shape), *shape)
    torch.testing.assert_close(operator.adjoint(y), LinearOperator.adjoint(operator, y))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_leading_axes_are_handled_one_by_one_and_what_is_passed_stays(dtype):
    operator, x = Gradient((6, 5)), random(4, 2, 6, 5, dtype=dtype)
    before = x.clone()
    gradient = operator(x)
    assert gradient.dtype == dtype
    assert torch.equal(gradient[3, 1], operator(x[3, 1]))
    back = operator.adjoint(gradient)
    assert back.dtype == dtype
    assert torch.equal(back[3, 1], operator.adjoint(gradient[3, 1]))
    assert torch.equal(x, before)
    assert torch.equal(gradient, operator(x))


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_a_flat_object_has_none_and_a_slope_has_its_own(ndim):
    shape, spacing = (6, 5, 4)[:ndim], (0.2, 1.5, 4.0)[:ndim]
    operator = Gradient(shape, spacing)
    assert float(operator(torch.full(shape, 7.0)).abs().max()) == 0.0
    place = np.meshgrid(*(np.arange(n) * s for n, s in zip(shape, spacing, strict=True)), indexing="ij")
    slopes = np.array([3.0, -1.0, 0.5][:ndim])
    ramp = torch.from_numpy(sum(a * p for a, p in zip(slopes, place, strict=True)))
    inner = operator(ramp)[(slice(None), *(slice(-1) for _ in shape))]
    np.testing.assert_allclose(inner.flatten(1).mT.numpy(), np.broadcast_to(slopes, (inner[0].numel(), ndim)))


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_its_norm_is_that_of_the_textbook(ndim):
    """At most the root of 4 per axis, nearly reached (Chambolle 2004, J. Math. Imaging Vis. 20, 89)."""
    largest = norm(Gradient((24, 20, 16)[:ndim]), margin=0.0)
    assert 0.97 * math.sqrt(4 * ndim) < largest <= math.sqrt(4 * ndim)


@pytest.mark.parametrize(
    ("spacing", "words"),
    [
        (
            (1.0,),
            r"spacing=\(1.0,\) does not fit an object of the shape \(5, 4\); give one",
        ),
        ((1.0, 1.0, 1.0), "does not fit"),
        ((1.0, 0.0), "does not fit"),
        ((1.0, -2.0), "does not fit"),
        ((1.0, math.nan), "does not fit"),
        ((1.0, math.inf), "does not fit"),
    ],
)
def test_a_spacing_that_cannot_be_is_refused(spacing, words):
    with pytest.raises(InputError, match=words):
        Gradient((5, 4), spacing)


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(InputError, match=r"Gradient.forward expects a object whose last axes are \(5, 4\)"):
        Gradient((5, 4))(torch.zeros(4, 5))
    with pytest.raises(InputError, match=r"last axes are \(2, 5, 4\), got the shape \(3, 5, 4\)"):
        Gradient((5, 4)).adjoint(torch.zeros(3, 5, 4))


def test_its_values_are_not_pixels_of_its_object():
    assert Gradient((5, 4)).field_of_view is None
