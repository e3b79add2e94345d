"""Cosmic rays are found among stars; stars, single photons, sharp edges and gratings are left alone."""

import numpy as np
import pytest
import torch
from scipy.signal import fftconvolve
from skimage import data

from selfinv.learning.stray_values import find_stray
from selfinv.psf import gaussian

SHAPE = (160, 160)
PSF = gaussian((1.5, 1.5), (15, 15))


def blurred(scene, psf=PSF):
    pads = [n // 2 for n in psf.shape]
    wide = np.pad(scene, [(p, p) for p in pads], mode="reflect")
    return np.clip(fftconvolve(wide, psf, "valid"), 0.0, None)


def stars(seed=0, count=60):
    """Points of very different brightness, in photons, on a sky."""
    rng = np.random.default_rng(seed)
    scene = np.full(SHAPE, 50.0)
    rows, columns = rng.integers(4, SHAPE[0] - 4, (2, count))
    scene[rows, columns] += 10 ** rng.uniform(2.0, 5.0, count)
    return scene


def hit(image, count, seed=1):
    """Short tracks of cosmic rays, and where."""
    rng = np.random.default_rng(seed)
    image, where = image.copy(), np.zeros(image.shape, dtype=bool)
    for _ in range(count):
        row, column = rng.integers(2, image.shape[0] - 6, 2)
        for k in range(rng.integers(1, 5)):
            image[row + k // 2, column + k] += rng.uniform(1000, 20000)
            where[row + k // 2, column + k] = True
    return image, where


def found(image, psf=PSF):
    return find_stray(torch.as_tensor(psf), torch.from_numpy(image)[None, None])[0, 0].numpy()


@pytest.mark.parametrize("count", [3, 20, 200])
def test_cosmic_rays_are_found_among_stars(count):
    rng = np.random.default_rng(2)
    image = rng.poisson(blurred(stars())) + rng.normal(0.0, 4.0, SHAPE)
    assert not found(image).any()
    image, where = hit(image, count)
    taken = found(image)
    assert taken[where].mean() > 0.9
    assert taken[~where].mean() < 5e-4


def test_what_is_missing_is_not_stray_and_hides_nothing():
    rng = np.random.default_rng(2)
    image, where = hit(rng.poisson(blurred(stars())) + rng.normal(0.0, 4.0, SHAPE), 20)
    image[:, 80] = np.nan
    taken = found(image)
    assert not taken[:, 80].any()
    assert taken[where & np.isfinite(image)].mean() > 0.9


def test_each_channel_is_judged_by_its_own_noise():
    rng = np.random.default_rng(2)
    calm, loud = (blurred(stars()) + rng.normal(0.0, s, SHAPE) for s in (1.0, 100.0))
    both = torch.from_numpy(np.stack([calm, loud]))[None]
    assert not find_stray(torch.as_tensor(PSF), both).any()


@pytest.mark.parametrize("photons", [0.03, 0.3, 3.0, 100.0, 10000.0])
@pytest.mark.parametrize("read", [0.0, 0.1])
def test_single_photons_are_none(photons, read):
    rng = np.random.default_rng(3)
    scenes = (stars(4), stars(5, count=6) - 50.0, data.camera()[128:288, 160:320].astype(float))
    for scene in scenes:
        clean = blurred(scene)
        image = rng.poisson(clean / clean.max() * photons) + rng.normal(0.0, read, SHAPE)
        assert not found(image).any()


def test_photons_that_a_camera_multiplies_are_none():
    rng = np.random.default_rng(3)
    clean = blurred(stars())
    for photons in (0.1, 1.0, 10.0):
        counts = rng.poisson(clean / clean.max() * photons)
        image = rng.gamma(np.maximum(counts, 1e-9), 100.0) + rng.normal(100.0, 10.0, SHAPE)
        assert not found(image).any()


@pytest.mark.parametrize("width", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("sigma", [0.0, 1e-3, 0.01, 0.1])
def test_sharp_structure_is_none(width, sigma):
    rng = np.random.default_rng(4)
    psf = gaussian((width, width), (15, 15))
    columns = np.broadcast_to(np.arange(160.0), SHAPE)
    scenes = (
        data.camera()[128:288, 160:320] / 255.0,
        data.page()[:160, :160] / 255.0,
        (np.sin(columns**2 / 200.0) > 0).astype(float),
    )
    for scene in scenes:
        assert not found(blurred(scene, psf) + sigma * rng.standard_normal(SHAPE), psf).any()


def test_a_star_s_peak_is_none_where_the_psf_is_told_a_fifth_too_wide():
    rng = np.random.default_rng(2)
    image = rng.poisson(blurred(stars())) + rng.normal(0.0, 4.0, SHAPE)
    assert not found(image, gaussian((1.8, 1.8), (17, 17))).any()


def test_nothing_is_found_of_nothing():
    assert not found(np.full(SHAPE, np.nan)).any()
    assert not found(np.ones(SHAPE)).any()


def test_a_volume_s_too():
    rng = np.random.default_rng(5)
    scene = np.zeros((20, 60, 60))
    scene[tuple(rng.integers(3, n - 3, 30) for n in scene.shape)] = 3e4
    psf = gaussian((1.5, 1.5, 1.5), (9, 9, 9))
    image = fftconvolve(scene, psf, "same") + rng.normal(0.0, 3.0, scene.shape)
    assert not found(image, psf).any()
    where = tuple(rng.integers(2, n - 2, 10) for n in scene.shape)
    image[where] += 5000.0
    assert found(image, psf)[where].mean() > 0.8
