"""Cosmic rays are found among stars, hot pixels anywhere; stars, photons, edges, gratings are left alone."""

import numpy as np
import pytest
import torch
from scipy.signal import fftconvolve
from scipy.special import ndtr
from skimage import data
from skimage.draw import line

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
    kernel = None if psf is None else torch.as_tensor(psf)
    return find_stray(kernel, torch.from_numpy(image)[None, None])[0, 0].numpy()


@pytest.mark.parametrize("count", [3, 20, 200])
def test_cosmic_rays_are_found_among_stars(count):
    rng = np.random.default_rng(2)
    image = rng.poisson(blurred(stars())) + rng.normal(0.0, 4.0, SHAPE)
    assert not found(image).any()
    image, where = hit(image, count)
    taken = found(image)
    assert taken[where].mean() > 0.9
    assert taken[~where].mean() < 5e-4


@pytest.mark.parametrize("scene", [np.full((640, 640), 100.0), np.tile(data.page()[:160, :160], (4, 4))])
def test_a_few_cosmic_rays_are_found_in_a_large_image_too(scene):
    """Values that chance, or chance at an edge, made stand out were more, and none was found."""
    rng = np.random.default_rng(2)
    image = blurred(scene, gaussian((2.0, 2.0), (13, 13))) + rng.normal(0.0, 2.0, scene.shape)
    rays = np.zeros(scene.shape, dtype=bool)
    rays[tuple(rng.integers(8, 632, (2, 6)))] = True
    np.testing.assert_array_equal(found(image + 4000.0 * rays, gaussian((2.0, 2.0), (13, 13))), rays)


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


# ---- without a PSF ----


def alone(image):
    return found(image, None)


def test_hot_pixels_are_found_without_a_psf():
    rng = np.random.default_rng(6)
    for scene in (data.camera()[128:288, 160:320], data.brick()[:160, :160], data.coins()[:160, :160]):
        image = scene + rng.normal(0.0, 5.0, SHAPE)
        assert not alone(image).any()
        where = np.zeros(SHAPE, dtype=bool)
        where.flat[rng.choice(where.size, 60, replace=False)] = True
        where[20, 30:32] = True  # two that touch
        where[0, 0] = where[-1, 50] = True
        image[where] += rng.uniform(2000.0, 60000.0, where.sum())
        np.testing.assert_array_equal(alone(image), where)


def test_one_hot_pixel_is_enough_without_a_psf():
    image = data.camera()[128:288, 160:320] + np.random.default_rng(6).normal(0.0, 5.0, SHAPE)
    image[80, 90] = 65535.0
    assert np.argwhere(alone(image)).tolist() == [[80, 90]]


@pytest.mark.parametrize("width", [0.4, 0.5, 0.8])
def test_stars_nearly_as_small_as_a_pixel_are_none(width):
    """Gaussians collected by square pixels, wherever in a pixel they are."""
    rng = np.random.default_rng(7)
    image = rng.normal(50.0, 4.0, SHAPE)
    places = np.arange(160.0)
    for row, column in rng.uniform(5, 155, (60, 2)):
        along, across = (
            np.diff(ndtr((np.append(places, 160.0) - 0.5 - centre) / width)) for centre in (row, column)
        )
        image += 10 ** rng.uniform(3.0, 5.0) * np.outer(along, across)
    assert not alone(image).any()


@pytest.mark.parametrize("photons", [0.03, 0.3, 3.0, 100.0, 10000.0])
def test_single_photons_are_none_without_a_psf(photons):
    rng = np.random.default_rng(3)
    for scene in (blurred(stars(4)), data.camera()[128:288, 160:320].astype(float)):
        assert not alone(rng.poisson(scene / scene.max() * photons).astype(float)).any()


@pytest.mark.parametrize("sigma", [0.0, 1.0, 20.0])
def test_drawn_lines_and_steps_of_rounding_are_none(sigma):
    rng = np.random.default_rng(8)
    drawing = np.zeros(SHAPE)
    for ends in rng.integers(4, 156, (25, 4)):
        drawing[line(*ends)] = rng.uniform(100.0, 3000.0)
    scenes = (drawing, data.page()[:160, :160], data.clock()[:160, :160] // 16 * 16)
    for scene in scenes:
        assert not alone(scene + sigma * rng.standard_normal(SHAPE)).any()


def test_pixels_that_are_hot_in_every_plane_of_a_volume():
    rng = np.random.default_rng(9)
    z, y, x = np.indices((12, 48, 48)) - np.array([6, 24, 24])[:, None, None, None]
    ball = 200.0 * np.exp(-(y**2 + x**2 + 4 * z**2) / 200.0)
    volume = ball + rng.normal(100.0, 5.0, ball.shape)
    assert not alone(volume).any()
    rows, columns = rng.integers(2, 46, (2, 6))
    volume[:, rows, columns] = 4000.0
    hot = alone(volume)
    assert hot[:, rows, columns].all()
    assert hot.sum() == 12 * len(set(zip(rows, columns, strict=True)))


def test_a_line_of_a_spectrum_is_none():
    assert not find_stray(None, torch.rand(1, 1, 1, 300).index_fill(3, torch.tensor([9]), 1e4)).any()
    spectrum = torch.zeros(1, 1, 300)
    spectrum[..., 100] = 1e4
    assert not find_stray(None, spectrum + torch.rand(1, 1, 300)).any()


@pytest.mark.parametrize("sigma", [2.5, 5.0])
def test_light_that_fades_at_the_edges_is_none_and_hides_none(sigma):
    scene = data.camera()[::3, ::3][:160, :160].astype(float)  # with nothing around it
    rng = np.random.default_rng(5)
    image = fftconvolve(scene, PSF, "same") + rng.normal(0.0, sigma, SHAPE)
    assert not found(image).any()
    hot = np.zeros(SHAPE, dtype=bool)
    hot[rng.integers(4, 156, 10), rng.integers(4, 156, 10)] = True
    hot[[0, 80], [50, 159]] = True  # at the edge, too
    taken = found(np.where(hot, 5000.0, image))
    assert taken[hot].all()
    assert taken[~hot].mean() < 1e-3


@pytest.mark.parametrize("seed", [11, 13, 16])
def test_what_lies_beside_a_missing_core_is_left_alone_and_cosmic_rays_elsewhere_are_not(seed):
    psf = gaussian((1.8, 1.8), (17, 17))
    rng = np.random.default_rng(seed)
    scene = np.full(SHAPE, 200.0)
    scene[tuple(rng.integers(8, 152, (2, 25)))] += 10 ** rng.uniform(3.5, 6.5, 25)
    image = rng.poisson(blurred(scene, psf)) + rng.normal(0, 10, SHAPE)
    image = np.where(image >= 65535, np.nan, image)
    assert np.isnan(image).any()
    assert not found(image, psf).any()
    struck, where = hit(image, 10)
    assert found(struck, psf)[where & np.isfinite(image)].mean() > 0.8
