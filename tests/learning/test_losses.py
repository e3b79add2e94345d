"""Masked losses: their scale, what they aim at, and the identity they rest on (Eq. 5)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage import data

from selfinv.learning.losses import MaskedLoss, choose_loss, cut_off, kernel_roughness, weight_penalty
from selfinv.learning.unet import UNet, UNetSettings
from selfinv.operators import Convolution
from selfinv.psf import gaussian
from selfinv.types import InputError


@pytest.mark.parametrize("kind", ["l2", "l1", "huber"])
def test_the_loss_does_not_depend_on_how_many_values_are_scored(kind):
    loss = MaskedLoss(kind, delta=0.5)
    y, prediction = torch.zeros(1, 1, 100, 100), torch.full((1, 1, 100, 100), 0.7)
    few, many = torch.zeros(1, 1, 100, 100, dtype=torch.bool), torch.ones(1, 1, 100, 100, dtype=torch.bool)
    few[..., :3] = True
    assert loss(prediction, y, few) == pytest.approx(float(loss(prediction, y, many)))


def test_values_that_are_not_scored_have_neither_value_nor_gradient_even_as_nan():
    y = torch.tensor([[[1.0, float("nan"), 3.0]]])
    prediction = torch.zeros(1, 1, 3, requires_grad=True)
    loss = MaskedLoss("l2")(prediction, y, torch.tensor([[[True, False, False]]]))
    loss.backward()
    assert loss.item() == 1.0
    assert prediction.grad.tolist() == [[[-2.0, 0.0, 0.0]]]


def test_huber_agrees_with_torch():
    r = torch.linspace(-2, 2, 401)
    ours = MaskedLoss("huber", delta=0.3).each(r)
    theirs = torch.nn.functional.huber_loss(r, torch.zeros_like(r), reduction="none", delta=0.3) / 0.3
    assert torch.allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize(("kind", "aim"), [("l2", np.mean), ("l1", np.median)])
def test_each_loss_is_least_at_its_statistic(kind, aim):
    values = torch.from_numpy(np.random.default_rng(0).exponential(size=4001))
    candidates = torch.linspace(0.3, 1.5, 241, dtype=torch.float64)
    costs = [float(MaskedLoss(kind).each(c - values).mean()) for c in candidates]
    assert candidates[int(np.argmin(costs))].item() == pytest.approx(float(aim(values.numpy())), abs=0.006)


def test_the_masked_loss_is_the_true_error_plus_the_noise_variance():
    """Eq. 5 by simulation: many noise draws, a reconstruction that is blind to what it is scored on."""
    rng = torch.Generator().manual_seed(0)
    shape, noise = (1, 1, 96, 96), 0.2
    grid = torch.linspace(0, 6, 96, dtype=torch.float64)
    truth = torch.outer(grid.sin(), grid.cos()).expand(shape)
    operator = Convolution(gaussian((1.5, 1.5)), (96, 96), "periodic")
    clean = operator(truth)
    inverse = Convolution(gaussian((0.8, 0.8)), (96, 96), "periodic")  # any fixed reconstruction will do

    def losses(blind: bool) -> tuple[float, float]:
        measured, true = [], []
        for _ in range(20):
            y = clean + noise * torch.randn(shape, generator=rng, dtype=torch.float64)
            hidden = torch.rand(shape, generator=rng) < 0.1
            shown = y.masked_fill(hidden, 0.0) if blind else y
            prediction = operator(inverse(shown))
            measured.append(float(MaskedLoss("l2")(prediction, y, hidden)))
            true.append(float(MaskedLoss("l2")(prediction, clean, hidden)))
        return float(np.mean(measured)), float(np.mean(true))

    # 20 draws of about 900 values: the mean square of the noise is known to 1.1 % (one standard deviation).
    measured, true = losses(blind=True)
    assert measured == pytest.approx(true + noise**2, abs=0.04 * noise**2)
    measured, true = losses(blind=False)
    assert measured < true + 0.95 * noise**2  # seeing the noise, the loss is too good to be true


def test_photon_counts_and_unbroken_noise_take_the_mean_clipped_noise_and_outliers_the_median():
    rng = np.random.default_rng(0)
    scene = np.clip(np.add.outer(np.sin(np.arange(64) / 9), np.cos(np.arange(64) / 7)) / 4 + 0.4, 0, 1)
    counts = rng.poisson(3 * scene)[None, None].astype(float)
    camera = np.clip(np.round((scene + 0.1 * rng.normal(size=scene.shape)) * 1023) / 1023, 0, 1)[None, None]
    assert choose_loss(torch.from_numpy(counts)).kind == "l2"
    assert choose_loss(torch.from_numpy(7.0 * counts + 100)).kind == "l2"  # whatever the units
    assert choose_loss(torch.from_numpy(camera)).kind == "l1"
    assert choose_loss(torch.from_numpy(camera).float()).kind == "l1"
    read = (1000 + 300 * scene + 30 * rng.normal(size=scene.shape))[None, None]
    assert choose_loss(torch.from_numpy(read)).kind == "l2"
    assert choose_loss(torch.from_numpy(rng.poisson(2000 * scene)[None, None].astype(float))).kind == "l2"
    salted = np.where(rng.uniform(size=read.shape) < 0.01, rng.uniform(800, 2000, size=read.shape), read)
    assert choose_loss(torch.from_numpy(salted)).kind == "l1"
    salted[0, 0, 5:9, 5:9] = np.nan
    assert choose_loss(torch.from_numpy(salted)).kind == "l1"


@pytest.mark.parametrize("shape", [(96, 96), (24, 48, 48)])
@pytest.mark.parametrize(("photons", "read"), [(1, 0.1), (3, 0.05), (10, 0.02)])
def test_single_photons_in_the_dark_beside_read_noise_are_no_outliers(shape, photons, read):
    rng = np.random.default_rng(0)
    spots = np.zeros(shape)
    spots[tuple(rng.integers(0, n, 60) for n in shape)] = 1.0
    light = ndimage.gaussian_filter(spots, 2.0)
    light /= light.max()  # dark but for some spots of so many photons
    y = rng.poisson(photons * light) / photons + read * rng.normal(size=shape)
    assert choose_loss(torch.from_numpy(y)[None, None]).kind == "l2"
    hot = np.where(rng.random(shape) < 0.003, 3.0, light + read * rng.normal(size=shape))
    assert choose_loss(torch.from_numpy(hot)[None, None]).kind == "l1"


@pytest.mark.parametrize("shape", [(1, 96, 96), (2, 96, 96), (3, 96, 96)])
def test_outliers_are_seen_in_thin_volumes_as_in_images(shape):
    """Mirrored, a value of the first plane was among its own neighbours, and never stood out."""
    rng = np.random.default_rng(0)
    y = np.add.outer(np.zeros(shape[:-1]), np.sin(np.arange(shape[-1]) / 9.0)) + 0.05 * rng.normal(size=shape)
    assert choose_loss(torch.from_numpy(y)[None, None]).kind == "l2"
    salted = np.where(rng.random(shape) < 0.02, rng.uniform(-5.0, 5.0, shape), y)
    assert choose_loss(torch.from_numpy(salted)[None, None]).kind == "l1"


def test_outliers_are_seen_at_the_ends_of_a_volume():
    y = np.random.default_rng(0).normal(size=(9, 48, 48))
    y[0, ::6, ::6] = y[-1, ::6, ::6] = 100.0
    assert choose_loss(torch.from_numpy(y)[None, None]).kind == "l1"


@pytest.mark.parametrize("name", ["text", "brick", "page"])
def test_outliers_are_seen_among_sharp_edges(name):
    rng = np.random.default_rng(0)
    scene = getattr(data, name)()[:160, :160] / 255.0
    y = scene + 0.02 * rng.normal(size=scene.shape)
    assert choose_loss(torch.from_numpy(y)[None, None]).kind == "l2"
    chance = rng.random(scene.shape)
    y = np.where(chance < 0.005, 0.0, np.where(chance > 0.995, 1.0, y))
    assert choose_loss(torch.from_numpy(y)[None, None]).kind == "l1"


@pytest.mark.parametrize("photons", [2, 10])
def test_a_dim_channel_of_counts_takes_the_mean_beside_a_bright_one_too(photons):
    """The other's steps lie between its own; it was taken for clipped, and got its quantised median."""
    light = np.add.outer(np.arange(64.0), np.arange(64.0)) / 126
    rng = np.random.default_rng(0)
    counts = np.stack([rng.poisson(200 * light), 3.1 * rng.poisson(photons * light)])
    assert choose_loss(torch.from_numpy(counts)[None]).kind == "l2"


def spots(width, shape=(128, 128), count=120):
    """Beads or stars of many brightnesses, nearly as small as a pixel, on a background."""
    rng = np.random.default_rng(3)
    light = np.zeros(shape)
    light[tuple(rng.integers(n, size=count) for n in shape)] = 10 ** rng.uniform(2, 4, count)
    return ndimage.gaussian_filter(light, width) + 50.0


@pytest.mark.parametrize("width", [0.6, 0.8, 1.5])
@pytest.mark.parametrize("noise", [3.0, 20.0, 60.0])
def test_spots_are_no_outliers_but_single_values_among_them_are(width, noise):
    """A quarter of their light was lost: what stands out was taken for salt."""
    rng = np.random.default_rng(0)
    y = torch.from_numpy(spots(width) + rng.normal(0, noise, (128, 128)))[None, None]
    assert choose_loss(y).kind == "l2"
    salted = torch.where(torch.from_numpy(rng.random(y.shape) < 0.02), 8000.0, y)
    assert choose_loss(salted).kind == "l1"


def test_weight_penalty_counts_convolutions_only():
    model = UNet(UNetSettings(widths=(2, 2), kernels=(3,)))
    weights = [p.detach() for p in model.parameters() if p.ndim > 1]
    expected = sum(0.1 * p.abs().sum() + 0.2 * p.square().sum() for p in weights)
    assert weight_penalty(model, 0.1, 0.2).item() == pytest.approx(float(expected), rel=1e-5)


def test_kernel_roughness_is_zero_for_flat_kernels_and_falls_when_minimised():
    model = UNet(UNetSettings(widths=(2, 2), kernels=(3,)))
    rough = kernel_roughness(model)
    assert rough > 0
    rough.backward()
    kernels = [p for p in model.parameters() if p.ndim > 2 and max(p.shape[2:]) > 1]
    assert kernels[-1].grad is not None
    with torch.no_grad():
        kernels[-1].fill_(0.3)
    assert kernel_roughness(model) == 0


def test_unknown_losses_are_refused():
    with pytest.raises(InputError, match="'l3' is unknown"):
        MaskedLoss("l3")
    with pytest.raises(InputError, match="delta must be positive"):
        MaskedLoss("huber", delta=0)


@pytest.mark.parametrize("missing", [0.0, 0.3, 0.6])
def test_cut_off_noise_is_told_from_edges_of_true_darkness_with_gaps_too(missing):
    rng = np.random.default_rng(0)
    chart = np.kron(rng.random((16, 16)) > 0.5, np.ones((12, 12)))
    gaps = rng.random(chart.shape) < missing
    clipped = np.clip(chart + rng.normal(0, 0.1, chart.shape), 0, 1)
    counts = rng.poisson(300 * chart) / 300.0
    for image, expected in ((clipped, (True, True)), (counts, (False, False))):
        y = torch.from_numpy(np.where(gaps, np.nan, image))[None, None]
        assert cut_off(y) == expected
