"""Spectra of known fields and noises tell what theory says."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage import data

from selfinv.noise import poisson
from selfinv.spectrum import PowerSpectrum

CAMERA = data.camera()[::2, ::2] / 255.0


@pytest.mark.parametrize("space", [(4096,), (128, 128), (32, 40, 40)])
def test_a_field_of_known_spectrum_tells_what_shannon_says(space):
    rng = np.random.default_rng(0)
    frequency = np.sqrt(sum(f**2 for f in np.ix_(*(np.fft.fftfreq(n) for n in space))))
    spectrum = 100.0 * np.exp(-((frequency / 0.1) ** 2))
    field = np.fft.ifftn(np.fft.fftn(rng.normal(size=space)) * np.sqrt(spectrum)).real
    told = PowerSpectrum.of(field + rng.normal(size=space)).bits()
    assert told == pytest.approx(0.5 * np.log2(1.0 + spectrum).sum(), rel=0.15)


def test_noise_alone_tells_next_to_nothing_and_a_constant_has_no_noise():
    noise = np.random.default_rng(0).normal(size=(200, 200))
    assert PowerSpectrum.of(noise).bits() < 0.003 * noise.size
    assert math.isinf(PowerSpectrum.of(np.ones((16, 16))).bits())


@pytest.mark.parametrize("photons", [0.3, 3.0, 100.0])
def test_the_noise_of_photon_counts_is_the_mean_count(photons):
    image = gaussian_filter(CAMERA, 1.0)
    counts = photons * poisson(image, photons, seed=0)
    assert PowerSpectrum.of(counts).noise() == pytest.approx(photons * image.mean(), rel=0.1)


@pytest.mark.parametrize("space", [(48, 48), (200, 160), (20, 48, 40)])
def test_white_noise_is_no_more_than_there_is_at_the_highest_frequencies(space):
    level = np.linspace(0.2, 2.0, space[-1])  # larger in some places than in others
    for seed in range(20):
        rng = np.random.default_rng(seed)
        noise = level * rng.normal(size=space)
        smooth = 30.0 * gaussian_filter(rng.normal(size=space), 3.0)
        found = PowerSpectrum.of(smooth + noise).most_noise()
        assert 0.9 < found / np.square(level).mean() < 1.8


def test_where_details_reach_the_highest_frequency_the_noise_is_not_known():
    smooth = gaussian_filter(CAMERA, 1.0) + np.random.default_rng(0).normal(0.0, 0.05, CAMERA.shape)
    assert PowerSpectrum.of(smooth).levels_off()
    texture = np.random.default_rng(1).normal(size=CAMERA.shape)
    fine = np.fft.ifft2(np.fft.fft2(texture) / (0.1 + np.hypot(*np.ix_(*(np.fft.fftfreq(256),) * 2)))).real
    assert not PowerSpectrum.of(fine).levels_off()


def test_a_large_image_tells_as_much_as_its_middle_does_for_its_size(monkeypatch):
    rng = np.random.default_rng(0)
    y = gaussian_filter(rng.normal(size=(256, 256)), 2.0, mode="wrap") + rng.normal(0.0, 0.1, (256, 256))
    whole = PowerSpectrum.of(y).bits()
    monkeypatch.setattr("selfinv.spectrum.MOST_VALUES", y.size // 4)
    assert PowerSpectrum.of(y).bits() == pytest.approx(whole, rel=0.3)


@pytest.mark.parametrize("shape", [(16,), (3, 3), (1, 40), (2, 16, 16)])
def test_of_small_images_too_white_noise_is_told_by_its_variance(shape):
    rng = np.random.default_rng(0)
    noise = [3.0 * rng.normal(size=shape) for _ in range(300)]
    spectra = [PowerSpectrum.of(image) for image in noise]
    assert np.mean([s.noise() for s in spectra]) == pytest.approx(9.0, rel=0.25)
    assert np.mean([s.power.mean() for s in spectra]) == pytest.approx(9.0, rel=0.15)
    assert np.mean([s.levels_off() for s in spectra]) > 0.7
    # One strong wave tells more than there is in the noise by chance.
    wave = 60.0 * np.cos(2.0 * np.pi * np.arange(shape[-1]) / shape[-1])
    told = [np.mean([PowerSpectrum.of(image + w).bits() for image in noise]) for w in (0.0, wave)]
    assert told[0] < 0.25 * noise[0].size < told[1]
