"""The noise of one image as a line over the intensity."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage import data

from selfinv.learning.noise_line import (
    local_mean,
    of_counts,
    of_finest_detail,
    of_residuals,
    standing_out,
    surplus,
)
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


@pytest.mark.parametrize("shape", [(2, 3, 96, 96), (1, 1, 16, 48, 48)])
def test_noise_that_is_larger_in_some_places_and_frames_is_seen(shape):
    """Telling it by intensity alone took it for detail, which was then kept."""
    deviation = torch.full(shape, 0.05)
    deviation[..., shape[-1] // 2 :] *= 3.0
    deviation[-1] *= 2.0
    y = deviation * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = surplus(y, nothing_missing(y), torch.full(shape, 0.05**2))
    inside = [found[..., :16], found[..., -16:]]  # not where both are within sight
    for frame in range(shape[0]):
        expected = 4.0 if frame == shape[0] - 1 else 1.0
        assert float(inside[0][frame].mean()) == pytest.approx(expected, rel=0.2)
        assert float(inside[1][frame].mean()) == pytest.approx(9.0 * expected, rel=0.2)


@pytest.mark.parametrize("shape", [(2, 3, 256, 256), (1, 1, 32, 64, 64)])
def test_noise_as_it_is_told_has_no_surplus(shape):
    y = 0.3 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    assert float(surplus(y, nothing_missing(y), torch.full(shape, 0.09)).mean()) < 1.01


@pytest.mark.parametrize(
    "shape", [(1, 1, 6000), (1, 1, 1, 2000), (1, 1, 3, 3), (1, 1, 2, 9, 9), (1, 1, 25, 25)]
)
def test_of_a_line_or_few_values_nothing_more_is_told(shape):
    y = 3.0 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(surplus(y, nothing_missing(y), torch.ones(shape)), torch.ones(shape))


@pytest.mark.parametrize("shape", [(1, 1, 41, 39), (1, 2, 40, 40, 1), (2, 1, 1, 40, 40), (1, 1, 2, 33, 35)])
def test_any_other_shape_will_do(shape):
    y = 3.0 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = surplus(y, nothing_missing(y), torch.ones(shape))
    assert found.shape == shape
    assert float(found.mean()) == pytest.approx(9.0, rel=0.2)


@pytest.mark.parametrize("name", ["grass", "gravel", "coins", "page"])
def test_texture_is_no_noise(name):
    truth = getattr(data, name)()[:256, :256] / 255.0
    (y,) = tensors(truth + np.random.default_rng(0).normal(0, 0.01, truth.shape))
    found = surplus(y, nothing_missing(y), torch.full_like(y, 0.01**2))
    texture = float(y.diff(n=2, dim=-1).square().mean()) / 6.0 / 0.01**2
    assert float((found - 1.0).mean()) < 0.05 * texture


def test_what_is_missing_does_not_count_as_detail():
    y = torch.randn((1, 1, 96, 96), generator=torch.Generator().manual_seed(1))
    missing = nothing_missing(y)
    missing[..., 40:60, 30:50] = True
    found = [surplus(y.masked_fill(missing, junk), missing, torch.ones_like(y)) for junk in (0.0, 1e6)]
    assert torch.equal(*found)
    assert float(found[0].max()) < 1.5
    assert torch.equal(surplus(y, ~nothing_missing(y), torch.ones_like(y)), torch.ones_like(y))


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


def test_photons_on_nothing_are_known_where_predictions_are_poor_but_not_those_that_are_cut_off():
    light = spots()
    counts = np.random.default_rng(0).poisson(light).astype(float)
    y, blind = tensors(counts, 0.5 * light)
    found = of_counts(y, blind, nothing_missing(y))
    assert found.exact
    assert (found.offset, found.slope) == (0.0, 1.0)
    assert of_counts(y, blind, nothing_missing(y), (0.0, None)) is None
    threshold = np.where(counts < 3.0, 0.0, counts)
    assert of_counts(*tensors(threshold, 0.5 * light), nothing_missing(y)) is None


def test_a_few_values_that_stand_out_say_nothing_of_the_noise_around_them():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn((1, 1, 128, 128), generator=generator)
    assert not standing_out(noise, nothing_missing(noise)).any()
    y = noise.clone()
    few = torch.rand(noise.shape, generator=generator) < 0.03
    y[few] += 30.0
    assert torch.equal(standing_out(y, nothing_missing(y)), few)
    blind = torch.zeros_like(y)
    assert of_residuals(y, blind, nothing_missing(y)) is None  # it is nowhere spread as noise is
    others = of_residuals(y, blind, nothing_missing(y), sparse=True)
    assert float(others.variance(torch.tensor(0.0))) == pytest.approx(1.0, rel=0.1)


def test_a_cameras_whole_numbers_are_not_taken_for_photons():
    light, generator = spots(), np.random.default_rng(0)
    for noisy in (
        np.round(4.0 * generator.poisson(light) + generator.normal(0.0, 2.0, light.shape)),
        light + generator.normal(0.0, 1.0, light.shape),
        np.zeros_like(light),
    ):
        y, blind = tensors(noisy, light)
        assert of_counts(y, blind, nothing_missing(y)) is None
