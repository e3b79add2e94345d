"""Varying blur against a sum over the object's points."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.interpolate
import torch
from registry import asymmetric_kernel, dense, mixed

from selfinv.operators import Convolution, MixedConvolution, interpolation_weights
from selfinv.types import InputError


@pytest.mark.parametrize("boundary", ["zero", "unknown"])
def test_each_point_is_spread_by_the_mixture_at_its_place(boundary):
    operator = mixed(boundary)
    kernels = np.stack([asymmetric_kernel((3, 4), seed).numpy() for seed in range(4)])
    view = operator.field_of_view
    x = np.random.default_rng(0).normal(size=operator.in_shape)
    expected = np.zeros((30, 30))
    for (i, j), value in np.ndenumerate(x):
        row, column = i - view[0].start, j - view[1].start  # in the measurement's pixels
        u = np.clip((row - 1) / 5, 0, 1)
        v = np.clip((column - 2) / 5.5, 0, 1)
        kernel = np.tensordot([(1 - u) * (1 - v), (1 - u) * v, u * (1 - v), u * v], kernels, axes=1)
        for (a, b), weight in np.ndenumerate(kernel):
            expected[row + a - 1 + 10, column + b - 2 + 10] += value * weight
    ours = operator(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(ours, expected[10:19, 10:18], atol=1e-12)


def test_one_kernel_everywhere_is_a_convolution():
    kernel = asymmetric_kernel((3, 4))
    one = Convolution(kernel, (6, 5), "reflect")
    weights = torch.full((2, 6, 5), 0.5)
    both = MixedConvolution(torch.stack([kernel, kernel]), (6, 5), weights=weights, boundary="reflect")
    assert torch.allclose(dense(both), dense(one), atol=1e-12)
    assert both.field_of_view == one.field_of_view


def test_weights_on_the_measurement_go_on_at_their_edges():
    kernels = torch.stack([asymmetric_kernel((3, 4), seed) for seed in range(4)])
    weights = interpolation_weights([(1, 2), (1, 7), (6, 2), (6, 7)], (9, 8))
    by_weights = MixedConvolution(kernels, (9, 8), weights=weights)
    by_positions = MixedConvolution(kernels, (9, 8), positions=[(1, 2), (1, 7), (6, 2), (6, 7)])
    assert torch.allclose(by_weights.weights, by_positions.weights)
    assert torch.allclose(dense(by_weights), dense(by_positions))


def test_weights_are_scipys_linear_interpolation():
    rows, columns = np.array([0.0, 3, 8]), np.array([1.0, 6])
    positions = [(r, c) for c in columns for r in rows]  # in another order than the grid's
    weights = interpolation_weights(positions, (9, 8)).numpy()
    inside = np.stack(np.meshgrid(np.arange(9), np.clip(np.arange(8), 1, 6), indexing="ij"), axis=-1)
    for k, (r, c) in enumerate(positions):
        values = np.outer(rows == r, columns == c).astype(float)
        expected = scipy.interpolate.RegularGridInterpolator((rows, columns), values)(inside)
        np.testing.assert_allclose(weights[k], expected, atol=1e-12)
    np.testing.assert_allclose(weights.sum(0), 1.0, atol=1e-12)


def test_mistakes_are_said_in_words():
    kernels = torch.ones(3, 3, 3) / 9
    with pytest.raises(InputError, match="either positions or weights"):
        MixedConvolution(kernels, (8, 8))
    with pytest.raises(InputError, match="3 positions are not all points of one grid"):
        MixedConvolution(kernels, (8, 8), positions=[(0, 0), (0, 7), (7, 0)])
    with pytest.raises(InputError, match="weights sum to 3 to 3; expected 1"):
        MixedConvolution(kernels, (8, 8), weights=torch.ones(3, 8, 8))
    with pytest.raises(InputError, match=r"expected \(3, 8, 8\)"):
        MixedConvolution(kernels, (8, 8), weights=torch.ones(2, 8, 8))
    with pytest.raises(InputError, match="expected 3 axes"):
        MixedConvolution(kernels[0], (8, 8), positions=[(0, 0)])
    for wrong in ("a", None, [[None]]):
        with pytest.raises(InputError, match=r"kernel.*=.* is no array; expected arrays of real numbers"):
            MixedConvolution(wrong, (8, 8), positions=[(0, 0)])
    for name in ("positions", "weights"):
        with pytest.raises(InputError, match=f"{name}='a' is no array; expected"):
            MixedConvolution(kernels, (8, 8), **{name: "a"})
