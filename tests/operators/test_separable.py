"""Coarser pixels against scikit-image and integrals, shifts against SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import skimage.transform
import torch
from registry import asymmetric_kernel

from selfinv.operators import Convolution, Downsample, Shift, norm
from selfinv.types import InputError


@pytest.mark.parametrize(("shape", "factor"), [((12,), 4), ((12, 9), (3, 3)), ((6, 8, 10), (3, 1, 2))])
def test_whole_factors_average_blocks(shape, factor):
    x = np.random.default_rng(0).normal(size=shape)
    blocks = (factor,) * len(shape) if isinstance(factor, int) else factor
    expected = skimage.transform.downscale_local_mean(x, blocks)
    np.testing.assert_allclose(Downsample(shape, factor)(torch.from_numpy(x)), expected, atol=1e-12)


def test_what_does_not_fill_a_coarse_pixel_is_left_out():
    x = torch.arange(11.0)
    assert Downsample((11,), 4)(x).tolist() == [1.5, 5.5]


@pytest.mark.parametrize("factor", [1.25, 1.5, 2.3, np.pi, 10 / 3, 13.0])
def test_other_factors_integrate_over_each_coarse_pixel(factor):
    n = 13
    x = np.random.default_rng(1).normal(size=n)
    integral = np.concatenate([[0.0], np.cumsum(x)])  # of the object, constant within each fine pixel
    edges = np.interp(np.arange(int(n / factor) + 1) * factor, np.arange(n + 1), integral)
    ours = Downsample((n,), factor)(torch.from_numpy(x))
    np.testing.assert_allclose(ours, np.diff(edges) / factor, atol=1e-12)


def test_coarse_pixels_are_not_pixels_of_the_object():
    assert Downsample((8, 8), (1, 2)).field_of_view is None
    assert Downsample((8, 8), 1).field_of_view == (slice(0, 8), slice(0, 8))
    blur = Convolution(asymmetric_kernel((3, 3)), (12, 12))
    product = Downsample((12, 12), 2) @ blur
    assert product.field_of_view is None
    assert product.in_shape == (14, 14)
    assert norm(product) < 1.1


@pytest.mark.parametrize(("boundary", "mode"), [("reflect", "reflect"), ("zero", "grid-constant")])
@pytest.mark.parametrize("offset", [(0.25, -0.5), (3.7, -12.2), (2.0, 0.0), (-30.3, 8.0)])
def test_shift_is_scipys_linear_one(boundary, mode, offset):
    x = np.random.default_rng(0).normal(size=(9, 8))
    expected = scipy.ndimage.shift(x, offset, order=1, mode=mode)
    np.testing.assert_allclose(Shift(x.shape, offset, boundary)(torch.from_numpy(x)), expected, atol=1e-12)


def test_shifted_values_are_not_where_the_object_is():
    assert Shift((4, 5), (0.0, 0.1)).field_of_view is None
    assert Shift((4, 5), 0).field_of_view == (slice(0, 4), slice(0, 5))


def test_mistakes_are_said_in_words():
    with pytest.raises(InputError, match=r"factor=0.5 does not fit"):
        Downsample((8, 8), 0.5)
    with pytest.raises(InputError, match=r"factor=\(2, 2, 2\).*one per axis"):
        Downsample((8, 8), (2, 2, 2))
    with pytest.raises(InputError, match="boundary='edge' is unknown"):
        Shift((8, 8), 0.5, "edge")
    with pytest.raises(InputError, match="not finite"):
        Shift((8, 8), float("nan"))
    for kind, name in ((Downsample, "factor"), (Shift, "offset")):
        for value in (None, "ab", (2, None), 2j):
            with pytest.raises(
                InputError, match=f"{name}=.* is no array; expected one number, or one per axis"
            ):
                kind((8, 8), value)
    for factor in (0, -1, float("nan")):
        with pytest.raises(
            InputError, match=f"factor={factor} does not fit .*; expected fine pixels per coarse"
        ):
            Downsample((8, 8), factor)


@pytest.mark.parametrize(
    "factor", [np.float64(2.6), np.array(2.6), np.array([2.6, 2.6]), torch.tensor(2.6, dtype=torch.float64)]
)
def test_numbers_of_numpy_and_torch_are_numbers(factor):
    assert Downsample((8, 8), factor).factor == (2.6, 2.6)


def test_arrays_of_any_byte_order_and_stride_are_numbers():
    offsets = np.array([1.5, 2.0])
    for given in (offsets[::-1], offsets[::-1].astype(">f8"), iter([2.0, 1.5])):
        assert Shift((8, 8), given).offset == (2.0, 1.5)
