"""How much light there is in a result."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage import data

import selfinv
from selfinv.learning.photometry import brightened, light_factors
from selfinv.learning.presets import ssi
from selfinv.operators import Convolution, Downsample, Identity, Mask, Radon, from_scipy
from selfinv.psf import gaussian

SHAPE = (32, 32)
OPERATORS = {
    "pixels": Identity(SHAPE),
    "missing": Mask(torch.rand(SHAPE, generator=torch.Generator().manual_seed(5)) > 0.2),
    "blur": Convolution(torch.as_tensor(gaussian((1.0, 1.5), (7, 7))).float(), SHAPE, "unknown"),
    "coarser": Downsample(SHAPE, 2),
    "projections": Radon(SHAPE, np.arange(0, 180, 10)),
}


def of(operator, *, channels=1, noise=0.01, cut=False):
    """A measurement as a solver has it, and the object that made it, both in the network's units."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(1, channels, *operator.in_shape, generator=generator, dtype=torch.float64)
    y = operator(x) + noise * torch.randn(1, channels, *operator.out_shape, generator=generator)
    y = y.clamp_min(float(y.quantile(0.3))) if cut else y
    pixels = len(operator.out_shape) == 2 and not isinstance(operator, Downsample | Radon)
    state = ssi(operator.in_shape, channels, steps=2, pixels=pixels).init(y, operator)
    return state.data.object_normalisation.apply(x).to(state.data.y), state.data, state.loss_function


@pytest.mark.parametrize("name", OPERATORS)
def test_what_was_lost_is_given_back(name):
    x, *measured = of(OPERATORS[name])
    (factor,) = light_factors(0.95 * x, *measured)
    assert factor == pytest.approx(1 / 0.95, rel=0.01)
    forward, seen = measured[0].forward_model, ~measured[0].missing
    predicted = forward(brightened(0.95 * x, (factor,)))
    assert float((predicted - measured[0].y)[seen].mean()) == pytest.approx(0.0, abs=1e-5)


def test_each_channel_has_its_own():
    x, *measured = of(OPERATORS["blur"], channels=2)
    factors = light_factors(x * torch.tensor([0.9, 1.1])[:, None, None], *measured)
    assert factors == pytest.approx((1 / 0.9, 1 / 1.1), rel=0.01)


def test_chance_is_left_alone():
    x, *measured = of(OPERATORS["pixels"], noise=0.3)
    y = measured[0].y
    for part in (-0.9, 0.9):  # of a standard error
        off = (y - x).mean() + part * (y - x).std() / y.numel() ** 0.5
        assert light_factors(x + off, *measured) == (1.0,)


def test_so_is_what_cannot_be_told():
    cut, *measured = of(OPERATORS["pixels"], noise=0.3, cut=True)
    assert light_factors(0.9 * cut, *measured) == (1.0,)  # noise that is cut off does not add up to 0
    x, *measured = of(OPERATORS["pixels"])
    assert light_factors(0.5 * x, *measured) == (1.0,)  # a failure
    assert light_factors(0 * x, *measured) == (1.0,)
    signs = torch.randint(2, (400, 256), generator=torch.Generator().manual_seed(0)) * 2.0 - 1.0
    x, *measured = of(from_scipy(signs.numpy(), in_shape=(16, 16), out_shape=(400,)))
    assert light_factors(0.95 * x, *measured) == (1.0,)  # differences, not sums, of light


def test_a_channel_without_values_keeps_its_answer():
    x, *measured = of(OPERATORS["blur"], channels=2)
    missing = measured[0].missing.clone()
    missing[:, 1] = True
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        factors = light_factors(0.95 * x, replace(measured[0], missing=missing), measured[1])
    assert factors == pytest.approx((1 / 0.95, 1.0), rel=0.01)


@pytest.mark.parametrize("photons", [1.0, 3.0])
def test_few_photons_keep_their_light_and_so_does_the_saved_model(photons, tmp_path):
    """Of spots on nothing some 2 % were lost."""
    truth = ndimage.gaussian_filter(data.binary_blobs(128, blob_size_fraction=0.06, rng=1) * 1.0, 0.7)
    light = ndimage.gaussian_filter(truth, 1.5, mode="reflect")
    counts = np.random.default_rng(1).poisson(light * photons / light.mean()).astype(float)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = selfinv.restore(counts, gaussian(1.5, (9, 9)), method="ssi-network", max_steps=100)
    chance = np.sqrt(photons / counts.size)
    assert abs(result.predicted.mean() - counts.mean()) < 1.1 * chance
    result.model.save(tmp_path / "model.safetensors")
    loaded = selfinv.load_model(tmp_path / "model.safetensors")
    assert np.array_equal(loaded.apply(counts), result.image)
    assert loaded.light != (1.0,)
    assert not np.array_equal(replace(loaded, light=()).apply(counts), result.image)
