"""Errors that an operator hides are no larger than the object has power there."""

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
from selfinv.learning.error_spectrum import ErrorSpectrum
from selfinv.learning.forward_model import ForwardModel
from selfinv.learning.noise_line import NoiseLine, local_mean
from selfinv.learning.normalisation import Normalisation
from selfinv.learning.own_values import OwnValues
from selfinv.operators import Convolution, Downsample
from selfinv.psf import gaussian as gaussian_psf

ONE = Normalisation(0.0, 1.0)
STEEP = ErrorSpectrum((40.0,), (3.0,))


def test_the_update_is_the_best_linear_estimate_for_errors_with_this_spectrum():
    shape = (12, 10)
    operator = Convolution(torch.as_tensor(gaussian_psf((1.0, 0.7), (5, 5))), shape, "unknown")
    forward = ForwardModel(operator, Normalisation(0.3, 2.0), Normalisation(0.1, 1.5))
    generator = torch.Generator().manual_seed(2)
    x = torch.rand(1, 1, *operator.in_shape, generator=generator, dtype=torch.float64)
    y = forward(x) + 0.1 * torch.randn(1, 1, *shape, generator=generator).double()
    missing = torch.zeros_like(y, dtype=torch.bool)
    missing[..., :2, :2] = True
    own = OwnValues(
        (NoiseLine(0.01, 0.0),),
        excess=(2.0,),
        share=(0.0,),
        power=forward.power(1, STEEP.root),
        errors=STEEP,
    )
    updated = own.update(x, y.masked_fill(missing, 7.0), torch.zeros_like(y), missing, forward)

    n, seen = math.prod(operator.in_shape), ~missing.flatten()
    columns = torch.eye(n, dtype=torch.float64).reshape(n, 1, *operator.in_shape)
    A = forward.respond(columns).reshape(n, -1).T[seen]
    S = STEEP.covariance(columns)(columns).reshape(n, n)
    assert torch.allclose(S, S.T)
    assert float(torch.linalg.eigvalsh(S).min()) > 0.0
    response = A.sum(0)
    everywhere = forward.adjoint(torch.ones_like(y)).max()
    variance = 0.02 * response / response.clamp_min(0.05 * everywhere) / own.power[0]
    around = local_mean(x, torch.zeros_like(x, dtype=torch.bool))
    deviation = (variance * ((x + 0.25 * around + 0.01) / (1.25 * around + 0.01)).flatten()).sqrt()
    C = deviation[:, None] * S * deviation
    residual = (y - forward(x)).flatten()[seen]
    M = A @ C @ A.T + 0.01 * torch.eye(len(A), dtype=torch.float64)
    expected = x.flatten() + C @ A.T @ torch.linalg.solve(M, residual)
    change = float((expected - x.flatten()).abs().max())
    assert torch.allclose(updated.flatten(), expected, atol=2e-3 * change)


def test_white_errors_are_held_to_what_an_object_of_a_known_spectrum_has():
    side, level, exponent, noise = 256, 1e-4, 3.0, 1e-6
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side))
    frequency[0, 0] = np.inf
    waves = np.fft.rfft2(rng.standard_normal((side, side)))
    x = np.fft.irfft2(waves * np.sqrt(level * frequency**-exponent), s=(side, side))
    operator = Convolution(torch.from_numpy(gaussian_psf(1.0, (9, 9))), x.shape, "periodic")
    y = operator(torch.from_numpy(x)[None, None]) + math.sqrt(noise) * torch.from_numpy(
        rng.standard_normal((1, 1, *x.shape))
    )
    forward = ForwardModel(operator, ONE, ONE)
    error = 20.0  # mean squares in parts of the noise's
    found = ErrorSpectrum.of(y, torch.zeros_like(y, dtype=torch.bool), forward, (error,))
    white = error * noise / forward.power(1)[0]
    assert found.exponent[0] == pytest.approx(exponent, abs=0.26)
    half = (level / white) ** (1.0 / exponent)  # where the object has as much power as the error
    assert float(found.share(torch.tensor([half]))) == pytest.approx(0.5, abs=0.08)
    assert float(found.share(torch.tensor([0.0]))) == 1.0


def test_an_operator_that_treats_places_differently_tells_no_spectrum():
    operator = Downsample((32, 32), 2)
    y = torch.rand(1, 1, 16, 16)
    missing = torch.zeros_like(y, dtype=torch.bool)
    assert ErrorSpectrum.of(y, missing, ForwardModel(operator, ONE, ONE), (2.0,)) is None


@pytest.mark.parametrize("errors", [STEEP, ErrorSpectrum((8.0**4,), (4.0,))])
def test_errors_are_correlated_no_further_than_is_said(errors):
    point = torch.zeros(1, 1, 129, 129)
    point[..., 64, 64] = 1.0
    spread = errors.covariance(point)(point)[0, 0, 64]
    assert float(spread[: 64 - errors.reach].abs().max()) < 5e-3 * float(spread[64])


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
