"""Each value has its say: the noise is told from what blind predictions leave."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.signal import fftconvolve
from skimage import data
from skimage.transform import resize

import selfinv
from selfinv.learning.forward_model import ForwardModel
from selfinv.learning.noise_line import NoiseLine, local_mean, of_residuals
from selfinv.learning.normalisation import Normalisation
from selfinv.learning.own_values import OwnValues, at_most_what_is_there, find_noise, has_wild_values
from selfinv.noise import gaussian
from selfinv.operators import Convolution, Downsample
from selfinv.psf import gaussian as gaussian_psf


def scene(shape=(1, 1, 192, 192), error=0.0, slope=0.0, seed=0):
    """Measured values and their blind predictions, which are off by ``error`` in the right half."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.linspace(0.0, 1.0, shape[-2])[:, None].expand(shape)
    noise = (0.01 + slope * truth).sqrt() * torch.randn(shape, generator=generator)
    off = torch.zeros(shape)
    off[..., shape[-1] // 2 :] = error * torch.randn(shape, generator=generator)[..., shape[-1] // 2 :]
    return truth + noise, truth + off, torch.zeros(shape, dtype=torch.bool)


def told(y, blind, missing, limits=(None, None)):
    return OwnValues.of(y, blind, missing, find_noise(y, blind, missing, limits=limits), limits=limits)


@pytest.mark.parametrize("slope", [0.0, 0.1])
def test_the_noises_variance_over_the_intensity_is_found_beside_structure(slope):
    (found,) = find_noise(*scene(error=0.3, slope=slope))
    for level in (0.1, 0.5, 0.9):
        expected = 0.01 + slope * level
        assert float(found.variance(torch.tensor(level))) == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize("slope", [0.0, 0.1])
def test_noise_is_not_larger_than_what_there_is_at_the_finest_frequencies(slope):
    """Texture that predictions miss everywhere was taken for noise."""
    y, blind, missing = scene(slope=slope)
    generator = torch.Generator().manual_seed(1)
    texture = torch.randn(y.shape, generator=generator)
    texture = torch.fft.irfft2(torch.fft.rfft2(texture) * (torch.fft.rfftfreq(192) < 0.2), s=(192, 192))
    both, right = y + 2.0 * texture, NoiseLine(0.01, slope)
    wrong = find_noise(both, blind, missing)
    expected = float(right.variance(blind).mean())
    assert float(wrong[0].variance(blind).mean()) > 2.0 * expected
    missing[..., 5:9, 20:30] = True
    both[..., 5:9, 20:30] = torch.nan
    for given in (wrong, (right.times(1.6),)):
        (found,) = at_most_what_is_there(given, both, blind, missing)
        assert float(found.variance(blind).mean()) == pytest.approx(expected, rel=0.15)
    assert at_most_what_is_there((right,), both, blind, missing) == (right,)


@pytest.mark.parametrize("kind", ["rim", "strip", "vignette"])
def test_noise_that_is_larger_at_the_rim_is_not_told_smaller_for_it(kind):
    space = (128, 128)
    level = torch.full(space, 0.05)
    if kind == "rim":
        level[:6], level[-6:], level[:, :6], level[:, -6:] = 1.0, 1.0, 1.0, 1.0
    elif kind == "strip":
        level[:8] = 1.0
    else:
        level += torch.linspace(-1, 1, 128)[:, None] ** 2 + torch.linspace(-1, 1, 128) ** 2
    right = NoiseLine(0.0, 0.01)
    for seed in range(5):
        noise = right.variance(level).sqrt() * torch.randn(
            space, generator=torch.Generator().manual_seed(seed)
        )
        y, around = (level + noise)[None, None], level[None, None]
        (found,) = at_most_what_is_there((right,), y, around, torch.zeros(1, 1, *space, dtype=torch.bool))
        assert found.slope > 0.9 * right.slope


def sky(shape=(1, 1, 192, 192), seed=0):
    """Nothing but some spots, of which predictions know nothing; its measurement and the noise."""
    generator = torch.Generator().manual_seed(seed)
    spots = (torch.rand(shape, generator=generator) < 0.05) * torch.randn(shape, generator=generator)
    return spots, spots + 0.1 * torch.randn(shape, generator=generator), (NoiseLine(0.01, 0.0),)


def test_where_errors_are_few_and_large_the_sky_is_dark_and_they_stay():
    spots, y, noise = sky()
    nothing, missing = torch.zeros_like(y), torch.zeros(y.shape, dtype=torch.bool)
    missing[..., :8, :8] = True
    found = OwnValues.of(y, nothing, missing, noise, sparse=True)
    tailed = found.with_tails(y, nothing, missing)
    assert tailed.tails is not None
    linear, better = (v.update(nothing, y, nothing, missing, None) for v in (found, tailed))
    # The best there is: the mean of what may have been, with the spots' own distribution known.
    likely, unlikely = (
        p * torch.exp(-0.5 * y.square() / v) / math.sqrt(v) for p, v in ((0.05, 1.01), (0.95, 0.01))
    )
    best = likely / (likely + unlikely) * y / 1.01
    off = [float((x - spots)[~missing].norm()) for x in (linear, better, best)]
    assert off[1] < 0.75 * off[0]
    assert off[1] < 1.3 * off[2]
    assert (better[missing] == 0.0).all()
    assert ((better * y >= 0.0) & (better.abs() <= y.abs()))[~missing].all()


def test_errors_as_normal_as_noise_are_weighed_as_before():
    y, blind, missing = scene(error=0.2)
    found = OwnValues.of(y, blind, missing, (NoiseLine(0.01, 0.0),), sparse=True)
    assert found.with_tails(y, blind, missing) is found


def test_where_the_noise_is_told_much_too_large_errors_are_weighed_as_normal_ones():
    """Stein's estimate of what is left makes no sense; by their density the error is 1.7 times larger."""
    generator = torch.Generator().manual_seed(0)
    error = 0.6 * torch.randn(1, 1, 64, 64, generator=generator)
    error[..., 32:] = 0.0
    y, nothing = error + 0.1 * torch.randn(error.shape, generator=generator), torch.zeros_like(error)
    missing = torch.zeros(y.shape, dtype=torch.bool)
    found = OwnValues.of(y, nothing, missing, (NoiseLine(0.08, 0.0),), sparse=True)
    assert found.with_tails(y, nothing, missing) is found


def test_of_a_brighter_image_the_network_errs_more_and_the_noise_is_the_same():
    y, blind, missing = scene(shape=(1, 1, 64, 64))
    own = OwnValues((NoiseLine(0.01, 0.0),), excess=(2.0,), share=(0.0,))
    weights = own.weights(y, blind, missing)
    assert float(weights.mean()) == pytest.approx(2 / 3, abs=1e-5)
    brighter = own.in_units(0.5, 3.0).weights((y - 0.5) / 3.0, (blind - 0.5) / 3.0, missing)
    assert float(brighter.mean()) == pytest.approx(0.02 / (0.02 + 0.01 / 9), abs=1e-5)


def test_a_value_weighs_as_much_as_its_prediction_is_worse_than_its_noise():
    y, blind, missing = scene(error=0.2)
    weights = told(y, blind, missing).weights(y, blind, missing)
    assert float(weights[..., 120:].mean()) == pytest.approx(0.04 / (0.04 + 0.01), abs=0.05)
    assert float(weights[..., :70].mean()) < 0.1


def test_missing_values_have_no_weight_and_no_influence():
    y, blind, missing = scene(error=0.2)
    missing[..., 50:60, 100:120] = True
    results = []
    for junk in (0.0, 1e6):
        z = y.masked_fill(missing, junk)
        own = told(z, blind, missing)
        weights = own.weights(z, blind, missing)
        assert not weights[missing].any()
        results.append(weights)
    assert torch.equal(*results)


@pytest.mark.parametrize("shape", [(1, 1, 4000), (2, 3, 64, 64), (1, 1, 16, 32, 32)])
def test_lines_colour_series_and_volumes(shape):
    generator = torch.Generator().manual_seed(1)
    y, blind = torch.randn(shape, generator=generator), torch.zeros(shape)
    missing = torch.zeros(shape, dtype=torch.bool)
    own = told(y, blind, missing)
    assert len(own.noise) == shape[1]
    for line in own.noise:
        assert float(line.variance(torch.tensor(0.0))) == pytest.approx(1.0, rel=0.25)
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


@pytest.mark.parametrize("kind", ["mosaic", "frames"])
def test_noise_that_is_larger_in_some_places_is_not_taken_for_detail(kind):
    """The result was no better than the measurement there: noise was told by the quietest places alone."""
    truth = data.camera()[100:196, 200:296] / 255.0
    deviation = np.full((1, 96, 96), 0.03)
    if kind == "mosaic":
        deviation[..., 48:] = 0.15
    else:
        deviation = np.repeat(deviation, 3, 0)
        deviation[2] = 0.15
    noise = deviation * np.random.default_rng(0).normal(size=deviation.shape)
    result = selfinv.restore(truth + noise, axes="tyx", method="ssi-network", max_steps=80)
    loud, quiet = deviation > 0.1, deviation < 0.1
    error = result.image - truth
    assert np.sqrt(np.mean(error[loud] ** 2)) < 0.55 * 0.15
    assert np.sqrt(np.mean(error[quiet] ** 2)) < 1.1 * 0.03


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


def test_there_is_no_update_where_values_are_wild():
    truth = data.coins()[64:128, 64:128] / 255.0
    noisy = gaussian(truth, 0.1, 0)
    wild = noisy.copy()
    wild.flat[::40] = 2.0  # not so far that they are left out before
    found = [selfinv.restore(y, method="ssi-network", max_steps=5).model.own_values for y in (noisy, wild)]
    assert found[0] is not None
    assert found[1] is None


def test_a_value_at_a_limit_of_the_noise_has_no_weight():
    y, blind, missing = scene(error=0.2)
    own = told(y.clamp(0.2, 0.8), blind, missing, limits=(0.2, 0.8))
    weights = own.weights(y.clamp(0.2, 0.8), blind, missing)
    assert not weights[..., :40, :].any()
    assert not weights[..., -40:, :].any()
    assert float(weights[..., 90:100, 150:].mean()) > 0.5


def test_a_dark_background_without_noise_does_not_make_photon_noise_disappear():
    generator = np.random.default_rng(0)
    truth = np.zeros((256, 256))
    truth[:, 100:] = np.linspace(0.0, 1.0, 156)
    y, blind = generator.poisson(500 * truth) / 500, truth + 0.01 * generator.standard_normal(truth.shape)
    tensors = [torch.from_numpy(z)[None, None].float() for z in (y, blind)]
    (found,) = find_noise(*tensors, torch.zeros(1, 1, 256, 256, dtype=torch.bool))
    assert float(found.variance(torch.tensor(0.5))) == pytest.approx(0.5 / 500, rel=0.3)


def test_few_photons_beside_read_noise_on_a_cameras_offset_leave_nothing_to_ask():
    generator = np.random.default_rng(0)
    light = np.zeros((256, 256))
    light[:, 100:] = np.linspace(0.0, 1.0, 156)
    y = 0.1 + generator.poisson(10 * light) / 10 + 0.02 * generator.standard_normal(light.shape)
    tensors = [torch.from_numpy(z)[None, None].float() for z in (y, 0.1 + light)]
    missing = torch.zeros(1, 1, 256, 256, dtype=torch.bool)
    own = told(*tensors, missing)
    (found,) = own.noise
    for level in (0.2, 0.5, 1.0):
        assert float(found.variance(torch.tensor(0.1 + level))) == pytest.approx(level / 10, rel=0.2)
    assert float(found.variance(torch.tensor(0.1))) == pytest.approx(0.02**2, rel=0.5)
    assert float(own.weights(*tensors, missing).mean()) < 0.02  # the predictions are perfect


def test_few_photons_are_not_made_detail_of_behind_a_blur():
    truth = data.coins()[64:192, 64:192] / 255.0
    psf = gaussian_psf(2.0, (13, 13))
    light = fftconvolve(np.pad(truth, 6, mode="reflect"), psf, mode="valid")
    generator = np.random.default_rng(0)
    counts = 0.1 + generator.poisson(10 * light) / 10 + 0.02 * generator.standard_normal(light.shape)
    result = selfinv.restore(counts, psf, method="ssi-network", max_steps=60)
    without = replace(result.model, own_values=None).apply(counts)
    errors = [np.sqrt(np.mean((image - 0.1 - truth) ** 2)) for image in (result.image, without)]
    assert errors[0] < 1.01 * errors[1]


def test_noise_that_the_network_has_learned_is_told_from_values_it_was_not_trained_on():
    y, blind, missing = scene()
    untrained = torch.rand(y.shape, generator=torch.Generator().manual_seed(1)) < 0.05
    learned = torch.where(untrained, blind, blind + 0.5 * (y - blind))
    fooled, (warned,) = of_residuals(y, learned, missing), find_noise(y, learned, missing, untrained)
    assert float(fooled.variance(torch.tensor(0.5))) < 0.5 * 0.01
    assert float(warned.variance(torch.tensor(0.5))) == pytest.approx(0.01, rel=0.25)


@pytest.mark.parametrize("kind", ["blur", "coarser"])
def test_behind_an_operator_it_is_the_best_linear_estimate(kind):
    shape = (12, 10)
    blur = Convolution(torch.as_tensor(gaussian_psf((1.0, 0.7), (5, 5))), shape, "unknown")
    operator = blur if kind == "blur" else Downsample(shape, 2) @ Convolution(blur.psf, shape, "reflect")
    units = Normalisation(0.3, 2.0), Normalisation(0.1, 1.5)
    forward = ForwardModel(operator, *units)
    generator = torch.Generator().manual_seed(2)
    x = torch.rand(1, 1, *operator.in_shape, generator=generator, dtype=torch.float64)
    y = forward(x) + 0.1 * torch.randn(1, 1, *operator.out_shape, generator=generator).double()
    missing = torch.zeros_like(y, dtype=torch.bool)
    missing[..., :2, :2] = True
    own = OwnValues((NoiseLine(0.01, 0.0),), excess=(2.0,), share=(0.0,), power=forward.power(1))
    updated = own.update(x, y.masked_fill(missing, 7.0), torch.zeros_like(y), missing, forward)

    n, seen = math.prod(operator.in_shape), ~missing.flatten()
    columns = torch.eye(n, dtype=torch.float64).reshape(n, 1, *operator.in_shape)
    A = forward.respond(columns).reshape(n, -1).T[seen]
    response = A.sum(0)
    everywhere = forward.adjoint(torch.ones_like(y)).max()
    C = 0.02 * response / response.clamp_min(0.05 * everywhere) / own.power[0]
    bright = x.clamp_min(0.0)
    around = local_mean(bright, torch.zeros_like(bright, dtype=torch.bool))
    C = C * ((bright + 0.25 * around + 0.01) / (1.25 * around + 0.01)).flatten()
    residual = (y - forward(x)).flatten()[seen]
    S = A @ torch.diag(C) @ A.T + 0.01 * torch.eye(len(A), dtype=torch.float64)
    expected = x.flatten() + C * (A.T @ torch.linalg.solve(S, residual))
    assert torch.allclose(
        updated.flatten(), expected, atol=2e-3 * float((expected - x.flatten()).abs().max())
    )


def test_finer_pixels_from_coarse_ones_with_little_noise():
    truth = resize(data.camera(), (128, 128), anti_aliasing=True)
    operator = Downsample(truth.shape, 2)
    coarse = gaussian(truth.reshape(64, 2, 64, 2).mean((1, 3)), 0.02, 0)
    result = selfinv.restore(coarse, operator=operator, method="ssi-network", max_steps=150)
    without = replace(result.model, own_values=None).apply(coarse)
    psnr = [selfinv.metrics.psnr(truth, np.clip(image, 0, 1)) for image in (result.image, without)]
    assert psnr[0] > psnr[1] + 0.25
    assert np.array_equal(result.model.apply(coarse), result.image)


def test_a_blurred_image_with_little_noise_and_its_saved_model(tmp_path):
    truth = data.camera()[100:228, 150:278] / 255.0
    psf = gaussian_psf(1.5, (11, 11))
    noisy = gaussian(fftconvolve(np.pad(truth, 5, mode="reflect"), psf, mode="valid"), 0.01, 0)
    result = selfinv.restore(noisy, psf, method="ssi-network", max_steps=80)
    without = replace(result.model, own_values=None).apply(noisy)
    psnr = [selfinv.metrics.psnr(truth, np.clip(image, 0, 1)) for image in (result.image, without)]
    assert psnr[0] > psnr[1] + 0.3
    result.model.save(tmp_path / "model.safetensors")
    assert np.array_equal(selfinv.load_model(tmp_path / "model.safetensors").apply(noisy), result.image)


def test_wild_values_are_told_from_fine_detail():
    y, blind, missing = scene(error=1.0)  # badly predicted in one half
    assert not has_wild_values(y, blind, missing)
    wild = torch.rand(y.shape, generator=torch.Generator().manual_seed(3)) < 0.01
    assert has_wild_values(torch.where(wild, 3.0, y), blind, missing)


def test_a_frame_without_any_value_is_left_as_the_network_has_it():
    operator = Convolution(torch.as_tensor(gaussian_psf((1.0, 1.0), (5, 5))).float(), (32, 32), "unknown")
    forward = ForwardModel(operator, Normalisation(0.0, 1.0), Normalisation(0.0, 1.0))
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(2, 1, 36, 36, generator=generator), torch.rand(2, 1, 32, 32, generator=generator)
    missing = torch.zeros(2, 1, 32, 32, dtype=torch.bool)
    missing[1] = True
    own = OwnValues((NoiseLine(0.01, 0.0),), excess=(2.0,), share=(0.0,), power=forward.power(1))
    updated = own.update(x, y, torch.zeros_like(y), missing, forward)
    assert torch.equal(updated[1], x[1])
    assert torch.isfinite(updated).all()
    assert not torch.equal(updated[0], x[0])


def test_no_residuals_at_all_say_nothing_of_the_noise():
    zero = torch.zeros(1, 1, 64, 64)
    assert find_noise(zero, zero, torch.zeros_like(zero, dtype=torch.bool)) is None


def test_rare_photons_on_nothing_are_not_taken_for_detail():
    generator = np.random.default_rng(0)
    truth = np.zeros((128, 128))
    for row, column in generator.integers(10, 118, (20, 2)):
        truth[row - 2 : row + 3, column - 2 : column + 3] += 20.0
    y = generator.poisson(truth)
    tensors = [torch.from_numpy(z)[None, None].float() / 50 for z in (y, truth + 0.02)]
    missing = torch.zeros(1, 1, 128, 128, dtype=torch.bool)
    assert find_noise(*tensors, missing) is None  # so that no value is asked


def test_an_answer_that_responds_to_values_is_weighed_by_how_much_it_does():
    """Against the best weight of all, with the truth known."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.linspace(0.0, 40.0, 192)[:, None]
    truth = (torch.sin(rows) * torch.sin(rows.T)).expand(1, 1, 192, 192)
    y = truth + 0.1 * torch.randn(truth.shape, generator=generator)
    missing = torch.zeros_like(y, dtype=torch.bool)
    response, smooth_ = 0.3, 0.8 * truth  # flattened, so that there is an error to be told
    answered = smooth_ + response * (y - smooth_)
    own = OwnValues.of(y, answered, missing, find_noise(y, smooth_, missing), response=(response,))
    residual = y - answered
    best = 1.0 - float(((y - truth) * residual).mean() / residual.square().mean())
    assert float(own.weights(y, answered, missing).mean()) == pytest.approx(best, abs=0.08)
    updated = own.update(answered, y, answered, missing, None)
    assert float((updated - truth).square().mean()) < float((answered - truth).square().mean())


def test_detail_that_the_network_cannot_learn_is_kept_where_noise_is_told_by_the_spectrum():
    """It was not, by 5 dB: predictions of brick are nowhere good, and what they left was taken for noise."""
    truth = data.brick()[:160, :160] / 255.0
    noisy = gaussian(truth, 0.01, 0)
    result = selfinv.restore(noisy, method="ssi-network", max_steps=60)
    psnr = [selfinv.metrics.psnr(truth, image) for image in (result.image, noisy)]
    assert result.model.own_values.response is not None
    assert psnr[0] > psnr[1]


def stars(photons, sky, seed=0):
    """A few points on a sky, and the numbers of photons that a camera sees of them out of focus."""
    generator = np.random.default_rng(seed)
    truth = np.full((96, 96), float(sky))
    for brightness in photons * generator.pareto(1.2, 30):
        truth[tuple(generator.integers(6, 90, 2))] += min(brightness, 20 * photons)
    truth = gaussian_filter(truth, 0.7)
    psf = gaussian_psf(1.5, (13, 13))
    light = fftconvolve(np.pad(truth, 6, mode="reflect"), psf, mode="valid")
    return truth, generator.poisson(light.clip(0.0)).astype(float), psf


@pytest.mark.parametrize("sky", [0.0, 20.0], ids=["nothing", "sky"])
def test_stars_that_the_network_makes_too_faint_get_their_light_back_and_no_dark_rings(sky):
    truth, counts, psf = stars(2000.0, sky)
    result = selfinv.restore(counts, psf, method="ssi-network", max_steps=150)
    without = replace(result.model, own_values=None).apply(counts)
    errors = [np.square(image - truth).mean() for image in (result.image, without)]
    assert errors[0] < 0.6 * errors[1]
    assert result.image.min() >= without.min() - 1e-3 * np.ptp(counts)
    assert abs(result.image.sum() / without.sum() - 1) < 0.05  # not by making light
    assert np.array_equal(result.model.apply(counts), result.image)


def test_each_channel_has_its_own_noise():
    quiet, blind, missing = scene(shape=(1, 1, 128, 128))
    loud = blind + 3.0 * (quiet - blind)
    both = [torch.cat(pair, dim=1) for pair in ((quiet, loud), (blind, blind), (missing, missing))]
    found = [float(line.variance(torch.tensor(0.5))) for line in find_noise(*both)]
    assert found == pytest.approx([0.01, 9 * 0.01], rel=0.2)
    y, predicted, holes = both
    predicted = predicted + torch.tensor([0.0, 0.6]).reshape(1, 2, 1, 1) * torch.sign(y - predicted)
    own = OwnValues.of(y, predicted, holes, find_noise(*both))
    apart = [
        OwnValues.of(*(t[:, c : c + 1] for t in (y, predicted, holes)), own.noise[c : c + 1]) for c in (0, 1)
    ]
    assert own.excess == tuple(one.excess[0] for one in apart)
    assert torch.equal(
        own.weights(y, predicted, holes),
        torch.cat(
            [
                one.weights(y[:, c : c + 1], predicted[:, c : c + 1], holes[:, c : c + 1])
                for c, one in enumerate(apart)
            ],
            dim=1,
        ),
    )
