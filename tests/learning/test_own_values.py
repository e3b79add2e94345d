"""Where nothing is blurred, each value has its say: the noise is told from what blind predictions leave."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from skimage import data

import selfinv
from selfinv.learning import ssi
from selfinv.learning.own_values import OwnValues
from selfinv.noise import gaussian
from selfinv.psf import gaussian as gaussian_psf


def scene(shape=(1, 1, 192, 192), error=0.0, slope=0.0, seed=0):
    """Measured values and their blind predictions, which are off by ``error`` in the right half."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.linspace(0.0, 1.0, shape[-2])[:, None].expand(shape)
    noise = (0.01 + slope * truth).sqrt() * torch.randn(shape, generator=generator)
    off = torch.zeros(shape)
    off[..., shape[-1] // 2 :] = error * torch.randn(shape, generator=generator)[..., shape[-1] // 2 :]
    return truth + noise, truth + off, torch.zeros(shape, dtype=torch.bool)


@pytest.mark.parametrize("slope", [0.0, 0.1])
def test_the_noises_variance_over_the_intensity_is_found_beside_structure(slope):
    found = OwnValues.of(*scene(error=0.3, slope=slope))
    for level in (0.1, 0.5, 0.9):
        expected = 0.01 + slope * level
        assert float(found.variance(torch.tensor(level))) == pytest.approx(expected, rel=0.15)


def test_a_value_weighs_as_much_as_its_prediction_is_worse_than_its_noise():
    y, blind, missing = scene(error=0.2)
    weights = OwnValues.of(y, blind, missing).weights(y, blind, missing)
    assert float(weights[..., 120:].mean()) == pytest.approx(0.04 / (0.04 + 0.01), abs=0.05)
    assert float(weights[..., :70].mean()) < 0.1


def test_missing_values_have_no_weight_and_no_influence():
    y, blind, missing = scene(error=0.2)
    missing[..., 50:60, 100:120] = True
    results = []
    for junk in (0.0, 1e6):
        z = y.masked_fill(missing, junk)
        own = OwnValues.of(z, blind, missing)
        weights = own.weights(z, blind, missing)
        assert not weights[missing].any()
        results.append(weights)
    assert torch.equal(*results)


@pytest.mark.parametrize("shape", [(1, 1, 4000), (2, 3, 64, 64), (1, 1, 16, 32, 32)])
def test_lines_colour_series_and_volumes(shape):
    generator = torch.Generator().manual_seed(1)
    y, blind = torch.randn(shape, generator=generator), torch.zeros(shape)
    missing = torch.zeros(shape, dtype=torch.bool)
    own = OwnValues.of(y, blind, missing)
    assert float(own.variance(torch.tensor(0.0))) == pytest.approx(1.0, rel=0.25)
    assert float(own.weights(y, blind, missing).mean()) < 0.1


def psnr_with_and_without(truth, noisy):
    result = selfinv.restore(noisy, method="ssi-network", max_steps=80)
    assert np.array_equal(result.model.apply(noisy), result.image)
    without = replace(result.model, own_values=None).apply(noisy)
    return [selfinv.metrics.psnr(truth, np.clip(image, 0, 1)) for image in (result.image, without)]


def test_fine_texture_under_little_noise_is_kept():
    truth = data.grass()[:128, :128] / 255.0
    with_, without = psnr_with_and_without(truth, gaussian(truth, 0.04, 0))
    assert with_ > without + 1.0


def test_a_plain_image_under_much_noise_is_not_made_worse():
    truth = data.moon()[128:256, 128:256] / 255.0
    with_, without = psnr_with_and_without(truth, gaussian(truth, 0.15, 0))
    assert with_ > without - 0.1


def test_photon_counts():
    truth = data.coins()[64:192, 64:192] / 255.0
    counts = np.random.default_rng(0).poisson(200 * truth) / 200.0
    with_, without = psnr_with_and_without(truth, counts)
    assert with_ > without + 0.5


def test_a_saved_model_makes_the_same_image(tmp_path):
    truth = data.grass()[:64, :64] / 255.0
    noisy = gaussian(truth, 0.05, 0)
    result = selfinv.restore(noisy, method="ssi-network", max_steps=20)
    result.model.save(tmp_path / "model.safetensors")
    loaded = selfinv.load_model(tmp_path / "model.safetensors")
    assert loaded.own_values == result.model.own_values is not None
    assert np.array_equal(loaded.apply(noisy), result.image)


def test_only_where_nothing_is_blurred_and_noise_is_neither_cut_off_nor_wild():
    truth = data.coins()[64:128, 64:128] / 255.0
    noisy = gaussian(truth, 0.1, 0)
    wild = noisy.copy()
    wild.flat[::40] = 5.0
    psf = gaussian_psf(1.0, (9, 9))
    for image, blur in ((noisy, psf), (wild, None), (np.clip(noisy, 0.2, 1.0), None)):
        assert selfinv.restore(image, blur, method="ssi-network", max_steps=5).model.own_values is None
    assert ssi(noisy.shape, 1).own_values
