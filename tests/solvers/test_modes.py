"""Modes against SciPy's cosine transform, and what an operator does to them against sinusoids."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import scipy.fft
import torch

from selfinv.operators import Composition, Convolution
from selfinv.solvers.modes import Modes, power_transfer

REGISTRY = runpy.run_path(str(Path(__file__).parents[1] / "operators" / "registry.py"))
asymmetric_kernel = REGISTRY["asymmetric_kernel"]


@pytest.mark.parametrize("periodic", [False, True])
def test_the_power_transfer_is_that_of_sinusoids(periodic):
    kernel = asymmetric_kernel((3, 4))
    inner = Convolution(kernel, (32, 32), "periodic")
    operator = 2.0 * Composition(inner, inner)
    if not periodic:  # the same far from edges
        outer = Convolution(kernel, (32, 32), "unknown")
        operator = 2.0 * Composition(outer, Convolution(kernel, outer.in_shape, "periodic"))
    modes = Modes(operator.in_shape, periodic, kernel)
    power = power_transfer(operator, modes)
    for index in ((0, 0), (3, 5), (9, 2)):
        f = [axis[i] for axis, i in zip(modes.axes, index, strict=True)]
        once = []
        for sign in (1,) if periodic else (1, -1):  # a cosine is the sum of waves either way
            places = [torch.arange(n, dtype=torch.float64) for n in kernel.shape]
            phase = f[0] * places[0][:, None] + sign * f[1] * places[1]
            once.append(float((kernel * torch.exp(2j * torch.pi * phase)).sum().abs() ** 2))
        assert float(power[index]) == pytest.approx((2.0 * np.mean(once)) ** 2, rel=1e-6)


@pytest.mark.parametrize("n", [1, 2, 7, 8])
def test_the_cosines_are_scipys(n):
    x = torch.randn(3, 5, n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    modes = Modes((5, n), False, x)
    assert np.allclose(modes.analyse(x), scipy.fft.dctn(x.numpy(), axes=(1, 2), norm="ortho"))
    assert torch.allclose(modes.synthesise(modes.analyse(x)), x)
