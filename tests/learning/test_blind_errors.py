"""Blind predictions tell the spectrum of errors; what an operator hides is no larger than the object."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.signal import fftconvolve
from skimage import data

import selfinv
from selfinv.learning.blind_errors import spectra_of_errors
from selfinv.learning.forward_model import ForwardModel
from selfinv.learning.normalisation import Normalisation
from selfinv.operators import Convolution, Downsample, Identity, Shift, Stack
from selfinv.psf import gaussian as gaussian_psf

ONE = Normalisation(0.0, 1.0)
SIDE = 256
FREQUENCY = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE))
FREQUENCY[0, 0] = np.inf
FORWARD = ForwardModel(
    Convolution(torch.from_numpy(gaussian_psf(1.0, (9, 9))), (SIDE, SIDE), "periodic"), ONE, ONE
)


def random_field(power, seed):
    """Periodic, of this power at each frequency."""
    waves = np.fft.rfft2(np.random.default_rng(seed).standard_normal((SIDE, SIDE)))
    return torch.from_numpy(np.fft.irfft2(waves * np.sqrt(power), s=(SIDE, SIDE)))[None, None]


def told(error_power, noise, *, learned=0.0):
    """Of predictions that are off by errors of this power (`learned`: by less noise), behind a blur."""
    x = random_field(1e-4 * FREQUENCY**-3.0, seed=0)
    operator = FORWARD.operator
    disturbance = math.sqrt(noise) * random_field(np.ones_like(FREQUENCY), seed=1)
    errors = random_field(error_power, seed=2)
    blind = operator(x + errors) + learned * operator(disturbance)
    excess = float(operator(errors).square().mean()) / noise
    y = operator(x) + disturbance
    return spectra_of_errors(
        y, blind, torch.zeros_like(y, dtype=torch.bool), FORWARD, torch.full_like(y, noise), (excess,)
    )


def test_the_spectrum_is_followed_where_the_blur_lets_errors_through_and_goes_on_where_not():
    power = np.minimum(np.where(FREQUENCY < 0.05, 1e-5, 1e-4), 0.3 * 1e-4 * FREQUENCY**-3.0)
    (likeliest, passed), (white, _) = told(power, 1e-7)
    at = torch.tensor([0.03, 0.1, 0.2])
    shares = likeliest.share(at)[0, 0]
    # Long waves are raised half way to where they would not be less than finer ones.
    assert float(shares[0] / shares[1]) == pytest.approx(math.sqrt(0.1), rel=0.35)
    assert float(shares[2] / shares[1]) == pytest.approx(1.0, rel=0.35)
    finest = float(likeliest.share(torch.tensor([0.6])) / shares[1])
    limit = 0.6**-3.0
    assert finest == pytest.approx(limit / (1.0 + limit), rel=0.3)
    # A white error that makes as much of what is measured is of another strength at these frequencies.
    assert passed[0] < 0.9 * FORWARD.power(1)[0]
    assert float(white.share(at)[0, 0, 0] / white.share(at)[0, 0, 1]) == pytest.approx(1.0, abs=0.05)


def test_white_errors_are_held_to_what_an_object_of_a_known_spectrum_has():
    level, noise = 3e-5, 1e-6
    *_, (white, _) = told(np.full_like(FREQUENCY, level), noise)
    half = (1e-4 / level) ** (1.0 / 3.0)  # where the object has as much power as the error
    assert float(white.share(torch.tensor([0.01]))) == pytest.approx(1.0, abs=0.01)
    assert float(white.share(torch.tensor([min(half, 0.7)]))) == pytest.approx(
        1.0 / (1.0 + min(half, 0.7) ** 3.0 * level / 1e-4), abs=0.12
    )


def test_nothing_is_told_by_predictions_that_know_the_noise():
    small = np.full_like(FREQUENCY, 1e-8)
    assert len(told(small, 1e-5)) == 2
    assert len(told(small, 1e-5, learned=0.3)) == 1  # but for white errors


def test_coarser_pixels_tell_the_spectrum_too():
    coarse = Downsample((SIDE, SIDE), 2) @ FORWARD.operator
    forward = ForwardModel(coarse, ONE, ONE)
    x = random_field(1e-4 * FREQUENCY**-3.0, seed=0)
    errors = random_field(np.where(FREQUENCY < 0.04, 1e-5, 1e-4), seed=2)
    noise = 1e-7 * torch.ones(1, 1, SIDE // 2, SIDE // 2, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    y = coarse(x) + noise.sqrt() * torch.randn(noise.shape, generator=generator, dtype=noise.dtype)
    missing = torch.zeros_like(y, dtype=torch.bool)
    excess = float(coarse(errors).square().mean()) / 1e-7
    (told, passed), _ = spectra_of_errors(y, coarse(x + errors), missing, forward, noise, (excess,))
    shares = told.share(torch.tensor([0.03, 0.08, 0.11]))[0, 0]
    assert float(shares[0] / shares[1]) == pytest.approx(math.sqrt(0.1), rel=0.4)
    assert float(shares[2] / shares[1]) == pytest.approx(1.0, rel=0.3)
    seen = told.measured.share(torch.tensor([0.16]))[0, 0, 0]  # cycles per coarse pixel
    blur = math.exp(-((2.0 * math.pi * 0.08) ** 2)) * math.cos(math.pi * 0.08) ** 2
    assert float(seen / (0.25 * blur * shares[1])) == pytest.approx(1.0, rel=0.3)
    assert 0.0 < passed[0] < 1.0


def test_several_views_tell_no_spectrum():
    operator = Stack([Identity((32, 32)), Shift((32, 32), 0.5)])
    y = torch.rand(1, 1, 2, 32, 32)
    missing = torch.zeros_like(y, dtype=torch.bool)
    assert spectra_of_errors(y, y, missing, ForwardModel(operator, ONE, ONE), y, (2.0,)) == []


def test_a_frame_without_values_is_not_asked():
    operator = Convolution(torch.from_numpy(gaussian_psf(1.0, (9, 9))), (64, 64), "unknown")
    forward = ForwardModel(operator, ONE, ONE)
    generator = torch.Generator().manual_seed(0)
    y = torch.rand(2, 1, 64, 64, generator=generator, dtype=torch.float64)
    missing = torch.zeros_like(y, dtype=torch.bool)
    missing[1] = True
    noise = torch.full_like(y, 0.01)
    both = spectra_of_errors(y.masked_fill(missing, 0.0), 0.5 * y, missing, forward, noise, (2.0,))
    alone = spectra_of_errors(y[:1], 0.5 * y[:1], missing[:1], forward, noise[:1], (2.0,))
    assert both == alone


def test_each_channel_has_its_own_blur_and_errors():
    kernels = torch.stack([torch.from_numpy(gaussian_psf(s, (9, 9))) for s in (0.8, 1.6)])
    generator = torch.Generator().manual_seed(0)
    y = torch.rand(1, 2, 96, 96, generator=generator, dtype=torch.float64)
    missing, noise = torch.zeros_like(y, dtype=torch.bool), torch.full_like(y, 1e-4)

    def spectra(psf, channels):
        forward = ForwardModel(Convolution(psf, (96, 96), "unknown"), ONE, ONE)
        seen = y[:, channels]
        told = spectra_of_errors(
            seen, 0.5 * seen, missing[:, channels], forward, noise[:, channels], (200.0,) * seen.shape[1]
        )
        return [spectrum.log_power for spectrum, _ in told]

    for both, first, second in zip(
        spectra(kernels, slice(2)),
        spectra(kernels[0], slice(1)),
        spectra(kernels[1], slice(1, 2)),
        strict=True,
    ):
        assert np.allclose(both, first + second, atol=1e-6)


def test_of_a_few_values_nothing_is_told():
    operator = Convolution(torch.from_numpy(gaussian_psf(1.0, (3, 3))), (2, 2), "unknown")
    y = torch.rand(1, 1, 2, 2, dtype=torch.float64)
    missing = torch.zeros_like(y, dtype=torch.bool)
    assert spectra_of_errors(y, y, missing, ForwardModel(operator, ONE, ONE), y, (2.0,)) == []


def restored(truth, sigma):
    """With a short run, and by its network alone: dB of both."""
    kernel = gaussian_psf(1.5, (11, 11))
    noise = sigma * np.random.default_rng(0).standard_normal(truth.shape)
    image = fftconvolve(np.pad(truth, 5, mode="reflect"), kernel, mode="valid") + noise
    result = selfinv.restore(image, kernel, method="ssi-network", max_steps=60)
    without = replace(result.model, own_values=None).apply(image)
    return [selfinv.metrics.psnr(truth, x, np.ptp(truth)) for x in (result.image, without)]


def test_little_noise_gives_detail_back_and_a_smooth_object_gets_no_noise_for_it():
    sharp = data.camera()[100:228, 150:278] / 255.0
    by_all, by_network = restored(sharp, 0.001)
    assert by_all > by_network + 4.0
    smooth = gaussian_filter(np.random.default_rng(1).standard_normal((128, 128)), 4.0)
    smooth = (smooth - smooth.min()) / np.ptp(smooth)
    by_all, by_network = restored(smooth, 0.003)
    assert by_all > by_network + 5.0
