"""Convolution against SciPy's, for every boundary and kernel parity."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
import torch
from registry import KERNELS, SHAPES, asymmetric_kernel

from selfinv.operators import Convolution
from selfinv.types import InputError

CASES = [(d, s, m) for d in (1, 2, 3) for s in KERNELS for m in ("fft", "direct")]
NDIMAGE = {"zero": "constant", "reflect": "reflect", "periodic": "wrap"}


def centred_full(x, kernel, shape):
    full = scipy.signal.convolve(x, kernel, method="direct")
    return full[tuple(slice(k // 2, k // 2 + n) for k, n in zip(kernel.shape, shape, strict=True))]


@pytest.mark.parametrize(("ndim", "size", "method"), CASES)
def test_zero_boundary_is_scipys_full_convolution_cut_at_the_centre(ndim, size, method):
    shape, kernel = SHAPES[ndim], asymmetric_kernel(KERNELS[size][ndim])
    x = np.random.default_rng(0).normal(size=shape)
    ours = Convolution(kernel, shape, "zero", method)(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(ours, centred_full(x, kernel.numpy(), shape), atol=1e-12)


@pytest.mark.parametrize(("ndim", "size", "method"), CASES)
@pytest.mark.parametrize("boundary", ["reflect", "periodic"])
def test_other_boundaries_are_an_extension_and_a_full_convolution(ndim, size, method, boundary):
    shape, kernel = SHAPES[ndim], asymmetric_kernel(KERNELS[size][ndim]).numpy()
    x = np.random.default_rng(0).normal(size=shape)
    reach = max(kernel.shape)
    mode = {"reflect": "symmetric", "periodic": "wrap"}[boundary]
    wide = centred_full(np.pad(x, reach, mode=mode), kernel, [n + 2 * reach for n in shape])
    expected = wide[tuple(slice(reach, reach + n) for n in shape)]
    ours = Convolution(kernel, shape, boundary, method)(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(ours, expected, atol=1e-12)


@pytest.mark.parametrize("boundary", NDIMAGE)
@pytest.mark.parametrize("size", ["odd", "even"])
def test_agrees_with_ndimage(boundary, size):
    kernel = asymmetric_kernel(KERNELS[size][2])
    x = np.random.default_rng(1).normal(size=SHAPES[2])
    ours = Convolution(kernel, SHAPES[2], boundary)(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(
        ours, scipy.ndimage.convolve(x, kernel.numpy(), mode=NDIMAGE[boundary]), atol=1e-12
    )


@pytest.mark.parametrize(("ndim", "size", "method"), CASES)
def test_unknown_boundary_is_the_valid_part(ndim, size, method):
    shape, kernel = SHAPES[ndim], asymmetric_kernel(KERNELS[size][ndim])
    operator = Convolution(kernel, shape, "unknown", method)
    x = np.random.default_rng(0).normal(size=operator.in_shape)
    full = scipy.signal.convolve(x, kernel.numpy(), method="direct")
    valid = full[tuple(slice(k - 1, k - 1 + n) for k, n in zip(kernel.shape, shape, strict=True))]
    np.testing.assert_allclose(operator(torch.from_numpy(x)).numpy(), valid, atol=1e-12)


@pytest.mark.parametrize("size", ["odd", "even"])
@pytest.mark.parametrize("boundary", ["zero", "reflect", "periodic", "unknown"])
@pytest.mark.parametrize("method", ["fft", "direct"])
def test_a_point_becomes_the_psf_centred_on_it(size, boundary, method):
    kernel = asymmetric_kernel(KERNELS[size][2])
    shape = (15, 16)
    operator = Convolution(kernel, shape, boundary, method)
    x = torch.zeros(operator.in_shape, dtype=torch.float64)
    point = (7, 9)
    x[tuple(s.start + p for s, p in zip(operator.field_of_view, point, strict=True))] = 1
    expected = torch.zeros(shape, dtype=torch.float64)
    expected[tuple(slice(p - k // 2, p - k // 2 + k) for p, k in zip(point, kernel.shape, strict=True))] = (
        kernel
    )
    assert torch.allclose(operator(x), expected, atol=1e-12)


def test_a_margin_keeps_the_objects_grid_small_and_mirrors_what_is_beyond():
    kernel, shape = asymmetric_kernel((9, 8)), (12, 10)
    limited = Convolution(kernel, shape, "unknown", margin=(2, 3))
    assert limited.in_shape == (12 + 2 + 2, 10 + 3 + 3)
    x = np.random.default_rng(0).normal(size=limited.in_shape)
    wide = np.pad(x, ((2, 2), (0, 1)), mode="symmetric")  # up to the kernel's reach of 4, 4 and 3, 4
    expected = Convolution(kernel, shape, "unknown")(torch.from_numpy(wide))
    assert torch.allclose(limited(torch.from_numpy(x)), expected, atol=1e-12)
    assert limited.reach is None
    with pytest.raises(InputError, match="margin"):
        Convolution(kernel, shape, "unknown", margin=(1, 2, 3))


def test_transfer_function_follows_the_data_to_another_precision():
    operator = Convolution(asymmetric_kernel((5, 5)), (32, 32), "zero", "fft")
    x = torch.randn(32, 32, dtype=torch.float64)
    single = operator(x.float())
    assert single.dtype == torch.float32
    assert torch.allclose(single.double(), operator(x), atol=1e-5)


def test_one_kernel_per_channel():
    kernels = asymmetric_kernel((3, 5, 5))
    x = torch.randn(2, 3, 20, 21, dtype=torch.float64)
    out = Convolution(kernels, (20, 21), "reflect")(x)
    for c in range(3):
        assert torch.allclose(out[:, c], Convolution(kernels[c], (20, 21), "reflect")(x[:, c]), atol=1e-12)


def test_mistakes_are_said_in_words():
    with pytest.raises(InputError, match="psf has 2 axes but the image has 3 spatial axes"):
        Convolution(torch.ones(3, 3), (8, 8, 8))
    with pytest.raises(InputError, match="boundary='mirror' is unknown"):
        Convolution(torch.ones(3, 3), (8, 8), "mirror")
    with pytest.raises(InputError, match="1 to 3 spatial axes"):
        Convolution(torch.ones(1, 1, 1, 1), (8, 8, 8, 8))
    with pytest.raises(InputError, match="psf has no values; expected real numbers"):
        Convolution(torch.ones(0, 3), (8, 8))
    with pytest.raises(InputError, match="psf is a masked array with 1 masked values"):
        Convolution(np.ma.masked_equal([1.0, 2.0, 1e6], 1e6), (8,))
    with pytest.raises(InputError, match=r"margin must be an integer, got 1\.5"):
        Convolution(torch.ones(3, 3), (8, 8), margin=1.5)


def test_a_kernel_that_is_loaded_is_the_one_that_blurs():
    first, second = (Convolution(asymmetric_kernel((3, 4), seed), (9, 8), method="fft") for seed in (0, 1))
    x = torch.randn(*first.in_shape, dtype=torch.float64)
    assert not torch.allclose(first(x), second(x))
    first.load_state_dict(second.state_dict())
    assert torch.equal(first(x), second(x))
    assert torch.equal(first.adjoint(first(x)), second.adjoint(second(x)))


def test_what_is_said_of_lines_holds_of_windows_and_other_shapes():
    operator = Convolution(torch.ones(3, 3), (12, 12), lines_share_noise=[-1])
    parts = [operator.window((6, 6), [(0, 0), (0, 0)]), operator.for_shape((6, 8)), 2 * operator]
    assert [part.together for part in parts] == [(-1,)] * 3
    for axes in (-3, 0, [1.5]):
        with pytest.raises(InputError, match="lines_share_noise"):
            Convolution(torch.ones(3, 3), (12, 12), lines_share_noise=axes)
