"""Hot pixels are told from what a blur can make, and only for the network's eyes."""

import numpy as np
import pytest
import torch
from scipy import ndimage

import selfinv
from selfinv.learning.inverter import Entrance
from selfinv.learning.masks import neighbour_fill
from selfinv.learning.outliers import OutlierTest
from selfinv.learning.presets import ssi
from selfinv.learning.random import generator_for
from selfinv.operators import Convolution, Identity
from selfinv.psf import gaussian

SHAPE = (80, 90)
PSF = torch.from_numpy(gaussian(1.5, (11, 11)))
A = Convolution(PSF, SHAPE, "zero")
NONE = torch.zeros(1, 1, *SHAPE, dtype=torch.bool)


def measured(sigma=0.05, seed=0):
    """A blurred scene with edges, noisy, with one value in a hundred wild; and where it is."""
    rng = np.random.default_rng(seed)
    scene = (ndimage.gaussian_filter(rng.standard_normal(SHAPE), 4.0) > 0).astype(float)
    y = A(torch.from_numpy(0.2 + 0.6 * scene)).numpy() + sigma * rng.standard_normal(SHAPE)
    wild = rng.random(SHAPE) < 0.01
    y = np.where(wild, np.where(y > 0.5, y - 0.7, y + 0.7), y)
    return torch.from_numpy(y).float()[None, None], torch.from_numpy(wild)[None, None]


def found(test, y, hidden=NONE):
    """Which of the shown values are replaced."""
    filled = neighbour_fill(y, hidden, generator_for(0)) if hidden.any() else y
    return test.replaced(filled, hidden) != filled


def test_most_hot_and_dead_pixels_are_found_and_nearly_nothing_else():
    y, wild = measured()
    taken = found(OutlierTest.of(A, y, NONE), y)
    assert float(taken[wild].float().mean()) > 0.6  # those at edges are left
    assert float(taken[~wild].float().mean()) < 0.002


@pytest.mark.parametrize("width", [0.5, 0.8, 1.2, 2.0, 3.0])
@pytest.mark.parametrize("place", [0.0, 0.5])
def test_a_star_is_none_however_bright(width, place):
    psf = torch.from_numpy(gaussian(width, (15, 15)))
    rows, columns = (torch.arange(n, dtype=torch.float64)[:, None] for n in SHAPE)
    star = (
        torch.exp(-0.5 * ((rows - 40 - place) / width) ** 2)
        @ torch.exp(-0.5 * ((columns - 45) / width) ** 2).T
    )
    noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    test = OutlierTest.of(Convolution(psf, SHAPE), 0.01 * noise[None, None], NONE)
    for brightness in (0.1, 1.0, 100.0):
        y = (brightness * star + 0.01 * noise)[None, None].float()
        assert int(found(test, y)[..., 30:50, 35:55].sum()) == 0


@pytest.mark.parametrize("background", [4.0, 0.0], ids=["dim", "cut off at zero"])
def test_the_noise_of_bright_light_is_none(background):
    """Photon noise is ten times larger in the disc than beside it."""
    rng = np.random.default_rng(0)
    rows, columns = np.indices((200, 200)) - 100
    disc = rows**2 + columns**2 < 30**2
    A = Convolution(PSF, disc.shape, "zero")
    counts = rng.poisson(A(torch.from_numpy(np.where(disc, 400.0, background))).clamp_min(0).numpy())
    counts = np.maximum(0.37 * counts + rng.normal(0, 1.5, disc.shape) - 1.0, 0.0)
    y = torch.from_numpy(counts / 150).float()[None, None]
    none = torch.zeros(y.shape, dtype=torch.bool)
    test = OutlierTest.of(A, y, none)
    assert float(found(test, y, none).float().mean()) < 1e-4
    y[0, 0, 100, 100] = 0.0
    assert found(test, y, none)[0, 0, 100, 100]  # a dead pixel is still found


def test_hidden_values_have_no_say():
    y, _ = measured()
    hidden = torch.rand(y.shape, generator=torch.Generator().manual_seed(1)) < 0.25
    test = OutlierTest.of(A, y, NONE)
    taken = found(test, y, hidden)
    assert taken.any()
    assert not (taken & hidden).any()
    assert torch.equal(taken, found(test, torch.where(hidden, 1e3, y), hidden))


def test_what_is_found_is_filled_in_for_the_network():
    y, wild = measured()
    test = OutlierTest.of(A, y, NONE)
    taken = found(test, y)
    plain, cleaned = (
        Entrance(outliers=outliers)(y, NONE, ((0, 0), (0, 0)), 1, generator_for(0))
        for outliers in (None, test)
    )
    assert torch.equal(plain[:, :1], y)
    assert torch.equal(cleaned[:, :1][~taken], y[~taken])
    assert float((cleaned[:, :1] - y)[taken & wild].abs().min()) > 0.1


def test_without_a_known_blur_there_is_no_test():
    y, _ = measured()
    assert OutlierTest.of(Identity(SHAPE), y, NONE) is None
    assert OutlierTest.of(lambda x: x, y, NONE) is None
    assert OutlierTest.of(Convolution(torch.zeros(5, 5), SHAPE), y, NONE) is None


def test_lines_and_volumes():
    for shape, psf in (((200,), gaussian(1.5, (11,))), ((12, 20, 20), gaussian((1.5, 1.5, 1.5), (9, 9, 9)))):
        y = 0.05 * torch.randn(1, 1, *shape, generator=torch.Generator().manual_seed(0))
        middle = (0, 0, *(n // 2 for n in shape))
        y[middle] = 2.0
        none = torch.zeros(y.shape, dtype=torch.bool)
        taken = found(OutlierTest.of(Convolution(torch.from_numpy(psf), shape), y, none), y, none)
        assert bool(taken[middle])
        assert int(taken.sum()) <= 2


@pytest.mark.parametrize("photons", [2, 10])
def test_hot_pixels_among_photon_counts_are_missing(photons):
    rng = np.random.default_rng(1)
    scene = (ndimage.gaussian_filter(rng.standard_normal(SHAPE), 4.0) > 0).astype(float)
    counts = rng.poisson(photons * A(torch.from_numpy(0.1 + 0.9 * scene)).numpy()).astype(float)
    hot = rng.random(SHAPE) < 0.004
    y, hot = torch.from_numpy(np.where(hot, 8.0 * photons, counts))[None, None], torch.from_numpy(hot)
    solver = ssi(SHAPE, 1, steps=80)
    state = solver.init(y, A)
    assert state.loss_function.kind == "l2"
    assert bool(state.data.missing[0, 0][hot].all())
    assert float(state.data.missing.double().mean()) < 1.2 * float(hot.double().mean())
    assert not (state.data.validation & state.data.missing).any()
    clean = solver.init(torch.from_numpy(counts)[None, None], A)
    assert not clean.data.missing.any()


def test_the_light_of_photon_counts_is_kept_beside_hot_pixels():
    rng = np.random.default_rng(1)
    scene = (ndimage.gaussian_filter(rng.standard_normal(SHAPE), 4.0) > 0).astype(float)
    counts = rng.poisson(10 * A(torch.from_numpy(0.1 + 0.9 * scene)).numpy()).astype(float)
    hot = np.where(rng.random(SHAPE) < 0.005, 80.0, counts)
    assert hot.sum() > 1.05 * counts.sum()
    result = selfinv.restore(hot, PSF.numpy(), method="ssi-network", boundary="zero", max_steps=80)
    assert result.predicted.sum() == pytest.approx(counts.sum(), rel=0.03)
