"""The noise of one image as a line over the intensity."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage import data

from selfinv.learning.noise_line import local_mean, of_counts, of_finest_detail, of_residuals
from selfinv.learning.own_values import find_noise


def tensors(*images):
    return [torch.from_numpy(np.ascontiguousarray(z)).float()[None, None] for z in images]


def nothing_missing(y):
    return torch.zeros_like(y, dtype=torch.bool)


@pytest.mark.parametrize("shape", [(1, 1, 6000), (2, 3, 96, 96), (1, 1, 16, 40, 40), (1, 1, 2, 96, 96)])
def test_the_finest_detail_of_noise_alone_has_its_variance(shape):
    y = 0.3 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = of_finest_detail(y, torch.zeros(shape), nothing_missing(y))
    assert float(found.variance(torch.tensor(0.0))) == pytest.approx(0.09, rel=0.25)


@pytest.mark.parametrize("name", ["brick", "camera", "coins"])
def test_the_finest_detail_is_nearer_to_the_noise_than_what_neighbours_leave(name):
    truth = getattr(data, name)()[:256, :256] / 255.0
    noisy = truth + np.random.default_rng(0).normal(0, 0.02, truth.shape)
    around = np.ones((3, 3))
    around[1, 1] = 0.0
    y, blind = tensors(noisy, ndimage.convolve(noisy, around / 8.0))
    missing, level = nothing_missing(y), torch.tensor(truth.mean())
    detail, residuals = (
        float(f(y, blind, missing).variance(level)) for f in (of_finest_detail, of_residuals)
    )
    assert 0.9 * 0.02**2 < detail < residuals
    assert float(find_noise(y, blind, missing)[0].variance(level)) == detail


def test_what_is_missing_has_no_say():
    y = torch.randn((1, 1, 128, 128), generator=torch.Generator().manual_seed(1))
    missing = nothing_missing(y)
    missing[..., 40:60, 30:90] = True
    found = [of_finest_detail(y.masked_fill(missing, junk), y * 0, missing) for junk in (0.0, 1e6)]
    assert found[0] == found[1]
    assert of_finest_detail(y, y * 0, ~nothing_missing(y)) is None
    assert of_residuals(y, y * 0, ~nothing_missing(y)) is None


def test_photon_noise_of_bright_bars_on_nothing_grows_with_the_light():
    """A constant line gave the bars less noise than they have: their photons were taken for detail."""
    bars = np.zeros((256, 256))
    for i in range(12):
        bars[60:200, 20 * i + 5 : 20 * i + 13] = 10.0 * (1 + i % 4)
    y, blind = tensors(np.random.default_rng(0).poisson(bars).astype(float), bars)
    (found,) = find_noise(y, blind, nothing_missing(y))
    assert float(found.variance(torch.tensor(30.0))) > 0.7 * 30.0


def test_a_local_mean_leaves_out_what_is_missing():
    x = torch.ones(1, 1, 64, 64)
    missing = nothing_missing(x)
    missing[..., 20:40, :] = True
    assert torch.allclose(local_mean(x.masked_fill(missing, 9.0), missing)[~missing], torch.tensor(1.0))


def spots(photons=30.0, seed=0):
    """A few blurred points on nothing."""
    light = np.zeros((128, 128))
    light[tuple(np.random.default_rng(seed).integers(8, 120, (2, 40)))] = 25.0 * photons
    return ndimage.gaussian_filter(light, 2.0)


@pytest.mark.parametrize("gain", [1.0, 12.0])
def test_rare_photons_on_nothing_have_the_noise_of_whole_numbers(gain):
    light = spots()
    y, blind = tensors(gain / 500 * np.random.default_rng(0).poisson(light), gain / 500 * light)
    found = of_counts(y, blind, nothing_missing(y))
    for level in (1.0, 10.0):
        variance = float(found.variance(torch.tensor(level * gain / 500)))
        assert variance == pytest.approx(level * (gain / 500) ** 2, rel=1e-3)


def test_a_cameras_whole_numbers_are_not_taken_for_photons():
    light, generator = spots(), np.random.default_rng(0)
    for noisy in (
        np.round(4.0 * generator.poisson(light) + generator.normal(0.0, 2.0, light.shape)),
        light + generator.normal(0.0, 1.0, light.shape),
        np.zeros_like(light),
    ):
        y, blind = tensors(noisy, light)
        assert of_counts(y, blind, nothing_missing(y)) is None
