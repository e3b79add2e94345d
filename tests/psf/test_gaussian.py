import numpy as np
import pytest
from numpy.testing import assert_allclose

from selfinv.psf import gaussian
from selfinv.types import InputError


def moments(psf, axis):
    """Mean and variance along an axis, in pixels from n // 2."""
    profile = psf.sum(axis=tuple(i for i in range(psf.ndim) if i != axis))
    x = np.arange(len(profile)) - len(profile) // 2
    mean = x @ profile
    return mean, (x - mean) ** 2 @ profile


@pytest.mark.parametrize("shape", [(41,), (40, 41), (33, 40, 31)])
def test_is_as_wide_as_asked_and_centred_for_odd_and_even_sizes(shape):
    sigma = (2.0, 1.5, 1.2)[: len(shape)]
    psf = gaussian(sigma, shape, integrate=False)
    assert psf.sum() == pytest.approx(1)
    assert np.unravel_index(psf.argmax(), shape) == tuple(n // 2 for n in shape)
    for axis, s in enumerate(sigma):
        assert_allclose(moments(psf, axis), (0, s**2), atol=1e-6)


def test_pixel_integration_adds_the_variance_of_a_pixel():
    mean, variance = moments(gaussian(1.5, (41, 41)), 1)
    assert_allclose((mean, variance), (0, 1.5**2 + 1 / 12), atol=1e-6)


def test_pixel_integration_agrees_with_brute_force_subsampling():
    fine = np.arange(-7.5, 7.5, 0.001) + 0.0005
    brute = np.exp(-0.5 * (fine / 0.6) ** 2).reshape(15, 1000).sum(1)
    assert_allclose(gaussian(0.6, (15,)), brute / brute.sum(), atol=1e-6)


def test_sigma_in_micrometres_with_anisotropic_voxels():
    psf = gaussian(0.3, (31, 41, 41), pixel_size=(0.2, 0.1, 0.1), integrate=False)
    assert_allclose([moments(psf, axis)[1] for axis in range(3)], [1.5**2, 3**2, 3**2], rtol=1e-4)


def test_default_shape_holds_four_sigma_and_is_odd():
    psf = gaussian((3.0, 1.0))
    assert psf.shape == (25, 9)
    assert gaussian(0.5, pixel_size=(0.2, 0.1)).shape == (21, 41)


@pytest.mark.parametrize(
    ("sigma", "shape", "pixel_size", "words"),
    [
        (0, (5, 5), 1, "sigma must be a positive number, got 0"),
        (1, (5, 5), -0.1, "pixel_size must be a positive number, got -0.1"),
        (float("nan"), (5,), 1, "sigma must be a positive number, got nan"),
        (1, None, 1, "pass shape="),
        ((1, 2), (5, 5, 5), 1, r"sigma has 2 values but there are 3 axes \(zyx\)"),
        (1, (5, 5, 5, 5), 1, "4 axes; expected 1 .* or 3"),
        (1, (5, 0), 1, "1 or more"),
        (1, (5, 4.5), 1, "whole numbers"),
    ],
)
def test_mistakes_are_named(sigma, shape, pixel_size, words):
    with pytest.raises(InputError, match=words):
        gaussian(sigma, shape, pixel_size=pixel_size)
