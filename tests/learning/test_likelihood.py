"""The learned noise: it finds what was simulated, and aims at the truth where L1 and L2 do not."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from selfinv.learning.likelihood import NoiseLikelihood

N = 200_000


def fitted(y: torch.Tensor, mean: torch.Tensor, steps: int = 300) -> NoiseLikelihood:
    """The noise's parameters for a known mean."""
    likelihood = NoiseLikelihood(y, torch.zeros_like(y, dtype=torch.bool))
    optimiser = torch.optim.Adam(likelihood.parameters(), lr=0.05)
    everything = torch.ones_like(y, dtype=torch.bool)
    for _ in range(steps):
        optimiser.zero_grad()
        likelihood(mean, y, everything).backward()
        optimiser.step()
    return likelihood.requires_grad_(False)


def image(seed: int, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
    return low + (high - low) * torch.rand(1, 1, 400, 500, generator=torch.Generator().manual_seed(seed))


def test_it_finds_read_noise_photon_noise_and_the_share_of_wild_values():
    generator = np.random.default_rng(0)
    mean = torch.linspace(0.0, 1.0, 500).expand(1, 1, 400, 500)
    y = mean.numpy() + np.sqrt(0.02**2 + 0.01 * mean.numpy()) * generator.normal(size=mean.shape)
    wild = generator.random(mean.shape) < 0.03
    y[wild] += generator.laplace(scale=0.5, size=mean.shape)[wild]
    found = fitted(torch.from_numpy(y).float(), mean)
    for level in (0.0, 0.5, 1.0):
        expected = math.sqrt(0.02**2 + 0.01 * level)
        assert float(found.deviation(torch.tensor(level)).detach()) == pytest.approx(expected, rel=0.25)
    assert float(torch.sigmoid(found.wildness)) == pytest.approx(0.03, rel=0.3)
    assert float(found.log_width.exp()) == pytest.approx(0.5, rel=0.2)


@pytest.mark.parametrize("truth", [-0.03, 0.0, 0.05, 0.3])
def test_where_noise_is_cut_off_it_aims_at_the_mean_before_the_cut(truth):
    """Of a constant darkness the mean of the data is too bright; the likeliest mean is the true one."""
    generator = torch.Generator().manual_seed(1)
    scene = torch.full((1, 1, 400, 500), truth)
    scene[..., 250:] = torch.linspace(0.0, 1.0, 250)
    y = (scene + 0.1 * torch.randn(scene.shape, generator=generator)).clamp(0, 1)
    likelihood = fitted(y, scene)
    assert likelihood.cut_low
    dark = torch.zeros_like(scene, dtype=torch.bool)
    dark[..., :250] = True
    guesses = truth + torch.linspace(-0.1, 0.1, 41)
    with torch.no_grad():
        costs = torch.stack([likelihood(torch.full_like(y, float(g)), y, dark) for g in guesses])
    assert float(guesses[costs.argmin()]) == pytest.approx(truth, abs=0.011)
    if truth <= 0.0:
        assert float(y[dark].mean()) > truth + 0.025


def test_it_is_the_logarithm_of_a_probability():
    """Sum of the masses at the limits and the integral between them: 1."""
    y = torch.cat([torch.zeros(300), torch.ones(300), torch.rand(600)]).reshape(1, 1, 30, 40)
    y = y.flatten()[torch.randperm(1200, generator=torch.Generator().manual_seed(0))].reshape(y.shape)
    likelihood = NoiseLikelihood(y, torch.zeros_like(y, dtype=torch.bool)).double()
    assert likelihood.cut_low
    assert likelihood.cut_high
    mean = torch.tensor(0.7, dtype=torch.float64)
    scale = float(likelihood.deviation(mean))

    def density(values: torch.Tensor) -> torch.Tensor:
        one = torch.ones(1, dtype=torch.bool)
        return torch.stack([torch.exp(-likelihood(mean[None], v[None], one) / scale) for v in values])

    inside = torch.linspace(1e-9, 1 - 1e-9, 4001, dtype=torch.float64)
    with torch.no_grad():
        integral = float(torch.trapezoid(density(inside), inside))
        ends = density(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert integral + float(ends.sum()) == pytest.approx(1.0, abs=1e-3)
    wild, width = float(torch.sigmoid(likelihood.wildness)), float(likelihood.log_width.exp())
    expected = (1 - wild) * stats.norm.cdf(-0.7 / scale) + wild * stats.laplace.cdf(-0.7 / width)
    assert float(ends[0]) == pytest.approx(expected, rel=1e-6)


def test_no_value_is_given_up():
    """A star that is not explained yet still pulls, however far it stands out of the noise."""
    y = 0.01 * torch.randn(1, 1, 100, 100, generator=torch.Generator().manual_seed(0))
    y[..., 50, 50] = 1.0
    likelihood = NoiseLikelihood(y, torch.zeros_like(y, dtype=torch.bool))
    mean = torch.zeros_like(y).requires_grad_()
    likelihood(mean, y, torch.ones_like(y, dtype=torch.bool)).backward()
    typical = float(mean.grad.abs().median())
    assert float(mean.grad[..., 50, 50].abs()) > 0.05 * typical


def test_samples_are_distributed_as_the_likelihood_says():
    y = image(2) + 0.1 * torch.randn(1, 1, 400, 500, generator=torch.Generator().manual_seed(3))
    likelihood = NoiseLikelihood(y, torch.zeros_like(y, dtype=torch.bool))
    with torch.no_grad():
        likelihood.wildness.fill_(math.log(0.2 / 0.8))
    mean = torch.full((N,), 0.4)
    error = (likelihood.sample(mean, torch.Generator().manual_seed(4)) - mean).numpy()
    deviation, width = float(likelihood.deviation(mean[:1])), float(likelihood.log_width.exp())
    for point in (-2 * deviation, -0.5 * deviation, 0.0, deviation, 3 * deviation):
        expected = 0.8 * stats.norm.cdf(point / deviation) + 0.2 * stats.laplace.cdf(point / width)
        assert float(np.mean(error <= point)) == pytest.approx(expected, abs=0.005)


def test_values_that_are_missing_or_not_scored_have_no_influence():
    y = image(5)
    missing = image(6) < 0.1
    likelihood = NoiseLikelihood(y.masked_fill(missing, 0.0), missing)
    other = NoiseLikelihood(y.masked_fill(missing, 7.0), missing)
    assert (likelihood.low, likelihood.high) == (other.low, other.high)
    mean = torch.full_like(y, 0.5).requires_grad_()
    likelihood(mean, y, ~missing).backward()
    assert float(mean.grad[missing].abs().max()) == 0.0
