"""On a GPU everything runs, and gives about what it gives without."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import convolve
from skimage import data

import selfinv
from selfinv import noise
from selfinv.benchmark.instruments import OPERATORS
from selfinv.learning.likelihood import NoiseLikelihood
from selfinv.metrics import psnr
from selfinv.psf import gaussian

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
PSF = gaussian((1.5, 1.5))


def scene(*shape):
    """A part of a photograph; repeated along further axes."""
    return np.broadcast_to(data.camera()[128 : 128 + shape[-2], 160 : 160 + shape[-1]] / 255.0, shape)


def both(image, *arguments, **settings):
    return [
        selfinv.restore(image, *arguments, device=device, seed=0, **settings).image
        for device in ("cuda", "cpu")
    ]


@pytest.mark.parametrize("method", ["ssi", "ssi-network", "ssi-fast", "tv-chambolle-pock", "wiener"])
def test_methods(method):
    truth = scene(96, 128)
    noisy = noise.gaussian(convolve(truth, PSF), 0.1, seed=0)
    gpu, cpu = both(noisy, PSF, method=method)
    assert psnr(truth, gpu) > psnr(truth, cpu) - 0.5


@pytest.mark.parametrize("axes", ["cyx", "tyx", "zyx"])
def test_axes(axes):
    shape = (3, 64, 96) if axes != "zyx" else (12, 32, 48)
    truth = scene(*shape)
    psf = PSF if axes != "zyx" else gaussian((1.0, 1.5, 1.5))
    noisy = noise.gaussian(convolve(truth, psf.reshape(-1, *psf.shape[-2:])), 0.1, seed=0)
    gpu, cpu = both(noisy, psf, axes=axes, method="ssi-network", max_steps=60)
    assert psnr(truth, gpu) > psnr(truth, cpu) - 0.7


@pytest.mark.parametrize("name", [name for name in OPERATORS if name != "identity"])
def test_operators(name):
    operator = OPERATORS[name]((64, 64))
    truth = scene(*operator.in_shape)
    clean = operator(torch.from_numpy(truth.copy()).float()[None, None])
    generator = torch.Generator().manual_seed(0)
    noisy = (clean + 0.05 * clean.std() * torch.randn(clean.shape, generator=generator))[0, 0].numpy()
    gpu, cpu = both(noisy, operator=operator, method="ssi-network", max_steps=60)
    assert gpu.shape == cpu.shape
    truth = truth if gpu.shape == truth.shape else truth[operator.field_of_view]
    assert psnr(truth, gpu) > psnr(truth, cpu) - 0.7


@pytest.mark.parametrize("function", [torch.log1p, lambda x: 2.0 * torch.tanh(x / 2.0)], ids=["log", "tanh"])
def test_functions(function):
    truth = scene(64, 64)
    clean = function(torch.from_numpy(truth.copy()).float()).numpy()
    noisy = clean + 0.03 * np.random.default_rng(0).standard_normal(clean.shape) * np.ptp(clean)
    gpu, cpu = both(noisy, operator=function, method="ssi-network", max_steps=100)
    assert psnr(truth, gpu) > psnr(truth, cpu) - 0.7


def test_the_likelihood_is_that_of_a_cpu():
    y = torch.rand(1, 1, 40, 40, generator=torch.Generator().manual_seed(0)).clamp(0.2, 0.8)
    scored = y > 0.3
    values = []
    for device in ("cpu", "cuda"):
        likelihood = NoiseLikelihood(y, torch.zeros_like(scored)).to(device)
        mean = (0.9 * y).to(device).requires_grad_()
        loss = likelihood(mean, y.to(device), scored.to(device))
        loss.backward()
        values.append((loss.item(), mean.grad.cpu(), likelihood.log_width.grad.item()))
    assert values[0][0] == pytest.approx(values[1][0], rel=1e-4)
    assert torch.allclose(values[0][1], values[1][1], rtol=1e-3, atol=1e-7)
    assert values[0][2] == pytest.approx(values[1][2], rel=1e-3, abs=1e-6)
