"""How much power of an object a measurement has at each frequency."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from selfinv.learning.forward_model import ForwardModel
from selfinv.learning.normalisation import Normalisation
from selfinv.learning.transfer import Transfer
from selfinv.operators import Convolution, Downsample, MixedConvolution
from selfinv.psf import gaussian as gaussian_psf

N = 128
LIKE = torch.zeros((), dtype=torch.float64)


def forward(operator, scale=1.0):
    return ForwardModel(operator, Normalisation(0.2, 1.0 / scale), Normalisation(0.1, 1.0))


def blur(sigma, boundary="periodic"):
    return Convolution(torch.from_numpy(gaussian_psf(sigma, (15, 15))), (N, N), boundary)


def test_a_filter_lets_each_frequency_through_by_itself():
    transfer = Transfer.of(forward(blur(1.0), scale=3.0), 1, LIKE)
    assert transfer.is_filter
    (gains,) = transfer.gains
    kernel = np.zeros((N, N))
    kernel[:15, :15] = gaussian_psf(1.0, (15, 15))
    expected = np.abs(np.fft.rfft2(kernel)) ** 2
    inside = transfer.cell >= 0
    found = (gains @ np.ones(len(transfer.frequency)))[transfer.cell[inside]]
    assert np.allclose(found, 9.0 * expected.flatten()[inside], rtol=1e-6, atol=1e-12)
    only = np.zeros(len(transfer.frequency))
    only[7] = 1.0
    assert (transfer.by_ring(gains @ only) > 0.0).nonzero()[0].tolist() == [7]


def test_what_is_tried_on_random_objects_is_what_a_filter_is_known_to_do():
    # The same kernel four times is a blur that is the same everywhere, which nothing tells.
    kernels = torch.from_numpy(gaussian_psf(1.0, (15, 15))).expand(4, 15, 15)
    corners = [[0, 0], [0, N - 1], [N - 1, 0], [N - 1, N - 1]]
    mixed = MixedConvolution(kernels, (N, N), positions=corners, boundary="periodic")
    tried, known = (Transfer.of(forward(A, scale=0.5), 2, LIKE) for A in (mixed, blur(1.0)))
    assert not tried.is_filter
    assert len(tried.gains) == 2
    power = tried.frequency**-2.0
    for part in tried.gains:
        found, expected = (t.by_ring(g @ power) for t, g in ((tried, part), (known, known.gains[0])))
        low = tried.measured_frequency < 0.3
        assert np.allclose(found[low], expected[low], rtol=0.25)


def test_waves_too_fine_for_coarse_pixels_are_seen_as_longer_ones():
    A = Downsample((N, N), 2) @ blur(0.5)
    transfer = Transfer.of(forward(A), 1, LIKE)
    (gains,) = transfer.gains
    # By aliasing: of both the wave itself and those that look the same on the coarse grid, a quarter each.
    fine = np.fft.fftfreq(N)
    radius = np.hypot(fine[:, None], fine)
    pixels = np.cos(np.pi * fine[:, None]) ** 2 * np.cos(np.pi * fine) ** 2
    power = radius**3
    kernel = np.zeros((N, N))
    kernel[:15, :15] = gaussian_psf(0.5, (15, 15))
    passed = (power * pixels * np.abs(np.fft.fft2(kernel)) ** 2).reshape(2, N // 2, 2, N // 2).mean((0, 2))
    found = transfer.by_ring(gains @ transfer.frequency**3)
    half = passed[:, : N // 4 + 1]
    twice = np.full(half.shape, 2.0)
    twice[:, [0, -1]] = 1.0
    inside = transfer.cell >= 0
    expected = np.bincount(transfer.cell[inside], (half * twice).flatten()[inside]) / transfer.count
    high = transfer.measured_frequency > 0.15  # where there is little, some of the rest gets in by the taper
    assert np.allclose(found[high], expected[high], rtol=0.3)
    assert np.average(found, weights=transfer.modes) == pytest.approx(passed.mean(), rel=0.1)


def test_power_is_that_of_the_values_there_are():
    transfer = Transfer.of(forward(blur(1.0)), 1, LIKE)
    values = 0.3 * torch.from_numpy(np.random.default_rng(0).standard_normal((1, N, N)))
    seen = torch.ones_like(values)
    seen[..., : N // 3] = 0.0
    for power in (transfer.power_of(values), transfer.power_of(values, seen)):
        assert np.average(power[0], weights=transfer.count) == pytest.approx(0.09, rel=0.08)
