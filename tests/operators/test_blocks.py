"""Convolution by blocks: the same numbers as the textbook's sum, wherever the blocks are cut."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.signal
import torch
from registry import asymmetric_kernel

from selfinv.operators import Convolution, dot_test
from selfinv.operators.blocks import Axis, Blocks

BOUNDARIES = ("zero", "reflect", "unknown", "periodic")


def by_the_sum(x, h, result, shift):
    places = np.arange(result)[:, None] + shift - np.arange(len(h))
    values = np.where((places >= 0) & (places < len(x)), x[places.clip(0, len(x) - 1)], 0.0)
    return values @ h


@pytest.mark.parametrize("count", [1, 2, 4, 10])
@pytest.mark.parametrize(
    ("source", "result", "kernel", "shift"),
    [(40, 40, 5, 2), (40, 40, 4, 2), (44, 40, 5, 4), (40, 44, 5, 0), (9, 9, 17, 8), (40, 40, 1, 0)],
)
def test_an_axis_in_any_number_of_blocks(source, result, kernel, shift, count):
    rng = np.random.default_rng(0)
    x, h = rng.normal(size=(3, source)), rng.normal(size=kernel)
    blocks = Blocks((source,), (result,), (kernel,), (shift,))
    blocks.cut((Axis(source, result, kernel, shift, count),))
    spectrum = blocks.spectrum(torch.from_numpy(h), torch.float64)
    ours = blocks.convolve(torch.from_numpy(x), spectrum)
    np.testing.assert_allclose(ours, [by_the_sum(row, h, result, shift) for row in x], atol=1e-12)


@pytest.mark.parametrize("counts", [(1, 1), (2, 1), (1, 2), (3, 2), (4, 5)])
def test_a_plane_in_any_number_of_blocks(counts):
    rng = np.random.default_rng(1)
    x, h = rng.normal(size=(60, 47)), rng.normal(size=(7, 4))
    blocks = Blocks(x.shape, x.shape, h.shape, (3, 2))
    blocks.cut(tuple(Axis(n, n, k, k // 2, c) for n, k, c in zip(x.shape, h.shape, counts, strict=True)))
    ours = blocks.convolve(torch.from_numpy(x), blocks.spectrum(torch.from_numpy(h), torch.float64))
    expected = scipy.signal.convolve(x, h, method="direct")[3:63, 2:49]
    np.testing.assert_allclose(ours, expected, atol=1e-12)


def test_a_gpu_s_few_lengths_hold_all_of_a_convolution():
    rng = np.random.default_rng(1)
    x, h = rng.normal(size=(60, 90)), rng.normal(size=(7, 4))
    blocks = Blocks(x.shape, x.shape, h.shape, (3, 2), gpu=True)
    assert blocks.size == (64, 96)
    ours = blocks.convolve(torch.from_numpy(x), blocks.spectrum(torch.from_numpy(h), torch.float64))
    expected = scipy.signal.convolve(x, h, method="direct")[3:63, 2:92]
    np.testing.assert_allclose(ours, expected, atol=1e-12)


def test_uncut_on_a_gpu():
    shape, kernel = (4096, 4096), (17, 17)
    blocks = Blocks(shape, shape, kernel, (8, 8), gpu=True)
    assert [axis.count for axis in blocks.axes] == [1, 1]
    assert len(Blocks(shape, shape, kernel, (8, 8)).places) > 1


@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize(
    ("shape", "kernel"), [((700, 530), (17, 12)), ((40, 36, 50), (5, 8, 9)), ((5000,), (31,))]
)
def test_large_images_agree_with_scipy_and_have_the_right_adjoint(shape, kernel, boundary, dtype, most):
    h = asymmetric_kernel(kernel)
    operator = Convolution(h, shape, boundary, "fft")
    if boundary == "zero":
        x = torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=dtype)
        expected = scipy.signal.oaconvolve(x.double().numpy(), h.numpy())
        expected = expected[tuple(slice(k // 2, k // 2 + n) for n, k in zip(shape, kernel, strict=True))]
        np.testing.assert_allclose(operator(x), expected, atol=most)
    assert dot_test(operator, dtype=dtype) < most


def test_derivatives_of_every_order():
    operator = Convolution(asymmetric_kernel((3, 5, 4)), (12, 11), "unknown", "fft")
    x = torch.rand(3, *operator.in_shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(operator, x, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(lambda x: operator(x).square(), x)


@pytest.mark.parametrize("shape", [(12, 11), (300, 200)], ids=["whole", "blocks"])
def test_one_image_through_a_kernel_per_channel_gathers_the_gradients_of_all_channels(shape):
    kernels = asymmetric_kernel((3, 5, 4))
    operator = Convolution(kernels, shape, "zero", "fft")
    x = torch.rand(shape, dtype=torch.float64, requires_grad=True)
    y = torch.rand(3, *shape, dtype=torch.float64)
    blurred = operator(x)
    singles = [Convolution(k, shape, "zero") for k in kernels]
    assert torch.allclose(blurred, torch.stack([single(x) for single in singles]), atol=1e-12)
    assert torch.allclose(operator(x[None]), blurred, atol=1e-12)  # one channel for all kernels
    (gradient,) = torch.autograd.grad(blurred, x, y)
    expected = sum(single.adjoint(v) for single, v in zip(singles, y, strict=True))
    assert torch.allclose(gradient, expected, atol=1e-12)


def test_the_jacobian_is_the_matrix():
    operator = Convolution(asymmetric_kernel((4,)), (9,), "zero", "fft")
    x = torch.zeros(9, dtype=torch.float64)
    matrix = operator(torch.eye(9, dtype=torch.float64)).T
    for jacobian in (torch.func.jacrev, torch.func.jacfwd):
        assert torch.allclose(jacobian(operator)(x), matrix, atol=1e-12)


def test_huge_images_are_cut_small_and_large_kernels_not_at_all():
    many = Blocks((4096, 4096), (4096, 4096), (17, 17), (8, 8))
    assert np.prod(many.size) < 2**18
    assert many.paired is not None
    whole = Blocks((64, 64), (64, 64), (101, 101), (50, 50))
    assert [axis.count for axis in whole.axes] == [1, 1]
    for shape in itertools.product((1, 2, 30), repeat=2):  # the smallest images have a way, too
        assert Blocks(shape, shape, (3, 3), (1, 1)).size
